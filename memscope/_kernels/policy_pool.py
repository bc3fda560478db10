"""A pool that coalesces, as RMM's ``pool_memory_resource`` does it.

Source: RMM ``pool_memory_resource.hpp``, ``stream_ordered_memory_resource.hpp`` and ``coalescing_free_list.hpp`` (read
at 0e89dfb). After those are the rounding, the free list of each stream with its best fit, the search of the other
streams' lists (first for a block, then joined one by one into the own list; a stream only makes another wait by an
event, nothing waits on the host) and the growth with its back-off. A model is that streams are searched in the order
of their first use, and what gives memory back: RMM's pool keeps everything until it is destroyed, even where a
request then fails.

Free blocks of stream ``k`` are in lane ``2k``.
"""

from __future__ import annotations

from typing import NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import add_segment, driver_has, insert_free, next_address
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory
from memscope._kernels.policy_carving import (
    absorb_next,
    aligned,
    detach,
    put_back,
    release_unused_segments,
    take_best_fit,
    take_front,
)


class Pool(NamedTuple):
    """Parameters; −1 for no maximum."""

    alignment_bytes: int
    initial_pool_bytes: int
    maximum_pool_bytes: int
    returns_memory: int


@borrowing
def _take_from_streams(arrays, first_lane, own, size):
    """A block of another stream's list, the rest of it left there; −1 if none has one. O(streams · log n)."""
    for lane in range(first_lane, len(arrays.lanes), 2):
        if lane != own:
            block = take_best_fit(arrays, lane, size)
            if block != at.NONE:
                return take_front(arrays, block, size)
    return at.NONE


@borrowing
def _merge_streams(arrays, first_lane, own, size):
    """Join the other lists one by one into the own one until it has a block. O(moved · log n)."""
    for lane in range(first_lane, len(arrays.lanes), 2):
        if lane == own or arrays.lanes[lane, at.L_FREE_ROOT] == at.NONE:
            continue
        block = first(arrays, lane, at.L_FREE_ROOT)
        while block != at.NONE:
            detach(arrays, block)
            put_back(arrays, block, own)
            block = first(arrays, lane, at.L_FREE_ROOT)
        block = take_best_fit(arrays, own, size)
        if block != at.NONE:
            return take_front(arrays, block, size)
    return at.NONE


@borrowing
def _grow(alignment_bytes, maximum_bytes, arrays, own, size):
    """More memory, cut to the size: as much again as the pool has, or half of what it may still get."""
    wanted = max(size, arrays.counters[at.C_RESERVED])
    if maximum_bytes >= 0:
        remaining = aligned(maximum_bytes - arrays.counters[at.C_RESERVED], alignment_bytes)
        if size > remaining:
            return at.NONE
        wanted = max(size, remaining // 2)
    while not driver_has(arrays, wanted):
        if wanted == size:
            return at.NONE
        wanted = max(size, wanted // 2)
    block = add_segment(arrays, own, next_address(arrays, wanted), wanted)
    return take_front(arrays, block, size)


@borrowing
def _search(arrays, first_lane, own, size):
    """A block for a size among what the pool has, in no set. O(streams · log n) if none must be joined."""
    block = take_best_fit(arrays, own, size)
    if block != at.NONE:
        return take_front(arrays, block, size)
    block = _take_from_streams(arrays, first_lane, own, size)
    return block if block != at.NONE else _merge_streams(arrays, first_lane, own, size)


@borrowing
def take_from_pool(policy, arrays, first_lane, own, size):
    """A block of exactly that size for a stream's lane, in no set and not counted; −1 if there is none.

    ``first_lane`` is the lane of the first stream.
    """
    if arrays.counters[at.C_RESERVED] == 0 and policy.initial_pool_bytes > 0:
        n_bytes = policy.initial_pool_bytes
        if driver_has(arrays, n_bytes):
            insert_free(arrays, add_segment(arrays, own, next_address(arrays, n_bytes), n_bytes))
    block = _search(arrays, first_lane, own, size)
    if block == at.NONE:
        block = _grow(policy.alignment_bytes, policy.maximum_pool_bytes, arrays, own, size)
    if block != at.NONE:
        arrays.blocks[block, at.B_LANE] = own
    return block


@borrowing
def _is_pools(blocks, block, first_lane):
    """Whether there is such a block, free in any stream's list."""
    return block != at.NONE and blocks[block, at.B_STATE] == at.FREE and blocks[block, at.B_LANE] >= first_lane


@borrowing
def join_streams(arrays, first_lane):
    """Join free neighbours of different streams' lists: the streams have been waited for. O(blocks · log n)."""
    blocks = arrays.blocks
    for segment in range(arrays.counters[at.C_SEGMENT_TOP]):
        block = arrays.segments[segment, at.S_HEAD] if arrays.segments[segment, at.S_IS_LIVE] == 1 else at.NONE
        while block != at.NONE:
            later = blocks[block, at.B_NEXT]
            if _is_pools(blocks, block, first_lane) and _is_pools(blocks, later, first_lane):
                detach(arrays, block)
                detach(arrays, later)
                absorb_next(arrays, block)
                insert_free(arrays, block)
            else:
                block = later


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    size = aligned(requested_bytes, policy.alignment_bytes)
    own = 2 * pair
    block = take_from_pool(policy, arrays, 0, own, size)
    if block == at.NONE:
        _release(policy, arrays)
        arrays.counters[at.C_N_RETRIES] += 1
        block = take_from_pool(policy, arrays, 0, own, size)
    if block == at.NONE:
        return out_of_memory(arrays, size, own)
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _give_back(policy, arrays, block):
    put_back(arrays, block, arrays.blocks[block, at.B_LANE])


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    if policy.returns_memory:
        join_streams(arrays, 0)
        release_unused_segments(arrays)


register(Pool, PolicyKernels(_malloc, _give_back, _release))
