"""Bins of fixed sizes over a pool, as RMM's ``binning_memory_resource`` has them in its replay benchmark.

Source: RMM ``binning_memory_resource.hpp`` and ``fixed_size_memory_resource.hpp`` (read at 16e6c30 and 078bf70). After
those are the bins (one for each power of two between two exponents), that a request is served by the smallest bin that
holds it (the smallest bin serves everything below it too), that a bin takes its blocks from upstream by chunks of 128,
never joins or splits them and never gives them back, and that larger requests go to the pool upstream, which is that
of :mod:`memscope._kernels.policy_pool`.

A model is when a bin takes its first chunk: at its first request, where RMM takes one for every bin at the start. A
chunk is cut into blocks as they are needed, and a bin serves its free block at the lowest address, whichever stream
freed it: its blocks are all alike, so that no byte depends on the choice. What an emptied cache gives back is a model
too: chunks without any use go back to the pool, and unused memory of the pool to the driver.

Bin ``i`` is lane ``i``; the lists of the pool's streams follow. The chunk of a bin's block is its tie.
"""

from __future__ import annotations

from typing import NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import insert_free
from memscope._kernels.compiled import borrowing
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
from memscope._kernels.policy_pool import join_streams, take_from_pool

MAX_BINS = 32
FIRST_STREAM = MAX_BINS


class Binning(NamedTuple):
    """Parameters: those of the bins, and those of the pool by the names that its kernels know."""

    min_bin_exponent: int
    max_bin_exponent: int
    blocks_per_chunk: int
    alignment_bytes: int
    initial_pool_bytes: int
    maximum_pool_bytes: int
    returns_memory: int


@borrowing
def _bin_of(policy, size):
    """The smallest bin that holds a size, −1 if it is too large for all. O(bins)."""
    if size > 1 << policy.max_bin_exponent:
        return at.NONE
    place = 0
    while size > 1 << (policy.min_bin_exponent + place):
        place += 1
    return place


@borrowing
def _find(policy, arrays, own, size, place):
    """A block for a size, from a bin or from the pool, in no set; −1 if there is none."""
    if place == at.NONE:
        return take_from_pool(policy, arrays, FIRST_STREAM, own, size)
    bin_bytes = 1 << (policy.min_bin_exponent + place)
    block = take_best_fit(arrays, place, bin_bytes)
    if block == at.NONE:
        block = take_from_pool(policy, arrays, FIRST_STREAM, own, bin_bytes * policy.blocks_per_chunk)
        if block == at.NONE:
            return at.NONE
        arrays.blocks[block, at.B_LANE] = place
        arrays.blocks[block, at.B_TIE] = arrays.blocks[block, at.B_ADDRESS]
    return take_front(arrays, block, bin_bytes)


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    size = aligned(requested_bytes, policy.alignment_bytes)
    own = 2 * pair
    place = _bin_of(policy, size)
    block = _find(policy, arrays, own, size, place)
    if block == at.NONE:
        _release(policy, arrays)
        arrays.counters[at.C_N_RETRIES] += 1
        block = _find(policy, arrays, own, size, place)
    if block == at.NONE:
        return out_of_memory(arrays, size, own)
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _give_back(policy, arrays, block):
    lane = arrays.blocks[block, at.B_LANE]
    if lane < FIRST_STREAM:
        insert_free(arrays, block)
    else:
        put_back(arrays, block, lane)


@borrowing
def _end_of_chunk(blocks, block):
    """The block after a chunk that begins at this one (−1 for none), and whether the chunk is free as a whole."""
    chunk, is_unused = blocks[block, at.B_TIE], True
    while block != at.NONE and blocks[block, at.B_LANE] < FIRST_STREAM and blocks[block, at.B_TIE] == chunk:
        is_unused = is_unused and blocks[block, at.B_STATE] == at.FREE
        block = blocks[block, at.B_NEXT]
    return block, is_unused


@borrowing
def _return_chunks(arrays, segment):
    """Give a segment's unused chunks back to the pool. O(its blocks · log n)."""
    blocks = arrays.blocks
    block = arrays.segments[segment, at.S_HEAD]
    while block != at.NONE:
        if blocks[block, at.B_LANE] >= FIRST_STREAM:
            block = blocks[block, at.B_NEXT]
            continue
        end, is_unused = _end_of_chunk(blocks, block)
        if is_unused:
            detach(arrays, block)
            while blocks[block, at.B_NEXT] != end:
                detach(arrays, blocks[block, at.B_NEXT])
                absorb_next(arrays, block)
            blocks[block, at.B_TIE] = 0
            block = blocks[put_back(arrays, block, FIRST_STREAM), at.B_NEXT]
        else:
            block = end


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    if policy.returns_memory:
        for segment in range(arrays.counters[at.C_SEGMENT_TOP]):
            if arrays.segments[segment, at.S_IS_LIVE] == 1:
                _return_chunks(arrays, segment)
        join_streams(arrays, FIRST_STREAM)
        release_unused_segments(arrays)


register(Binning, PolicyKernels(_malloc, _give_back, _release))
