"""Following a recording: each event is done as recorded, as long as the allocator would have done the same."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching import find_free_block
from memscope._kernels.caching_blocks import (
    add_segment,
    complete_free,
    hand_out,
    insert_free,
    insert_unmapped,
    is_unsplit,
    lane_of,
    put_after,
    request_free,
)
from memscope._kernels.caching_rules import round_size, segment_size
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first, following, remove

# Why following stopped.
FOLLOWED = 0
NEEDS_ROOM = 1
NEEDS_DECISION = 2
"""The event is one of a kind that is decided outside, or its pool is unknown."""
FITS_ELSEWHERE = 3
"""The recording allocated at another address than the block the allocator takes."""
FITS_NOWHERE = 4
"""The recording allocated from a free block, the allocator finds none."""
FITS_ALREADY = 5
"""The recording asked the driver, the allocator finds a free block."""
SEGMENT_SIZE_DIFFERS = 6
NOT_IN_USE = 7
"""The recording frees what is not allocated, or completes a free that was not requested."""
SIZE_DIFFERS = 8
ACTIVE_BYTES_DIFFER = 9

_ACTION_SNAPSHOT = 8
_ACTION_ANNOTATE = 9


@borrowing
def follow(arrays, action, address, size, pair, row, block_of_row, requests_recorded, position):
    """Do events from a position on, until one differs from what the allocator does, or needs a decision.

    Parameters
    ----------
    action, address, size
        (n,): the events.
    pair
        int64 (n,): the (pool, stream) pair of each event, −1 where it is not known.
    row
        int64 (n,): the allocation that an event makes or frees, −1 for none.
    block_of_row
        int64 (rows,): block that holds each allocation now; changed in place.
    requests_recorded
        Whether there are ``free_requested`` events; where there are none, a completed free is the whole free.

    Returns
    -------
    position, status
        The first event that was not done, and why. Each event costs O(log n) in the free blocks.
    """
    n_events = len(action)
    blocks = arrays.blocks
    while position < n_events:
        what = action[position]
        if what == at.ACTION_ALLOC:
            status = _follow_alloc(
                arrays, address[position], size[position], pair[position], row[position], block_of_row
            )
            step = 1
        elif what == at.ACTION_FREE_REQUESTED:
            block = block_of_row[row[position]] if row[position] >= 0 else at.NONE
            if block == at.NONE or blocks[block, at.B_STATE] != at.ALLOCATED:
                return position, NOT_IN_USE
            if blocks[block, at.B_REQUESTED] != size[position]:
                return position, SIZE_DIFFERS
            later = position + 1
            at_once = later < n_events and action[later] == at.ACTION_FREE_COMPLETED and row[later] == row[position]
            request_free(arrays, block, not at_once)
            status = FOLLOWED
            step = 2 if at_once else 1
        elif what == at.ACTION_FREE_COMPLETED:
            block = block_of_row[row[position]] if row[position] >= 0 else at.NONE
            if block == at.NONE:
                return position, NOT_IN_USE
            if blocks[block, at.B_STATE] == at.PENDING:
                complete_free(arrays, block)
            elif blocks[block, at.B_STATE] == at.ALLOCATED and not requests_recorded:
                request_free(arrays, block, False)
            else:
                return position, NOT_IN_USE
            status = FOLLOWED
            step = 1
        elif what == at.ACTION_SEGMENT_ALLOC and position + 1 < n_events and action[position + 1] == at.ACTION_ALLOC:
            status = _follow_segment(
                arrays, address, size, pair[position + 1], row[position + 1], block_of_row, position
            )
            step = 2
        elif what == _ACTION_SNAPSHOT:
            status = FOLLOWED if size[position] == arrays.counters[at.C_ACTIVE] else ACTIVE_BYTES_DIFFER
            step = 1
        elif what == _ACTION_ANNOTATE:
            status = FOLLOWED
            step = 1
        else:
            return position, NEEDS_DECISION
        if status != FOLLOWED:
            return position, status
        position += step
    return position, FOLLOWED


@borrowing
def count_call(arrays, lane):
    """Count a request for garbage collection's ages: only those of the default pool's large lanes matter."""
    if lane & 1 and arrays.lanes[lane, at.L_POOL] == 0:
        arrays.counters[at.C_GC_CALLS] += 1


@borrowing
def _follow_alloc(arrays, address, size, pair, row, block_of_row):
    if not at.has_room(arrays):
        return NEEDS_ROOM
    if pair == at.NONE:
        return NEEDS_DECISION
    rounded = round_size(size, arrays.config[at.CFG_DIVISIONS :])
    lane = lane_of(pair, rounded)
    block = find_free_block(arrays, lane, rounded)
    if block == at.NONE:
        return FITS_NOWHERE
    if arrays.blocks[block, at.B_ADDRESS] != address:
        return FITS_ELSEWHERE
    count_call(arrays, lane)
    block_of_row[row] = take(arrays, block, size, rounded)
    return FOLLOWED


@borrowing
def _follow_segment(arrays, address, size, pair, row, block_of_row, position):
    if not at.has_room(arrays):
        return NEEDS_ROOM
    if pair == at.NONE or address[position] != address[position + 1] or arrays.config[at.CFG_GC_BYTES] >= 0:
        return NEEDS_DECISION
    requested = size[position + 1]
    rounded = round_size(requested, arrays.config[at.CFG_DIVISIONS :])
    lane = lane_of(pair, rounded)
    if find_free_block(arrays, lane, rounded) != at.NONE:
        return FITS_ALREADY
    if segment_size(rounded, arrays.config[at.CFG_LARGE_SEGMENT]) != size[position]:
        return SEGMENT_SIZE_DIFFERS
    count_call(arrays, lane)
    block = add_segment(arrays, lane, address[position], size[position])
    block_of_row[row] = hand_out(arrays, block, requested, rounded)
    return FOLLOWED


@borrowing
def take(arrays, block, requested_bytes, rounded_bytes):
    """Take a free block out of its set and hand it out."""
    remove(arrays, arrays.blocks[block, at.B_LANE], at.L_FREE_ROOT, block)
    return hand_out(arrays, block, requested_bytes, rounded_bytes)


@borrowing
def add_old_segment(arrays, lane, address, size, is_expandable):
    """A segment that stood before the first event; returns its block, which is in no set and covers all of it."""
    block = at.new_segment(arrays, lane, address, size, is_expandable, at.FREE)
    arrays.segments[arrays.blocks[block, at.B_SEGMENT], at.S_IS_OLD] = 1
    arrays.blocks[block, at.B_IS_OLD] = 1
    return block


@borrowing
def add_old_block(arrays, tail, size, state, requested_bytes):
    """Cut a block off the front of a segment's last one (or take all of it); returns the block and what is left.

    ``state`` is ``FREE``, ``ALLOCATED``, ``PENDING`` or ``UNMAPPED``. The bytes are counted.
    """
    blocks, counters = arrays.blocks, arrays.counters
    rest = at.NONE
    if size < blocks[tail, at.B_SIZE]:
        address = blocks[tail, at.B_ADDRESS]
        rest_bytes = blocks[tail, at.B_SIZE] - size
        rest = at.new_block(arrays, blocks[tail, at.B_SEGMENT], address + size, rest_bytes, at.FREE)
        blocks[rest, at.B_IS_OLD] = 1
        put_after(arrays, rest, tail)
        blocks[tail, at.B_SIZE] = size
    if state == at.UNMAPPED:
        insert_unmapped(arrays, tail)
        return tail, rest
    counters[at.C_DEVICE_USED] += size
    at.grow_counter(counters, at.C_RESERVED, at.C_PEAK_RESERVED, size)
    if state == at.FREE:
        insert_free(arrays, tail)
        return tail, rest
    blocks[tail, at.B_STATE] = at.ALLOCATED
    blocks[tail, at.B_REQUESTED] = requested_bytes
    at.grow_counter(counters, at.C_ALLOCATED, at.C_PEAK_ALLOCATED, size)
    at.grow_counter(counters, at.C_ACTIVE, at.C_PEAK_ACTIVE, size)
    at.grow_counter(counters, at.C_REQUESTED, at.C_PEAK_REQUESTED, requested_bytes)
    if state == at.PENDING:
        request_free(arrays, tail, True)
    return tail, rest


@borrowing
def free_block_at(arrays, address):
    """The free block that begins at an address, −1 for none: O(blocks), for the rare cases."""
    blocks = arrays.blocks
    for block in range(arrays.counters[at.C_BLOCK_TOP]):
        if blocks[block, at.B_ADDRESS] == address and blocks[block, at.B_STATE] == at.FREE:
            return block
    return at.NONE


@borrowing
def free_blocks(arrays, lane, out):
    """Write a lane's free blocks in their order; returns how many. ``out`` must be long enough for all blocks."""
    n = 0
    block = first(arrays, lane, at.L_FREE_ROOT)
    while block != at.NONE:
        out[n] = block
        n += 1
        block = following(arrays, lane, at.L_FREE_ROOT, block)
    return n


@borrowing
def unsplit_blocks(arrays, lane, out):
    """Write the free blocks that are the whole of a ``cudaMalloc`` segment, in their lane's order."""
    n = 0
    block = first(arrays, lane, at.L_FREE_ROOT)
    while block != at.NONE:
        is_ordinary = arrays.segments[arrays.blocks[block, at.B_SEGMENT], at.S_IS_EXPANDABLE] == 0
        if is_ordinary and is_unsplit(arrays.blocks, block):
            out[n] = block
            n += 1
        block = following(arrays, lane, at.L_FREE_ROOT, block)
    return n
