"""No caching at all: every request is a ``cudaMalloc``, every free a ``cudaFree``.

Exact is the number of calls. A model is what the driver makes of a size: requests of half a page or more get whole
pages of their own, smaller ones share pages, first-fit by size among their free ranges, rounded to the alignment that
``cudaMalloc`` promises (CUDA programming guide: at least 256 bytes).
"""

from __future__ import annotations

from typing import NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import (
    add_segment,
    driver_has,
    insert_free,
    is_unsplit,
    merge_neighbours,
    next_address,
    put_before,
    release_segment,
)
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first_of_size, remove
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory


class CudaMalloc(NamedTuple):
    """Parameters: what sizes are rounded to, and the driver's page."""

    alignment_bytes: int = 256
    page_bytes: int = 2 << 20


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    size = (requested_bytes + policy.alignment_bytes - 1) // policy.alignment_bytes * policy.alignment_bytes
    is_large = 2 * size >= policy.page_bytes
    if is_large:
        size = (size + policy.page_bytes - 1) // policy.page_bytes * policy.page_bytes
    lane = 1 if is_large else 0
    block = at.NONE if is_large else first_of_size(arrays, lane, size)
    if block != at.NONE:
        remove(arrays, lane, at.L_FREE_ROOT, block)
        arrays.counters[at.C_N_DEVICE_ALLOCS] += 1
    else:
        n_bytes = size if is_large else policy.page_bytes
        if not driver_has(arrays, n_bytes) and arrays.counters[at.C_PENDING_HEAD] != at.NONE:
            # ``cudaFree`` waits for the device, so that nothing would still be pending.
            complete_all_frees(policy, arrays)
            arrays.counters[at.C_N_RETRIES] += 1
        if not driver_has(arrays, n_bytes):
            return out_of_memory(arrays, size, lane)
        block = add_segment(arrays, lane, next_address(arrays, n_bytes), n_bytes)
    rest = arrays.blocks[block, at.B_SIZE] - size
    if rest > 0:
        address = arrays.blocks[block, at.B_ADDRESS]
        given = at.new_block(arrays, arrays.blocks[block, at.B_SEGMENT], address, size, at.ALLOCATED)
        put_before(arrays, given, block)
        arrays.blocks[block, at.B_ADDRESS] = address + size
        arrays.blocks[block, at.B_SIZE] = rest
        insert_free(arrays, block)
        block = given
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _give_back(policy, arrays, block):
    merge_neighbours(arrays, block)
    insert_free(arrays, block)
    if is_unsplit(arrays.blocks, block):
        release_segment(arrays, block)
    else:
        arrays.counters[at.C_N_DEVICE_FREES] += 1


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)


register(CudaMalloc, PolicyKernels(_malloc, _give_back, _release))
