"""The caching allocator: what a request takes, and what goes back to the driver when nothing fits.

The order of steps, the rules and their names are PyTorch's (``c10/cuda/CUDACachingAllocator.cpp``: ``malloc``,
``get_free_block``, ``alloc_block``, ``release_cached_blocks``, ``garbage_collect_cached_blocks``), as tested on 2.6 to
2.15. A request costs O(log n) in the free blocks of its lane; a reclaim O(n log n).
"""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import (
    add_segment,
    complete_all_frees,
    driver_has,
    hand_out,
    is_expandable_block,
    is_unsplit,
    lane_of,
    next_address,
    release_segment,
)
from memscope._kernels.caching_expandable import grow_for, unmap_block
from memscope._kernels.caching_rules import UNLIMITED, round_size, segment_size
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first, first_of_size, following, last_below_size, preceding, remove


@borrowing
def _growth_room(arrays, block):
    """Size of a block and of the unmapped range after it."""
    blocks = arrays.blocks
    size = blocks[block, at.B_SIZE]
    later = blocks[block, at.B_NEXT]
    if later != at.NONE and blocks[later, at.B_STATE] == at.UNMAPPED:
        size += blocks[later, at.B_SIZE]
    return size


@borrowing
def find_free_block(arrays, lane, rounded_bytes):
    """The free block that a request of that rounded size takes, −1 for none; nothing is changed."""
    blocks, config = arrays.blocks, arrays.config
    block = first_of_size(arrays, lane, rounded_bytes)
    if block == at.NONE:
        return block
    if config[at.CFG_IS_EXPANDABLE] == 1:
        # A small block at the growing end is passed over for a larger hole: neighbours only, first failure stops.
        while is_expandable_block(arrays, block):
            later = following(arrays, lane, at.L_FREE_ROOT, block)
            if later == at.NONE or _growth_room(arrays, later) >= _growth_room(arrays, block):
                break
            block = later
    else:
        while block != at.NONE and is_expandable_block(arrays, block):
            block = following(arrays, lane, at.L_FREE_ROOT, block)
        if block == at.NONE:
            return block
    limit = config[at.CFG_MAX_SPLIT]
    size = blocks[block, at.B_SIZE]
    if rounded_bytes < limit and size >= limit:
        return at.NONE
    if rounded_bytes >= limit and size >= rounded_bytes + config[at.CFG_NON_SPLIT_ROUNDING]:
        return at.NONE
    return block


@borrowing
def _alloc_block(arrays, lane, rounded_bytes):
    config = arrays.config
    n_bytes = segment_size(rounded_bytes, config[at.CFG_LARGE_SEGMENT])
    limit = config[at.CFG_LIMIT]
    if limit >= 0 and arrays.counters[at.C_RESERVED] + n_bytes > limit:
        return at.NONE
    if config[at.CFG_IS_EXPANDABLE] == 1:
        return grow_for(arrays, lane, rounded_bytes)
    if not driver_has(arrays, n_bytes):
        return at.NONE
    return add_segment(arrays, lane, next_address(arrays, n_bytes), n_bytes)


@borrowing
def malloc(arrays, pair, requested_bytes):
    """Serve a request of a (pool, stream) pair.

    Returns the block given, ``STATUS_OOM``, or ``STATUS_GROW`` before anything was changed if an array may be too
    short.
    """
    if not at.has_room(arrays):
        return at.STATUS_GROW
    config, counters = arrays.config, arrays.counters
    rounded = round_size(requested_bytes, config[at.CFG_DIVISIONS :])
    lane = lane_of(pair, rounded)
    if config[at.CFG_GC_BYTES] >= 0 and lane & 1 and arrays.lanes[lane, at.L_POOL] == 0:
        counters[at.C_GC_CALLS] += 1
    block = find_free_block(arrays, lane, rounded)
    if block != at.NONE:
        remove(arrays, lane, at.L_FREE_ROOT, block)
        return hand_out(arrays, block, requested_bytes, rounded)
    block = _miss(arrays, lane, rounded)
    if block == at.NONE:
        return at.STATUS_OOM
    return hand_out(arrays, block, requested_bytes, rounded)


@borrowing
def _miss(arrays, lane, rounded_bytes):
    """No free block fits: garbage collection, the driver, and reclaims, in PyTorch's order."""
    config, counters = arrays.config, arrays.counters
    if config[at.CFG_GC_BYTES] >= 0:
        collect_garbage(arrays)
    if _is_rejected(arrays, rounded_bytes):
        counters[at.C_N_REJECTIONS] += 1
        return at.NONE
    block = _alloc_block(arrays, lane, rounded_bytes)
    if block != at.NONE:
        return block
    if config[at.CFG_MAX_SPLIT] != UNLIMITED and release_oversize(arrays, lane, rounded_bytes):
        block = _alloc_block(arrays, lane, rounded_bytes)
        if block != at.NONE:
            return block
    release_cached(arrays)
    counters[at.C_N_RETRIES] += 1
    block = _alloc_block(arrays, lane, rounded_bytes)
    if block == at.NONE:
        counters[at.C_N_OOMS] += 1
        at.log_event(arrays, at.ACTION_OOM, at.NONE, rounded_bytes, lane)
    return block


@borrowing
def _is_rejected(arrays, rounded_bytes):
    """``throw_on_cudamalloc_oom``: over the device's total, and not already over the memory fraction."""
    config, counters = arrays.config, arrays.counters
    after = counters[at.C_RESERVED] + segment_size(rounded_bytes, config[at.CFG_LARGE_SEGMENT])
    if config[at.CFG_LIMIT] >= 0 and after > config[at.CFG_LIMIT]:
        return False
    return config[at.CFG_REJECT_ABOVE] >= 0 and after > config[at.CFG_REJECT_ABOVE]


@borrowing
def release_oversize(arrays, lane, rounded_bytes):
    """``release_available_cached_blocks``: free just enough blocks above the split limit; whether that sufficed.

    Blocks above the limit are whole segments, unless ``large_segment_size_mb`` is above it too: what is then left of a
    split segment is passed over, because a part of a segment cannot be given back.
    """
    blocks = arrays.blocks
    limit = arrays.config[at.CFG_MAX_SPLIT]
    wanted = max(rounded_bytes, limit)
    block = first_of_size(arrays, lane, wanted)
    if block != at.NONE and is_unsplit(blocks, block) and not is_expandable_block(arrays, block):
        release_segment(arrays, block)
        return True
    block = last_below_size(arrays, lane, wanted)
    released = 0
    while block != at.NONE and released < wanted and blocks[block, at.B_SIZE] >= limit:
        smaller = preceding(arrays, lane, at.L_FREE_ROOT, block)
        if is_unsplit(blocks, block) and not is_expandable_block(arrays, block):
            released += blocks[block, at.B_SIZE]
            release_segment(arrays, block)
        block = smaller
    return released >= wanted


@borrowing
def release_lanes(arrays, first_position, last_position):
    """Give back everything unused of the lanes at those positions of the release order: one pool of one size class.

    Whole segments first, then handles of expandable ones; each in the order of streams, then of the free sets.
    """
    blocks, lanes = arrays.blocks, arrays.lanes
    for position in range(first_position, last_position):
        lane = lanes[position, at.L_RELEASE_ORDER]
        block = first(arrays, lane, at.L_FREE_ROOT)
        while block != at.NONE:
            later = following(arrays, lane, at.L_FREE_ROOT, block)
            if is_unsplit(blocks, block) and not is_expandable_block(arrays, block):
                release_segment(arrays, block)
            block = later
    for position in range(first_position, last_position):
        lane = lanes[position, at.L_RELEASE_ORDER]
        block = first(arrays, lane, at.L_FREE_ROOT)
        while block != at.NONE:
            later = following(arrays, lane, at.L_FREE_ROOT, block)
            if is_expandable_block(arrays, block):
                unmap_block(arrays, block)
            block = later


@borrowing
def release_cached(arrays):
    """``release_cached_blocks``: wait for all streams, then give back all unused memory of releasable pools.

    Default pool: large, then small. Private pools: small, then large. Expects enough room in the log.
    """
    lanes = arrays.lanes
    complete_all_frees(arrays)
    position = 0
    while position < len(lanes):
        lane = lanes[position, at.L_RELEASE_ORDER]
        if lane == at.NONE:
            break
        end = position + 1
        while end < len(lanes):
            other = lanes[end, at.L_RELEASE_ORDER]
            if other == at.NONE or other & 1 != lane & 1 or lanes[other, at.L_POOL] != lanes[lane, at.L_POOL]:
                break
            end += 1
        if lanes[lane, at.L_IS_RELEASABLE] == 1:
            release_lanes(arrays, position, end)
        position = end


@borrowing
def empty_cache(arrays):
    """Give back all unused memory; ``STATUS_GROW`` if an array may be too short for that, else 0."""
    if not at.has_room(arrays):
        return at.STATUS_GROW
    release_cached(arrays)
    return 0


@borrowing
def collect_garbage(arrays):
    """Free the older unsplit blocks of the default large pool until reserved memory is below the threshold.

    Passes of O(n): one frees every block whose age is at least the mean age at its start, and goes on past the target.
    """
    blocks, lanes, counters = arrays.blocks, arrays.lanes, arrays.counters
    target = counters[at.C_RESERVED] - arrays.config[at.CFG_GC_BYTES]
    if target <= 0:
        return
    age_sum, n_candidates = garbage_ages(arrays)
    reclaimed = 0
    freed_any = True
    while reclaimed < target and freed_any and n_candidates > 0:
        freed_any = False
        cutoff = age_sum / n_candidates
        for position in range(len(lanes)):
            lane = lanes[position, at.L_RELEASE_ORDER]
            if lane == at.NONE or lanes[lane, at.L_POOL] != 0 or lane & 1 == 0:
                break
            block = first(arrays, lane, at.L_FREE_ROOT)
            while block != at.NONE:
                later = following(arrays, lane, at.L_FREE_ROOT, block)
                age = counters[at.C_GC_CALLS] - blocks[block, at.B_GC_BASE]
                if is_unsplit(blocks, block) and not is_expandable_block(arrays, block) and age >= cutoff:
                    reclaimed += blocks[block, at.B_SIZE]
                    age_sum -= age
                    n_candidates -= 1
                    freed_any = True
                    release_segment(arrays, block)
                block = later


@borrowing
def garbage_ages(arrays):
    """Sum of the ages and number of the blocks that garbage collection considers."""
    blocks, lanes, counters = arrays.blocks, arrays.lanes, arrays.counters
    age_sum = 0
    n_candidates = 0
    for position in range(len(lanes)):
        lane = lanes[position, at.L_RELEASE_ORDER]
        if lane == at.NONE or lanes[lane, at.L_POOL] != 0 or lane & 1 == 0:
            break
        block = first(arrays, lane, at.L_FREE_ROOT)
        while block != at.NONE:
            if is_unsplit(blocks, block) and not is_expandable_block(arrays, block):
                age_sum += counters[at.C_GC_CALLS] - blocks[block, at.B_GC_BASE]
                n_candidates += 1
            block = following(arrays, lane, at.L_FREE_ROOT, block)
    return age_sum, n_candidates
