"""What every modelled allocator does to a block, whatever its policy: hand it out, take it back, wait for streams."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import append_pending, remove_pending
from memscope._kernels.compiled import borrowing
from memscope._kernels.policies import address_of, give_back, next_part


@borrowing
def count_allocated(arrays, block, requested_bytes):
    """Mark a block as given to the program, whole, and count it."""
    blocks, counters = arrays.blocks, arrays.counters
    blocks[block, at.B_STATE] = at.ALLOCATED
    blocks[block, at.B_REQUESTED] = requested_bytes
    n_bytes = blocks[block, at.B_SIZE]
    at.grow_counter(counters, at.C_ALLOCATED, at.C_PEAK_ALLOCATED, n_bytes)
    at.grow_counter(counters, at.C_ACTIVE, at.C_PEAK_ACTIVE, n_bytes)
    at.grow_counter(counters, at.C_REQUESTED, at.C_PEAK_REQUESTED, requested_bytes)
    at.log_event(arrays, at.ACTION_ALLOC, blocks[block, at.B_ADDRESS], requested_bytes, blocks[block, at.B_LANE])


@borrowing
def count_allocated_parts(policy, arrays, block, requested_bytes):
    """As :func:`count_allocated` for an allocation of several blocks: all but the last are filled to the end."""
    blocks, counters = arrays.blocks, arrays.counters
    n_bytes, n_left, part = 0, requested_bytes, block
    while part != at.NONE:
        blocks[part, at.B_STATE] = at.ALLOCATED
        blocks[part, at.B_REQUESTED] = min(n_left, blocks[part, at.B_SIZE])
        n_left -= blocks[part, at.B_REQUESTED]
        n_bytes += blocks[part, at.B_SIZE]
        part = next_part(policy, arrays, part)
    at.grow_counter(counters, at.C_ALLOCATED, at.C_PEAK_ALLOCATED, n_bytes)
    at.grow_counter(counters, at.C_ACTIVE, at.C_PEAK_ACTIVE, n_bytes)
    at.grow_counter(counters, at.C_REQUESTED, at.C_PEAK_REQUESTED, requested_bytes)
    address = address_of(policy, arrays, block)
    at.log_event(arrays, at.ACTION_ALLOC, address, requested_bytes, blocks[block, at.B_LANE])


@borrowing
def request_free(policy, arrays, block, waits):
    """Take an allocation back from its user; all its blocks stay pending if it waits for other streams."""
    blocks, counters = arrays.blocks, arrays.counters
    requested, part = 0, block
    while part != at.NONE:
        requested += blocks[part, at.B_REQUESTED]
        counters[at.C_ALLOCATED] -= blocks[part, at.B_SIZE]
        blocks[part, at.B_STATE] = at.PENDING
        if waits:
            append_pending(arrays, part)
        part = next_part(policy, arrays, part)
    address = address_of(policy, arrays, block)
    at.log_event(arrays, at.ACTION_FREE_REQUESTED, address, requested, blocks[block, at.B_LANE])
    if not waits:
        _return_block(policy, arrays, block)


@borrowing
def complete_free(policy, arrays, block):
    """Return a pending allocation: the streams it waited for are done."""
    part = block
    while part != at.NONE:
        remove_pending(arrays, part)
        part = next_part(policy, arrays, part)
    _return_block(policy, arrays, block)


@borrowing
def _return_block(policy, arrays, block):
    blocks, counters = arrays.blocks, arrays.counters
    requested, part = 0, block
    while part != at.NONE:
        requested += blocks[part, at.B_REQUESTED]
        counters[at.C_ACTIVE] -= blocks[part, at.B_SIZE]
        blocks[part, at.B_STATE] = at.FREE
        part = next_part(policy, arrays, part)
    counters[at.C_REQUESTED] -= requested
    address = address_of(policy, arrays, block)
    at.log_event(arrays, at.ACTION_FREE_COMPLETED, address, requested, blocks[block, at.B_LANE])
    give_back(policy, arrays, block)


@borrowing
def complete_all_frees(policy, arrays):
    """Wait for every stream: all pending blocks return, oldest first."""
    arrays.counters[at.C_N_SYNCS] += 1
    while arrays.counters[at.C_PENDING_HEAD] != at.NONE:
        complete_free(policy, arrays, arrays.counters[at.C_PENDING_HEAD])


@borrowing
def out_of_memory(arrays, rounded_bytes, lane):
    """Count and log a request that cannot be served."""
    arrays.counters[at.C_N_OOMS] += 1
    at.log_event(arrays, at.ACTION_OOM, at.NONE, rounded_bytes, lane)
    return at.STATUS_OOM
