"""Arenas, as RMM's ``arena_memory_resource`` has them: one for each stream, fed with superblocks by a global one.

Source: RMM ``arena_memory_resource.hpp`` and ``detail/arena.hpp`` (read at 2dbf0a9, without the size classes, which
are a build option there). After those are the rounding, first fit by address in every arena, the minimum size of a
superblock and when it is split or joined, the requests that the global arena serves itself (a free of those waits for
its stream), and the cleaning of all arenas when a request fails.

A model is the size of the global arena. RMM takes half of the device, or a given size, at the start and keeps it.
Here it grows by exactly what is touched for the first time, so that the reserved bytes are the extent that RMM would
have used; what lies beyond belongs to the last empty superblock, as it does there. RMM keeps its arena until it is
destroyed; here an emptied cache cleans all arenas and gives the unused end of the extent back.

A segment row is a superblock. The global arena is lane 0, that of stream ``k`` is lane ``2k``. The extent ends at the
next address of the simulated driver.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.address_sets import (
    first_fit,
    first_from,
    insert_by_address,
    last_below,
    remove_by_address,
)
from memscope._kernels.caching_blocks import insert_free, is_unsplit
from memscope._kernels.compiled import borrowing
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory
from memscope._kernels.policy_carving import absorb_next, aligned, cut_front, detach, is_free_in

GLOBAL = 0


class Arena(NamedTuple):
    """Parameters, and scratch memory for the sets by address: int64 (address_sets.PATH_ROWS,)."""

    alignment_bytes: int
    superblock_bytes: int
    initial_arena_bytes: int
    path: Any


@borrowing
def _put(policy, arrays, block):
    """Put a block into the sets of its arena."""
    insert_free(arrays, block)
    insert_by_address(arrays, policy.path, arrays.blocks[block, at.B_LANE], block)


@borrowing
def _take(policy, arrays, block):
    """Take a block out of the sets of its arena."""
    remove_by_address(arrays, policy.path, arrays.blocks[block, at.B_LANE], block)
    detach(arrays, block)


@borrowing
def _end(arrays, block):
    return arrays.blocks[block, at.B_ADDRESS] + arrays.blocks[block, at.B_SIZE]


@borrowing
def _is_empty(arrays, block):
    """Whether a block is free and the whole of its superblock."""
    return arrays.blocks[block, at.B_STATE] == at.FREE and is_unsplit(arrays.blocks, block)


@borrowing
def _can_lengthen(arrays, n_bytes):
    """Whether the driver can make the extent that much longer."""
    extent = aligned(arrays.counters[at.C_RESERVED] + n_bytes, at.DRIVER_GRANULE_BYTES)
    return arrays.config[at.CFG_CAPACITY] < 0 or extent <= arrays.config[at.CFG_CAPACITY]


@borrowing
def _lengthen(arrays, n_bytes):
    """Make the extent longer; its first memory is one allocation. Returns where the new part begins."""
    counters = arrays.counters
    address = counters[at.C_NEXT_ADDRESS]
    counters[at.C_NEXT_ADDRESS] += n_bytes
    counters[at.C_N_DEVICE_ALLOCS] += 1 if counters[at.C_RESERVED] == 0 else 0
    at.grow_counter(counters, at.C_RESERVED, at.C_PEAK_RESERVED, n_bytes)
    counters[at.C_DEVICE_USED] = aligned(counters[at.C_RESERVED], at.DRIVER_GRANULE_BYTES)
    at.log_event(arrays, at.ACTION_SEGMENT_ALLOC, address, n_bytes, GLOBAL)
    return address


@borrowing
def _resize(arrays, block, n_bytes):
    """Give an empty superblock, in no set, another size."""
    arrays.blocks[block, at.B_SIZE] = n_bytes
    arrays.segments[arrays.blocks[block, at.B_SEGMENT], at.S_SIZE] = n_bytes


@borrowing
def _acquire(policy, arrays, size):
    """A block of at least that size of the global arena, in no set, its superblock split if it was empty.

    −1 if there is none and the extent cannot grow. O(log n).
    """
    blocks, counters = arrays.blocks, arrays.counters
    least = max(policy.superblock_bytes, size)
    block = first_fit(arrays, GLOBAL, size)
    if block == at.NONE:
        # The end of the extent is one with the memory beyond it, if nothing there is in use.
        block = last_below(arrays, GLOBAL, counters[at.C_NEXT_ADDRESS])
        if block != at.NONE and not (_is_empty(arrays, block) and _end(arrays, block) == counters[at.C_NEXT_ADDRESS]):
            block = at.NONE
        if not _can_lengthen(arrays, least if block == at.NONE else least - blocks[block, at.B_SIZE]):
            return at.NONE
        if block == at.NONE:
            return at.new_segment(arrays, GLOBAL, _lengthen(arrays, least), least, 0, at.FREE)
    _take(policy, arrays, block)
    if _is_empty(arrays, block):
        _fit_superblock(policy, arrays, block, least)
    return block


@borrowing
def _fit_superblock(policy, arrays, block, least):
    """Split an empty superblock that is in no set, or lengthen it at the end of the extent, to the least size."""
    blocks = arrays.blocks
    size = blocks[block, at.B_SIZE]
    is_last = _end(arrays, block) == arrays.counters[at.C_NEXT_ADDRESS]
    if is_last and size < least and _can_lengthen(arrays, least - size):
        _lengthen(arrays, least - size)
        _resize(arrays, block, least)
    elif size - least >= (1 if is_last else policy.superblock_bytes):
        _resize(arrays, block, least)
        _put(policy, arrays, at.new_segment(arrays, GLOBAL, _end(arrays, block), size - least, 0, at.FREE))


@borrowing
def _move(policy, arrays, segment, lane):
    """Give a superblock to another arena: all its blocks change lanes. O(its blocks · log n)."""
    blocks = arrays.blocks
    arrays.segments[segment, at.S_LANE] = lane
    block = arrays.segments[segment, at.S_HEAD]
    while block != at.NONE:
        if blocks[block, at.B_STATE] == at.FREE:
            _take(policy, arrays, block)
            blocks[block, at.B_LANE] = lane
            _put(policy, arrays, block)
        else:
            blocks[block, at.B_LANE] = lane
        block = blocks[block, at.B_NEXT]


@borrowing
def _find(policy, arrays, lane, size):
    """A block of at least that size for a stream, in no set; −1 if there is none."""
    if size > policy.superblock_bytes:
        return _acquire(policy, arrays, size)
    block = first_fit(arrays, lane, size)
    if block != at.NONE:
        _take(policy, arrays, block)
        return block
    block = _acquire(policy, arrays, size)
    if block != at.NONE:
        arrays.blocks[block, at.B_STATE] = at.ALLOCATED
        _move(policy, arrays, arrays.blocks[block, at.B_SEGMENT], lane)
    return block


@borrowing
def _join(policy, arrays, block):
    """Join an empty superblock of the global arena, in no set, with empty ones beside it. Returns the joined one."""
    blocks = arrays.blocks
    earlier = last_below(arrays, GLOBAL, blocks[block, at.B_ADDRESS])
    if earlier != at.NONE and _is_empty(arrays, earlier) and _end(arrays, earlier) == blocks[block, at.B_ADDRESS]:
        _take(policy, arrays, earlier)
        _absorb_superblock(arrays, earlier, block)
        block = earlier
    later = first_from(arrays, GLOBAL, _end(arrays, block))
    if later != at.NONE and _is_empty(arrays, later) and _end(arrays, block) == blocks[later, at.B_ADDRESS]:
        _take(policy, arrays, later)
        _absorb_superblock(arrays, block, later)
    return block


@borrowing
def _absorb_superblock(arrays, block, later):
    _resize(arrays, block, arrays.blocks[block, at.B_SIZE] + arrays.blocks[later, at.B_SIZE])
    at.drop_segment(arrays, arrays.blocks[later, at.B_SEGMENT])
    at.drop_block(arrays, later)


@borrowing
def _clean(policy, arrays):
    """Return the superblocks of all arenas to the global one, in use or not. O(blocks · log n)."""
    for segment in range(arrays.counters[at.C_SEGMENT_TOP]):
        if arrays.segments[segment, at.S_IS_LIVE] == 1 and arrays.segments[segment, at.S_LANE] != GLOBAL:
            _move(policy, arrays, segment, GLOBAL)
            block = arrays.segments[segment, at.S_HEAD]
            if _is_empty(arrays, block):
                _take(policy, arrays, block)
                _put(policy, arrays, _join(policy, arrays, block))


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    counters = arrays.counters
    if (
        counters[at.C_RESERVED] == 0
        and policy.initial_arena_bytes > 0
        and _can_lengthen(arrays, policy.initial_arena_bytes)
    ):
        address = _lengthen(arrays, policy.initial_arena_bytes)
        _put(policy, arrays, at.new_segment(arrays, GLOBAL, address, policy.initial_arena_bytes, 0, at.FREE))
    size, lane = aligned(requested_bytes, policy.alignment_bytes), 2 * pair
    block = _find(policy, arrays, lane, size)
    if block == at.NONE:
        complete_all_frees(policy, arrays)
        _clean(policy, arrays)
        counters[at.C_N_RETRIES] += 1
        block = _find(policy, arrays, lane, size)
    if block == at.NONE:
        return out_of_memory(arrays, size, lane)
    if arrays.blocks[block, at.B_SIZE] > size:
        rest = block
        block = cut_front(arrays, rest, size)
        _put(policy, arrays, rest)
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _give_back(policy, arrays, block):
    blocks = arrays.blocks
    if blocks[block, at.B_SIZE] > policy.superblock_bytes:
        arrays.counters[at.C_N_STREAM_SYNCS] += 1
    lane = blocks[block, at.B_LANE]
    later = blocks[block, at.B_NEXT]
    if is_free_in(blocks, later, lane):
        _take(policy, arrays, later)
        absorb_next(arrays, block)
    earlier = blocks[block, at.B_PREV]
    if is_free_in(blocks, earlier, lane):
        _take(policy, arrays, earlier)
        absorb_next(arrays, earlier)
        block = earlier
    if lane == GLOBAL and is_unsplit(blocks, block):
        block = _join(policy, arrays, block)
    _put(policy, arrays, block)


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    _clean(policy, arrays)
    counters = arrays.counters
    block = last_below(arrays, GLOBAL, counters[at.C_NEXT_ADDRESS])
    if block == at.NONE or not _is_empty(arrays, block) or _end(arrays, block) != counters[at.C_NEXT_ADDRESS]:
        return
    _take(policy, arrays, block)
    address, n_bytes = arrays.blocks[block, at.B_ADDRESS], arrays.blocks[block, at.B_SIZE]
    counters[at.C_RESERVED] -= n_bytes
    counters[at.C_DEVICE_USED] = aligned(counters[at.C_RESERVED], at.DRIVER_GRANULE_BYTES)
    counters[at.C_NEXT_ADDRESS] = address
    counters[at.C_N_DEVICE_FREES] += 1 if counters[at.C_RESERVED] == 0 else 0
    at.log_event(arrays, at.ACTION_SEGMENT_FREE, address, n_bytes, GLOBAL)
    at.drop_segment(arrays, arrays.blocks[block, at.B_SEGMENT])
    at.drop_block(arrays, block)


register(Arena, PolicyKernels(_malloc, _give_back, _release))
