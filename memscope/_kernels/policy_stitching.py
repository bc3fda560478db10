"""Free blocks stitched together by remapping: a model after GMLake.

Physical memory comes in chunks. A primitive block is a contiguous virtual range over chunks of its own; a stitched
range is one more mapping of the chunks of several primitive blocks, kept when its allocation is freed. A large request
is served, in this order, by

1. a free primitive block, or an idle stitched range over free blocks, of exactly its size;
2. the smallest larger primitive block, split;
3. the largest free primitive blocks together, the last one the best fit for what is missing and split if it is larger;
4. what free blocks there are, and a new primitive block for the rest.

Small requests go to segments of one chunk from ``cudaMalloc``, placed best-fit. Free memory serves its own stream only.
The states are the paper's; order and ties inside them, small requests and the eviction by count are this model's.

Source: GMLake, arXiv 2401.08156, sections on the virtual memory pool and the best-fit algorithm.

In the arrays each primitive block is a segment of its own. Its address names physical memory: a split leaves the parts
where their chunks were, although their virtual ranges are new. An allocation over several blocks has the address of its
stitched range, which no segment has: its bytes are those blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels import stitched_ranges as sr
from memscope._kernels.caching_blocks import add_segment, driver_has, insert_free, next_address, release_segment
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first, first_of_size, last_below_size, remove
from memscope._kernels.policies import PolicyKernels, register
from memscope._kernels.policy_blocks import complete_all_frees, count_allocated_parts, out_of_memory
from memscope._kernels.policy_small_blocks import put_back, rounded_up, split_front, take_best_fit
from memscope._kernels.policy_virtual_memory import (
    count_mapped_range,
    count_unmapped_range,
    create_handles,
    driver_can_create,
    release_handles,
)


class Stitching(NamedTuple):
    """Parameters, and the stitched ranges.

    Attributes
    ----------
    chunk_bytes
        Size of a physical chunk; smaller requests are small ones.
    fragment_limit_bytes
        Only free blocks of at least that size are stitched; a chunk means all. Blocks are never merged: with a higher
        limit, what splits leave below it serves only requests that fit into it, which can waste much.
    n_idle_most
        Idle stitched ranges kept; beyond them the one used longest ago is unmapped.
    alignment_bytes
        What small requests are rounded to, as PyTorch does.
    table
        Rows of the stitched ranges.
    """

    chunk_bytes: int
    fragment_limit_bytes: int
    n_idle_most: int
    alignment_bytes: int
    table: sr.StitchedRanges


def new_table(n_rows: int = 1024) -> sr.StitchedRanges:
    """Rows for stitched ranges, none in use."""
    counts = np.zeros(sr.N_COUNTS, np.int64)
    for empty in (sr.RANGE_SLOT, sr.LINK_SLOT, sr.OLDEST, sr.NEWEST):
        counts[empty] = at.NONE
    counts[sr.FIRST_BUCKET :] = at.NONE
    return sr.StitchedRanges(np.full((n_rows, sr.N_COLUMNS), at.NONE, np.int64), counts)


@borrowing
def _next_part(policy, arrays, block):
    if arrays.blocks[block, at.B_LANE] & 1 == 0:
        return at.NONE
    return policy.table.rows[block, sr.O_NEXT_PART]


@borrowing
def _address_of(policy, arrays, block):
    if arrays.blocks[block, at.B_LANE] & 1 == 0:
        return arrays.blocks[block, at.B_ADDRESS]
    row = policy.table.rows[block, sr.O_RANGE]
    return arrays.blocks[block, at.B_ADDRESS] if row == at.NONE else policy.table.rows[row, sr.R_ADDRESS]


@borrowing
def _new_primitive(policy, arrays, lane, n_bytes):
    n_chunks = n_bytes // policy.chunk_bytes
    create_handles(arrays, n_bytes, policy.chunk_bytes)
    count_mapped_range(arrays, n_chunks)
    address = next_address(arrays, n_bytes)
    at.log_event(arrays, at.ACTION_SEGMENT_ALLOC, address, n_bytes, lane)
    return at.new_segment(arrays, lane, address, n_bytes, 0, at.FREE)


@borrowing
def _drop_primitive(policy, arrays, block):
    """Unmap a free block that no stitched range runs over, and give its chunks to the driver. O(log n)."""
    blocks = arrays.blocks
    lane, size = blocks[block, at.B_LANE], blocks[block, at.B_SIZE]
    remove(arrays, lane, at.L_FREE_ROOT, block)
    at.log_event(arrays, at.ACTION_SEGMENT_FREE, blocks[block, at.B_ADDRESS], size, lane)
    count_unmapped_range(arrays, size // policy.chunk_bytes)
    release_handles(arrays, size, policy.chunk_bytes)
    at.drop_segment(arrays, blocks[block, at.B_SEGMENT])
    at.drop_block(arrays, block)


@borrowing
def _evict(policy, arrays, row):
    """Unmap an idle stitched range."""
    table = policy.table
    sr.take_idle(table, row)
    count_unmapped_range(arrays, table.rows[row, sr.R_SIZE] // policy.chunk_bytes)
    sr.drop_range(table, row)
    table.counts[sr.N_EVICTIONS] += 1


@borrowing
def _keep_idle(policy, arrays, row):
    """Keep a stitched range for later, and evict the one used longest ago if there are too many."""
    counts = policy.table.counts
    sr.keep_idle(policy.table, row)
    while counts[sr.N_IDLE] > policy.n_idle_most:
        _evict(policy, arrays, counts[sr.OLDEST])


@borrowing
def _split(policy, arrays, block, n_bytes):
    """The front of a larger block, which is in no set; the rest becomes free. O(ranges over the block + log n).

    Both parts get ranges of their own. The range of the whole is still mapped, and is kept as a stitched one.
    """
    table, blocks = policy.table, arrays.blocks
    lane, whole_bytes = blocks[block, at.B_LANE], blocks[block, at.B_SIZE]
    address = blocks[block, at.B_ADDRESS]
    front = at.new_segment(arrays, lane, address, n_bytes, 0, at.FREE)
    rest_segment = blocks[block, at.B_SEGMENT]
    blocks[block, at.B_ADDRESS] += n_bytes
    blocks[block, at.B_SIZE] -= n_bytes
    arrays.segments[rest_segment, at.S_ADDRESS] += n_bytes
    arrays.segments[rest_segment, at.S_SIZE] -= n_bytes
    insert_free(arrays, block)
    count_mapped_range(arrays, n_bytes // policy.chunk_bytes)
    count_mapped_range(arrays, (whole_bytes - n_bytes) // policy.chunk_bytes)
    sr.put_front_part(table, block, front)
    row = sr.new_range(table, lane, address, whole_bytes)
    sr.append_block(table, row, front)
    sr.append_block(table, row, block)
    _keep_idle(policy, arrays, row)
    table.counts[sr.N_SPLITS] += 1
    return front


@borrowing
def _reuse(policy, arrays, row):
    """Let an idle stitched range over free blocks serve an allocation; returns its first block. O(blocks · log n)."""
    table, rows = policy.table, policy.table.rows
    sr.take_idle(table, row)
    link = rows[row, sr.R_FIRST]
    head = rows[link, sr.K_BLOCK]
    while link != at.NONE:
        block, link = rows[link, sr.K_BLOCK], rows[link, sr.K_NEXT]
        remove(arrays, arrays.blocks[block, at.B_LANE], at.L_FREE_ROOT, block)
        rows[block, sr.O_NEXT_PART] = at.NONE if link == at.NONE else rows[link, sr.K_BLOCK]
    rows[head, sr.O_RANGE] = row
    table.counts[sr.N_REUSES] += 1
    return head


@borrowing
def _stitch(policy, arrays, head, n_bytes):
    """Map the chunks of an allocation's blocks behind one more range."""
    table, rows = policy.table, policy.table.rows
    row = sr.new_range(table, arrays.blocks[head, at.B_LANE], next_address(arrays, n_bytes), n_bytes)
    block = head
    while block != at.NONE:
        sr.append_block(table, row, block)
        block = rows[block, sr.O_NEXT_PART]
    rows[head, sr.O_RANGE] = row
    count_mapped_range(arrays, n_bytes // policy.chunk_bytes)
    table.counts[sr.N_STITCHES] += 1


@borrowing
def _best_part(policy, arrays, lane, missing_bytes):
    """The best fit for what is missing, else the largest free block, of those large enough to be stitched."""
    block = first_of_size(arrays, lane, max(missing_bytes, policy.fragment_limit_bytes))
    if block == at.NONE:
        block = last_below_size(arrays, lane, missing_bytes)
        if block != at.NONE and arrays.blocks[block, at.B_SIZE] < policy.fragment_limit_bytes:
            block = at.NONE
    return block


@borrowing
def _combine(policy, arrays, lane, n_bytes):
    """Free blocks together, and a new one for what they lack; −1 if the driver has not enough. O(blocks · log n)."""
    blocks, rows = arrays.blocks, policy.table.rows
    head, last, missing = at.NONE, at.NONE, n_bytes
    while missing > 0:
        part = _best_part(policy, arrays, lane, missing)
        if part != at.NONE:
            remove(arrays, lane, at.L_FREE_ROOT, part)
            if blocks[part, at.B_SIZE] > missing:
                part = _split(policy, arrays, part, missing)
        elif driver_can_create(arrays, missing):
            part = _new_primitive(policy, arrays, lane, missing)
        else:
            _give_parts_back(policy, arrays, head)
            return at.NONE
        if head == at.NONE:
            head = part
        else:
            rows[last, sr.O_NEXT_PART] = part
        last = part
        missing -= blocks[part, at.B_SIZE]
    if head != last:
        _stitch(policy, arrays, head, n_bytes)
    return head


@borrowing
def _give_parts_back(policy, arrays, head):
    rows = policy.table.rows
    block = head
    while block != at.NONE:
        following = rows[block, sr.O_NEXT_PART]
        rows[block, sr.O_NEXT_PART] = at.NONE
        insert_free(arrays, block)
        block = following


@borrowing
def _serve_large(policy, arrays, lane, n_bytes):
    blocks = arrays.blocks
    block = first_of_size(arrays, lane, n_bytes)
    if block == at.NONE or blocks[block, at.B_SIZE] != n_bytes:
        row = sr.find_idle(policy.table, blocks, lane, n_bytes)
        if row != at.NONE:
            return _reuse(policy, arrays, row)
        if block == at.NONE:
            return _combine(policy, arrays, lane, n_bytes)
    remove(arrays, lane, at.L_FREE_ROOT, block)
    return block if blocks[block, at.B_SIZE] == n_bytes else _split(policy, arrays, block, n_bytes)


@borrowing
def _serve_small(policy, arrays, lane, n_bytes):
    block = take_best_fit(arrays, lane, n_bytes)
    if block == at.NONE:
        if not driver_has(arrays, policy.chunk_bytes):
            return at.NONE
        policy.table.counts[sr.N_SMALL_ALLOCS] += 1
        block = add_segment(arrays, lane, next_address(arrays, policy.chunk_bytes), policy.chunk_bytes)
    return split_front(arrays, block, n_bytes)


@borrowing
def _has_room(policy, arrays):
    """Whether rows suffice for one split (a link for each range) and one stitch (a link for each block)."""
    n_more_links = policy.table.counts[sr.N_RANGES] + arrays.counters[at.C_N_BLOCKS] + 8
    return sr.has_room(policy.table, n_more_links, len(arrays.blocks))


@borrowing
def _malloc(policy, arrays, pair, requested_bytes):
    is_large = requested_bytes >= policy.chunk_bytes
    # Small requests need no rows of the table, and reach for none: its arrays are costly to hand over.
    if not at.has_room(arrays) or (is_large and not _has_room(policy, arrays)):
        return at.STATUS_GROW
    n_bytes = rounded_up(requested_bytes, policy.chunk_bytes if is_large else policy.alignment_bytes)
    lane = 2 * pair + (1 if is_large else 0)
    for n_retries in range(2):
        block = _serve_large(policy, arrays, lane, n_bytes) if is_large else _serve_small(policy, arrays, lane, n_bytes)
        if block != at.NONE:
            count_allocated_parts(policy, arrays, block, requested_bytes)
            return block
        if n_retries == 0:
            _release(policy, arrays)
            arrays.counters[at.C_N_RETRIES] += 1
    return out_of_memory(arrays, n_bytes, lane)


@borrowing
def _give_back(policy, arrays, block):
    if arrays.blocks[block, at.B_LANE] & 1 == 0:
        put_back(arrays, block)
        return
    rows = policy.table.rows
    row = rows[block, sr.O_RANGE]
    rows[block, sr.O_RANGE] = at.NONE
    _give_parts_back(policy, arrays, block)
    if row != at.NONE:
        _keep_idle(policy, arrays, row)


@borrowing
def _release(policy, arrays):
    complete_all_frees(policy, arrays)
    counts = policy.table.counts
    while counts[sr.N_IDLE] > 0:
        _evict(policy, arrays, counts[sr.OLDEST])
    for lane in range(len(arrays.lanes)):
        if lane & 1:
            block = first(arrays, lane, at.L_FREE_ROOT)
            while block != at.NONE:
                _drop_primitive(policy, arrays, block)
                block = first(arrays, lane, at.L_FREE_ROOT)
        else:
            block = first_of_size(arrays, lane, policy.chunk_bytes)
            while block != at.NONE:
                release_segment(arrays, block)
                counts[sr.N_SMALL_FREES] += 1
                block = first_of_size(arrays, lane, policy.chunk_bytes)


register(Stitching, PolicyKernels(_malloc, _give_back, _release, _next_part, _address_of))
