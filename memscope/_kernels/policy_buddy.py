"""Binary buddies: every block is a power of two, and joins again only with the block it was halved from.

Source: Knuth, The Art of Computer Programming, volume 1, section 2.5 (the buddy system). A model are the smallest
block, the size that is asked of the driver at once, and that the smallest block that fits, at the lowest address, is
halved.
"""

from __future__ import annotations

from typing import NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import add_segment, driver_has, insert_free, next_address
from memscope._kernels.compiled import borrowing
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory
from memscope._kernels.policy_carving import absorb_next, detach, release_unused_segments, take_best_fit, take_front

LANE = 0


class Buddy(NamedTuple):
    """Parameters: both are powers of two."""

    min_block_bytes: int
    chunk_bytes: int


@borrowing
def _extend(policy, arrays, size):
    """A new top-level block, in no set; half of it while the driver lacks it; −1 if it lacks the size itself."""
    n_bytes = max(size, policy.chunk_bytes)
    while not driver_has(arrays, n_bytes):
        n_bytes //= 2
        if n_bytes < size:
            return at.NONE
    return add_segment(arrays, LANE, next_address(arrays, n_bytes), n_bytes)


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    size = policy.min_block_bytes
    while size < requested_bytes:
        size *= 2
    block = take_best_fit(arrays, LANE, size)
    if block == at.NONE:
        block = _extend(policy, arrays, size)
    if block == at.NONE:
        _release(policy, arrays)
        arrays.counters[at.C_N_RETRIES] += 1
        block = take_best_fit(arrays, LANE, size)
        if block == at.NONE:
            block = _extend(policy, arrays, size)
    if block == at.NONE:
        return out_of_memory(arrays, size, LANE)
    half = arrays.blocks[block, at.B_SIZE] // 2
    while half >= size:
        block = take_front(arrays, block, half)
        half //= 2
    count_allocated(arrays, block, requested_bytes)
    return block


@borrowing
def _buddy(arrays, block, offset):
    """Where a block's other half begins at the row: the neighbour, −1 if it is not free, or halved itself."""
    blocks = arrays.blocks
    size = blocks[block, at.B_SIZE]
    buddy = blocks[block, at.B_NEXT] if offset & size == 0 else blocks[block, at.B_PREV]
    if buddy == at.NONE or blocks[buddy, at.B_STATE] != at.FREE or blocks[buddy, at.B_SIZE] != size:
        return at.NONE
    return buddy


@borrowing
def _give_back(policy, arrays, block):
    blocks = arrays.blocks
    start = arrays.segments[blocks[block, at.B_SEGMENT], at.S_ADDRESS]
    buddy = _buddy(arrays, block, blocks[block, at.B_ADDRESS] - start)
    while buddy != at.NONE:
        detach(arrays, buddy)
        if blocks[buddy, at.B_NEXT] == block:
            block = buddy
        absorb_next(arrays, block)
        buddy = _buddy(arrays, block, blocks[block, at.B_ADDRESS] - start)
    insert_free(arrays, block)


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    release_unused_segments(arrays)


register(Buddy, PolicyKernels(_malloc, _give_back, _release))
