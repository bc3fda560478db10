"""The driver's stream-ordered pool below ``cudaMallocAsync``, which PyTorch's backend of that name uses.

Source: CUDA runtime API, memory pool attributes; CUDA programming guide, stream-ordered memory allocator; PyTorch
``c10/cuda/CUDAMallocAsyncAllocator.cpp`` (read at 0345947: no release threshold, every way of reuse on, and an
emptied cache waits for the device and trims the pool to nothing). How the driver places and grows is not published.
Assumed are best fit with coalescing, growth by whole chunks at addresses of their own (by pages where no chunk is
left), one physical allocation for each chunk, and that memory goes back by what was grown at once.

Documented, and modelled by whole unused growths: where free memory is in pieces too small for a request, the driver
maps unused memory into one range instead of asking for more (NVIDIA, Using the CUDA Stream-Ordered Memory Allocator,
part 1).

Memory that was freed on one stream serves another if its free has completed and either opportunistic reuse or internal
dependencies are allowed: a free that the recording calls completed is taken for one. Otherwise it stays with its
stream until the next wait for the device. A recording holds no events between streams, so that reuse that follows
them is not modelled.

Lane 0 holds what every stream may have, lane ``2k`` what only stream ``k`` may; unused growths lie in the lane after.
"""

from __future__ import annotations

from typing import NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import insert_free, is_unsplit, next_address
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first, first_of_size, is_before, last_below_size, preceding
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory
from memscope._kernels.policy_carving import aligned, cut_front, detach, join_neighbours
from memscope._kernels.policy_virtual_memory import count_mapped_range, count_unmapped_range, driver_can_create

SHARED = 0


class AsyncPool(NamedTuple):
    """Parameters; a release threshold of −1 is none."""

    alignment_bytes: int
    page_bytes: int
    growth_chunk_bytes: int
    release_threshold_bytes: int
    reuse_allow_opportunistic: int
    reuse_allow_internal_dependencies: int
    remaps_unused: int


@borrowing
def _shares(policy):
    """Whether a completed free serves every stream at once."""
    return policy.reuse_allow_opportunistic == 1 or policy.reuse_allow_internal_dependencies == 1


@borrowing
def _put(arrays, block, base):
    """Free a block for those whom a pair of lanes serves, joined with its neighbours there. O(log n)."""
    block = join_neighbours(arrays, block, base)
    if is_unsplit(arrays.blocks, block):
        arrays.blocks[block, at.B_LANE] = base + 1
    insert_free(arrays, block)
    return block


@borrowing
def _best_fit(arrays, base, size):
    """The smallest block of a pair of lanes that holds a size, −1 for none. O(log n)."""
    piece, whole = first_of_size(arrays, base, size), first_of_size(arrays, base + 1, size)
    if piece == at.NONE or whole == at.NONE:
        return max(piece, whole)
    return piece if is_before(arrays.blocks, piece, whole, at.L_FREE_ROOT) else whole


@borrowing
def _search(arrays, base, own, size):
    """A block of exactly that size among what a stream may have, in no set; −1 if there is none. O(log n)."""
    block = _best_fit(arrays, base, size)
    if block == at.NONE and base != SHARED:
        block = _best_fit(arrays, SHARED, size)
    if block != at.NONE:
        detach(arrays, block)
        block = _cut(arrays, block, own, size)
    return block


@borrowing
def _cut(arrays, block, own, size):
    """The front of a block that is in no set, for a stream; the rest goes back to whom the block was for."""
    blocks = arrays.blocks
    if blocks[block, at.B_SIZE] > size:
        rest = block
        block = cut_front(arrays, rest, size)
        blocks[rest, at.B_LANE] = blocks[rest, at.B_LANE] // 2 * 2
        insert_free(arrays, rest)
    blocks[block, at.B_LANE] = own
    return block


@borrowing
def _n_chunks(policy, n_bytes):
    return (n_bytes + policy.growth_chunk_bytes - 1) // policy.growth_chunk_bytes


@borrowing
def _unmap(policy, arrays, block):
    """Take an unused growth out of the pool; its memory is the caller's to give back or to map again. O(log n)."""
    blocks, counters = arrays.blocks, arrays.counters
    n_bytes = blocks[block, at.B_SIZE]
    detach(arrays, block)
    at.log_event(arrays, at.ACTION_SEGMENT_FREE, blocks[block, at.B_ADDRESS], n_bytes, blocks[block, at.B_LANE])
    count_unmapped_range(arrays, _n_chunks(policy, n_bytes))
    counters[at.C_RESERVED] -= n_bytes
    counters[at.C_DEVICE_USED] -= n_bytes
    at.drop_segment(arrays, blocks[block, at.B_SEGMENT])
    at.drop_block(arrays, block)
    return n_bytes


@borrowing
def _remappable_bytes(arrays, lane, size):
    """Bytes of unused growths, the largest first, until they hold a size. O(growths · log n)."""
    n_bytes = 0
    block = last_below_size(arrays, lane, size)
    while block != at.NONE and n_bytes < size:
        n_bytes += arrays.blocks[block, at.B_SIZE]
        block = preceding(arrays, lane, at.L_FREE_ROOT, block)
    return n_bytes


@borrowing
def _grow(policy, arrays, base, own, size):
    """A new range that holds a size, of unused memory and of new, cut to the size; −1 if the driver lacks it."""
    counters = arrays.counters
    n_unused = _remappable_bytes(arrays, base + 1, size) if policy.remaps_unused else 0
    n_new = aligned(max(size - n_unused, 0), policy.growth_chunk_bytes)
    if not driver_can_create(arrays, n_new):
        n_new = aligned(max(size - n_unused, 0), policy.page_bytes)
        if not driver_can_create(arrays, n_new):
            return at.NONE
    n_mapped, n_chunks = 0, 0
    while n_mapped < n_unused:
        unused = last_below_size(arrays, base + 1, size)
        n_chunks += _n_chunks(policy, arrays.blocks[unused, at.B_SIZE])
        n_mapped += _unmap(policy, arrays, unused)
    counters[at.C_N_DEVICE_ALLOCS] += _n_chunks(policy, n_new)
    count_mapped_range(arrays, n_chunks + _n_chunks(policy, n_new))
    n_bytes = n_mapped + n_new
    counters[at.C_DEVICE_USED] += n_bytes
    at.grow_counter(counters, at.C_RESERVED, at.C_PEAK_RESERVED, n_bytes)
    block = at.new_segment(arrays, base, next_address(arrays, n_bytes), n_bytes, 0, at.FREE)
    at.log_event(arrays, at.ACTION_SEGMENT_ALLOC, arrays.blocks[block, at.B_ADDRESS], n_bytes, base)
    return _cut(arrays, block, own, size)


@borrowing
def _trim(policy, arrays, lane, keep_bytes):
    """Give unused growths back, the smallest first, until no more than that is held. O(growths · log n)."""
    block = first(arrays, lane, at.L_FREE_ROOT)
    while block != at.NONE and arrays.counters[at.C_RESERVED] > keep_bytes:
        arrays.counters[at.C_N_DEVICE_FREES] += _n_chunks(policy, arrays.blocks[block, at.B_SIZE])
        _unmap(policy, arrays, block)
        block = first(arrays, lane, at.L_FREE_ROOT)


@borrowing
def _share_all(arrays):
    """The device was waited for: every stream may have what any has freed. O(blocks · log n)."""
    for segment in range(arrays.counters[at.C_SEGMENT_TOP]):
        block = arrays.segments[segment, at.S_HEAD] if arrays.segments[segment, at.S_IS_LIVE] == 1 else at.NONE
        while block != at.NONE:
            if arrays.blocks[block, at.B_STATE] == at.FREE and arrays.blocks[block, at.B_LANE] > SHARED + 1:
                detach(arrays, block)
                block = _put(arrays, block, SHARED)
            block = arrays.blocks[block, at.B_NEXT]


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    size = aligned(requested_bytes, policy.alignment_bytes)
    own = 2 * pair
    base = SHARED if _shares(policy) else own
    block = _search(arrays, base, own, size)
    if block == at.NONE:
        block = _grow(policy, arrays, base, own, size)
    if block == at.NONE:
        _release(policy, arrays)
        arrays.counters[at.C_N_RETRIES] += 1
        block = _search(arrays, base, own, size)
        if block == at.NONE:
            block = _grow(policy, arrays, base, own, size)
    if block == at.NONE:
        return out_of_memory(arrays, size, own)
    arrays.counters[at.C_N_ASYNC_ALLOCS] += 1
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _give_back(policy, arrays, block):
    arrays.counters[at.C_N_ASYNC_FREES] += 1
    base = SHARED if _shares(policy) else arrays.blocks[block, at.B_LANE]
    _put(arrays, block, base)
    if policy.release_threshold_bytes >= 0:
        _trim(policy, arrays, base + 1, policy.release_threshold_bytes)


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    _share_all(arrays)
    _trim(policy, arrays, SHARED + 1, 0)


register(AsyncPool, PolicyKernels(_malloc, _give_back, _release))
