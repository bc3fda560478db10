"""Expandable segments: reservations of addresses into which memory is mapped handle by handle."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import (
    driver_has,
    give_to_driver,
    handle_bytes,
    insert_free,
    insert_unmapped,
    is_unsplit,
    merge_neighbours,
    put_after,
    put_before,
    take_from_driver,
)
from memscope._kernels.compiled import borrowing
from memscope._kernels.free_sets import first, following, remove


@borrowing
def reservation_bytes(arrays, lane):
    """Bytes of address space in a new reservation of a lane: whole handles."""
    handle = handle_bytes(arrays, lane)
    return (arrays.config[at.CFG_RESERVATION] + handle - 1) // handle * handle


@borrowing
def add_reservation(arrays, lane, address, n_bytes):
    """Reserve addresses: one unmapped block, in its set."""
    block = at.new_segment(arrays, lane, address, n_bytes, 1, at.UNMAPPED)
    arrays.counters[at.C_N_RESERVATIONS] += 1
    insert_unmapped(arrays, block)
    return block


@borrowing
def _next_reservation(arrays, lane):
    config, counters = arrays.config, arrays.counters
    n_bytes = reservation_bytes(arrays, lane)
    alignment = config[at.CFG_RESERVATION_ALIGNMENT]
    address = (counters[at.C_NEXT_ADDRESS] + alignment - 1) // alignment * alignment
    counters[at.C_NEXT_ADDRESS] = address + n_bytes + config[at.CFG_RESERVATION_GAP]
    return add_reservation(arrays, lane, address, n_bytes)


@borrowing
def _has_address_space(blocks, block, n_bytes):
    total = 0
    while block != at.NONE and (blocks[block, at.B_STATE] == at.FREE or blocks[block, at.B_STATE] == at.UNMAPPED):
        total += blocks[block, at.B_SIZE]
        if total >= n_bytes:
            return True
        block = blocks[block, at.B_NEXT]
    return False


@borrowing
def find_candidate(arrays, lane, rounded_bytes):
    """Where a request could grow: an unmapped range, or the free block before it; −1 for none. O(ranges)."""
    blocks = arrays.blocks
    unmapped = first(arrays, lane, at.L_UNMAPPED_ROOT)
    while unmapped != at.NONE:
        candidate = unmapped
        earlier = blocks[unmapped, at.B_PREV]
        if earlier != at.NONE and blocks[earlier, at.B_STATE] == at.FREE:
            candidate = earlier
        if _has_address_space(blocks, candidate, rounded_bytes):
            return candidate
        unmapped = following(arrays, lane, at.L_UNMAPPED_ROOT, unmapped)
    return at.NONE


@borrowing
def map_block(arrays, block, n_bytes):
    """Map whole handles at the start of an unmapped range; whether the driver had them. O(log n)."""
    blocks = arrays.blocks
    lane = blocks[block, at.B_LANE]
    handle = handle_bytes(arrays, lane)
    mapped = (n_bytes + handle - 1) // handle * handle
    if not driver_has(arrays, mapped):
        return False
    remove(arrays, lane, at.L_UNMAPPED_ROOT, block)
    rest_bytes = blocks[block, at.B_SIZE] - mapped
    address = blocks[block, at.B_ADDRESS]
    if rest_bytes > 0:
        rest = at.new_block(arrays, blocks[block, at.B_SEGMENT], address + mapped, rest_bytes, at.UNMAPPED)
        put_after(arrays, rest, block)
        insert_unmapped(arrays, rest)
    blocks[block, at.B_SIZE] = mapped
    blocks[block, at.B_STATE] = at.FREE
    merge_neighbours(arrays, block)
    insert_free(arrays, block)
    take_from_driver(arrays, mapped)
    arrays.counters[at.C_N_MAP_CALLS] += 1
    arrays.counters[at.C_N_MAPPED_HANDLES] += mapped // handle
    at.log_event(arrays, at.ACTION_SEGMENT_MAP, address, mapped, lane)
    return True


@borrowing
def grow_for(arrays, lane, rounded_bytes):
    """Map until a block of the rounded size is free, and take it out of its set; −1 if the driver has too little."""
    blocks = arrays.blocks
    candidate = find_candidate(arrays, lane, rounded_bytes)
    if candidate == at.NONE:
        candidate = _next_reservation(arrays, lane)
        if blocks[candidate, at.B_SIZE] < rounded_bytes:
            return at.NONE
    if blocks[candidate, at.B_STATE] == at.UNMAPPED and not map_block(
        arrays, candidate, min(blocks[candidate, at.B_SIZE], rounded_bytes)
    ):
        return at.NONE
    while blocks[candidate, at.B_SIZE] < rounded_bytes:
        neighbour = blocks[candidate, at.B_NEXT]
        missing = rounded_bytes - blocks[candidate, at.B_SIZE]
        if not map_block(arrays, neighbour, min(missing, blocks[neighbour, at.B_SIZE])):
            return at.NONE
        candidate = neighbour
    remove(arrays, lane, at.L_FREE_ROOT, candidate)
    return candidate


@borrowing
def unmap_block(arrays, block):
    """Unmap the handles that lie wholly inside a free block; what is left over stays free. O(log n)."""
    blocks, segments = arrays.blocks, arrays.segments
    lane, segment = blocks[block, at.B_LANE], blocks[block, at.B_SEGMENT]
    base, handle = segments[segment, at.S_ADDRESS], handle_bytes(arrays, lane)
    start = blocks[block, at.B_ADDRESS]
    end = start + blocks[block, at.B_SIZE]
    from_address = base + (start - base + handle - 1) // handle * handle
    to_address = base + (end - base) // handle * handle
    if to_address <= from_address:
        return False
    remove(arrays, lane, at.L_FREE_ROOT, block)
    if from_address > start:
        before = at.new_block(arrays, segment, start, from_address - start, at.FREE)
        put_before(arrays, before, block)
        insert_free(arrays, before)
    if end > to_address:
        after = at.new_block(arrays, segment, to_address, end - to_address, at.FREE)
        put_after(arrays, after, block)
        insert_free(arrays, after)
    blocks[block, at.B_ADDRESS] = from_address
    blocks[block, at.B_SIZE] = to_address - from_address
    blocks[block, at.B_STATE] = at.UNMAPPED
    merge_neighbours(arrays, block)
    insert_unmapped(arrays, block)
    give_to_driver(arrays, to_address - from_address)
    arrays.counters[at.C_N_UNMAP_CALLS] += 1
    arrays.counters[at.C_N_UNMAPPED_HANDLES] += (to_address - from_address) // handle
    at.log_event(arrays, at.ACTION_SEGMENT_UNMAP, from_address, to_address - from_address, lane)
    if is_unsplit(blocks, block):
        remove(arrays, lane, at.L_UNMAPPED_ROOT, block)
        at.drop_segment(arrays, segment)
        at.drop_block(arrays, block)
        arrays.counters[at.C_N_RESERVATIONS_DROPPED] += 1
    return True
