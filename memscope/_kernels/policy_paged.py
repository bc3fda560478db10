"""Fixed physical pages behind contiguous virtual ranges: what paging would make of a program's requests.

A large request gets a virtual range of its own, mapped page by page. When it is freed the range is unmapped, and its
pages join the store of free pages, which serves every later request of any size and stream. Small requests are placed
best-fit in slabs of one page each. Exact is the arithmetic of pages; a model is everything else, since no allocator of
PyTorch works that way.

Free pages have no order, so that the store lies in the arrays as one segment with one free block, at an address of its
own; its lane is the large one of the first pair, which no stream uses. Empty slabs, and freed ranges if ranges are
kept mapped, stay in their streams' lanes until someone is short of pages.
"""

from __future__ import annotations

from typing import NamedTuple

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import insert_free, next_address
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first, first_of_size, last_below_size, remove
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated, out_of_memory
from memscope._kernels.policy_small_blocks import put_back, rounded_up, split_front, take_best_fit
from memscope._kernels.policy_virtual_memory import (
    count_mapped_range,
    count_unmapped_range,
    create_handles,
    driver_can_create,
    release_handles,
)

N_EXTRA_PAIRS = 1
STORE_LANE = 1
STORE_ADDRESS = 1 << 40
"""Far below the addresses that the simulated driver gives out."""


class Paged(NamedTuple):
    """Parameters.

    Attributes
    ----------
    page_bytes
        Size of a physical page; 2 MiB is the least that ``cuMemCreate`` makes.
    large_from_bytes
        Requests of at least that many bytes, or of a page, get a range of their own.
    alignment_bytes
        What small requests are rounded to, as PyTorch does.
    keeps_ranges
        1 to leave freed ranges mapped for requests of as many pages on the same stream, until pages run short.
    """

    page_bytes: int = 2 << 20
    large_from_bytes: int = 2 << 20
    alignment_bytes: int = 512
    keeps_ranges: int = 0


@borrowing
def _stored_bytes(arrays):
    block = first(arrays, STORE_LANE, at.L_FREE_ROOT)
    return 0 if block == at.NONE else arrays.blocks[block, at.B_SIZE]


@borrowing
def _change_store(arrays, n_bytes):
    """Put pages into the store, or take them out. O(1): it is alone in its lane."""
    blocks, segments = arrays.blocks, arrays.segments
    block = first(arrays, STORE_LANE, at.L_FREE_ROOT)
    if n_bytes == 0:
        return
    if block == at.NONE:
        insert_free(arrays, at.new_segment(arrays, STORE_LANE, STORE_ADDRESS, n_bytes, 0, at.FREE))
        return
    remove(arrays, STORE_LANE, at.L_FREE_ROOT, block)
    segment = blocks[block, at.B_SEGMENT]
    blocks[block, at.B_SIZE] += n_bytes
    segments[segment, at.S_SIZE] += n_bytes
    if blocks[block, at.B_SIZE] == 0:
        at.drop_segment(arrays, segment)
        at.drop_block(arrays, block)
    else:
        insert_free(arrays, block)


@borrowing
def _map_range(policy, arrays, lane, n_bytes):
    """A new range over pages of the store; returns its block, which is in no set."""
    _change_store(arrays, -n_bytes)
    count_mapped_range(arrays, n_bytes // policy.page_bytes)
    address = next_address(arrays, n_bytes)
    at.log_event(arrays, at.ACTION_SEGMENT_MAP, address, n_bytes, lane)
    return at.new_segment(arrays, lane, address, n_bytes, 0, at.FREE)


@borrowing
def _unmap_range(policy, arrays, block):
    """Give up the range that a block, in no set, is the whole of; its pages go to the store."""
    blocks = arrays.blocks
    size = blocks[block, at.B_SIZE]
    at.log_event(arrays, at.ACTION_SEGMENT_UNMAP, blocks[block, at.B_ADDRESS], size, blocks[block, at.B_LANE])
    count_unmapped_range(arrays, size // policy.page_bytes)
    at.drop_segment(arrays, blocks[block, at.B_SEGMENT])
    at.drop_block(arrays, block)
    _change_store(arrays, size)


@borrowing
def _unused_range(policy, arrays, lane, missing_bytes):
    """A mapped range that nobody uses: the best fit, or else the largest; −1 for none. O(log n)."""
    if lane & 1 == 0:
        return first_of_size(arrays, lane, policy.page_bytes)
    block = first_of_size(arrays, lane, missing_bytes)
    return last_below_size(arrays, lane, missing_bytes) if block == at.NONE else block


@borrowing
def _gather(policy, arrays, n_bytes):
    """Have that much in the store: from unused ranges, then from the driver; False if that is not enough.

    Every range is unmapped once at most, so that it costs O(log n) amortised, and one step for each stream.
    """
    stored = _stored_bytes(arrays)
    for lane in range(2 * N_EXTRA_PAIRS, len(arrays.lanes)):
        while stored < n_bytes:
            block = _unused_range(policy, arrays, lane, n_bytes - stored)
            if block == at.NONE:
                break
            stored += arrays.blocks[block, at.B_SIZE]
            remove(arrays, lane, at.L_FREE_ROOT, block)
            _unmap_range(policy, arrays, block)
    missing = n_bytes - stored
    if missing <= 0:
        return True
    if not driver_can_create(arrays, missing):
        return False
    create_handles(arrays, missing, policy.page_bytes)
    _change_store(arrays, missing)
    return True


@borrowing
def _serve_large(policy, arrays, lane, size):
    if policy.keeps_ranges:
        block = first_of_size(arrays, lane, size)
        if block != at.NONE and arrays.blocks[block, at.B_SIZE] == size:
            remove(arrays, lane, at.L_FREE_ROOT, block)
            return block
    return _map_range(policy, arrays, lane, size) if _gather(policy, arrays, size) else at.NONE


@borrowing
def _serve_small(policy, arrays, lane, size):
    block = take_best_fit(arrays, lane, size)
    if block == at.NONE:
        if not _gather(policy, arrays, policy.page_bytes):
            return at.NONE
        block = _map_range(policy, arrays, lane, policy.page_bytes)
    return split_front(arrays, block, size)


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    if not at.has_room(arrays):
        return at.STATUS_GROW
    is_large = requested_bytes >= min(policy.large_from_bytes, policy.page_bytes)
    size = rounded_up(requested_bytes, policy.page_bytes if is_large else policy.alignment_bytes)
    lane = 2 * pair + (1 if is_large else 0)
    for _ in range(2):
        block = _serve_large(policy, arrays, lane, size) if is_large else _serve_small(policy, arrays, lane, size)
        if block != at.NONE:
            count_allocated(arrays, block, requested_bytes)
            return block
        if arrays.counters[at.C_PENDING_HEAD] == at.NONE:
            break
        # Every free page was used already: only memory that waits for other streams can still help.
        complete_all_frees(policy, arrays)
        arrays.counters[at.C_N_RETRIES] += 1
    return out_of_memory(arrays, size, lane)


@borrowing
def _give_back(policy, arrays, block):
    if arrays.blocks[block, at.B_LANE] & 1 == 0:
        put_back(arrays, block)
    elif policy.keeps_ranges:
        insert_free(arrays, block)
    else:
        _unmap_range(policy, arrays, block)


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    for lane in range(2 * N_EXTRA_PAIRS, len(arrays.lanes)):
        while True:
            block = _unused_range(policy, arrays, lane, policy.page_bytes)
            if block == at.NONE:
                break
            remove(arrays, lane, at.L_FREE_ROOT, block)
            _unmap_range(policy, arrays, block)
    stored = _stored_bytes(arrays)
    _change_store(arrays, -stored)
    release_handles(arrays, stored, policy.page_bytes)


register(Paged, PolicyKernels(_malloc, _give_back, _release))
