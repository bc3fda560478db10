"""Best fit with coalescing, as TensorFlow's and XLA's ``BFCAllocator`` does it where it may grow.

Source: ``xla/tsl/framework/bfc_allocator.cc`` (read at 00df9ee). After that file are the rounding, the choice of a
block (its bins of powers of two are searched upwards, each by size and address: a best fit over all), the rule that
splits it, the growth of regions with its back-off, and the collection of unused regions before it gives up. A model
is that all streams share one allocator without waiting for each other (TensorFlow computes on one stream), that the
device's memory is the limit, and what an emptied cache does, which it does not know.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import add_segment, driver_has, insert_free, merge_neighbours, next_address
from memscope._kernels.compiled import borrowing
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory
from memscope._kernels.policy_carving import (
    aligned,
    release_unused_segments,
    take_best_fit,
    take_front,
    unused_segment_bytes,
)

LANE = 0
MAX_REGION_BYTES = 1 << 50
"""Where regions stop to double, far beyond any device: unused regions may be collected again and again."""


class Bfc(NamedTuple):
    """Parameters, and the size of the next region: int64 (1,)."""

    alignment_bytes: int
    first_region_bytes: int
    max_internal_fragmentation_bytes: int
    collects_regions: int
    next_region_bytes: Any


@borrowing
def _extend(policy, arrays, size):
    """A new region of at least that size, in no set; −1 if the driver has none. O(log of the sizes)."""
    wanted = policy.next_region_bytes[0]
    n_free = -1
    if arrays.config[at.CFG_CAPACITY] >= 0:
        n_free = (arrays.config[at.CFG_CAPACITY] - arrays.counters[at.C_DEVICE_USED]) // policy.alignment_bytes
        n_free *= policy.alignment_bytes
        if size > n_free:
            return at.NONE
    is_raised = size > wanted
    while size > wanted:
        wanted *= 2
    policy.next_region_bytes[0] = wanted
    n_bytes = min(wanted, n_free) if n_free >= 0 else wanted
    while not driver_has(arrays, n_bytes):
        n_bytes = min(aligned(n_bytes * 9 // 10, policy.alignment_bytes), n_bytes - policy.alignment_bytes)
        if n_bytes < size:
            return at.NONE
    if not is_raised and wanted < MAX_REGION_BYTES:
        policy.next_region_bytes[0] = 2 * wanted
    return add_segment(arrays, LANE, next_address(arrays, n_bytes), n_bytes)


@borrowing
def _collect(policy, arrays, size):
    """Give unused regions back if the request then fits, and take a region for it."""
    n_unused = unused_segment_bytes(arrays) if policy.collects_regions else 0
    n_free = arrays.config[at.CFG_CAPACITY] - arrays.counters[at.C_DEVICE_USED]
    if n_unused == 0 or size > n_unused + n_free:
        return at.NONE
    release_unused_segments(arrays)
    return _extend(policy, arrays, size)


@borrowing
def _retry(policy, arrays, size):
    complete_all_frees(policy, arrays)
    arrays.counters[at.C_N_RETRIES] += 1
    block = take_best_fit(arrays, LANE, size)
    return block if block != at.NONE else _collect(policy, arrays, size)


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    size = aligned(requested_bytes, policy.alignment_bytes)
    block = take_best_fit(arrays, LANE, size)
    if block == at.NONE:
        block = _extend(policy, arrays, size)
    if block == at.NONE:
        block = _retry(policy, arrays, size)
    if block == at.NONE:
        return out_of_memory(arrays, size, LANE)
    block_bytes = arrays.blocks[block, at.B_SIZE]
    if block_bytes >= 2 * size or block_bytes - size >= policy.max_internal_fragmentation_bytes:
        block = take_front(arrays, block, size)
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _give_back(policy, arrays, block):
    merge_neighbours(arrays, block)
    insert_free(arrays, block)


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    release_unused_segments(arrays)
    n_bytes = policy.first_region_bytes
    while n_bytes <= arrays.counters[at.C_RESERVED]:
        n_bytes *= 2
    policy.next_region_bytes[0] = min(n_bytes, policy.next_region_bytes[0])


register(Bfc, PolicyKernels(_malloc, _give_back, _release))
