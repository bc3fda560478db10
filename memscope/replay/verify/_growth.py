"""Ends that a recording does not name, told by its decisions: of address reservations that grow, and of old blocks."""

from __future__ import annotations

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import handle_bytes, is_expandable_block
from memscope._kernels.caching_expandable import add_reservation, find_candidate, map_block
from memscope._kernels.caching_expandable import reservation_bytes as new_reservation_bytes
from memscope._kernels.caching_rules import MIN_BLOCK_BYTES, SMALL_BYTES, round_size
from memscope._kernels.free_sets import insert, remove
from memscope.replay.recording import next_request
from memscope.replay.verify._state import PinnedState, Request
from memscope.replay.verify.divergence import DivergedError
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array
from memscope.units import format_count

EXTENTS = "ends of address reservations (the device's size is not recorded)"
SLACK = "ends of blocks that predate the recording (what was too little to split off is not recorded)"


def request_of_maps(state: PinnedState) -> Request:
    """The request for which the next event maps memory.

    Raises
    ------
    DivergedError
        If there is none.
    """
    request = next_request(state.recording, state.position)
    if request == NONE_ID:
        raise DivergedError(state.position, "a request after it", "memory was mapped for no request")
    return state.request_at(request)


def follow_maps(state: PinnedState, request: Request) -> None:
    """Do the maps of one attempt to grow, and the allocation that follows if it was enough.

    Raises
    ------
    DivergedError
        If the rules map something else.
    """
    recording = state.recording
    candidate = _candidate(state, request)
    blocks = state.arrays.blocks
    is_mapped = blocks[candidate, at.B_STATE] == at.FREE
    while not is_mapped or blocks[candidate, at.B_SIZE] < request.rounded_bytes:
        if state.action_at(state.position) != Action.SEGMENT_MAP:
            return  # The driver had no more: a reclaim or an oom follows.
        target, n_bytes = _next_map(blocks, candidate, request.rounded_bytes)
        _check_map(state, target, n_bytes, request.lane)
        map_block(state.arrays, target, n_bytes)
        candidate, is_mapped = target, True
        state.position += 1
    is_used = recording.address[request.position] == blocks[candidate, at.B_ADDRESS]
    if state.position != request.position or not is_used:
        raise DivergedError(state.position, state.describe_block(candidate), "what was mapped is used in another way")
    state.serve(request, candidate)


def growth_without_map(state: PinnedState, request: Request) -> int:
    """The free block that a request that found none grows into without a map, −1 if it is not the recorded one.

    With a split limit a block can be too large for the request. The request then grows an expandable segment, and the
    free block before the unmapped range, which may be that same block, already has the bytes.
    """
    arrays = state.arrays
    if not state.config.is_expandable:
        return NONE_ID
    address = int(state.recording.address[request.position])
    candidate = int(find_candidate(arrays, request.lane, request.rounded_bytes))
    while candidate != at.NONE:
        held, size, start = arrays.blocks[candidate, [at.B_STATE, at.B_SIZE, at.B_ADDRESS]].tolist()
        if held == at.FREE and size >= request.rounded_bytes and start == address:
            return candidate
        if not _cut_reservation(state, candidate, request.rounded_bytes):
            break
        candidate = int(find_candidate(arrays, request.lane, request.rounded_bytes))
    return NONE_ID


def note_failed_growth(state: PinnedState, request: Request) -> None:
    """A request that fits into no reservation made a new one before the driver refused it; nothing records that."""
    if state.config.is_expandable and find_candidate(state.arrays, request.lane, request.rounded_bytes) == at.NONE:
        state.lanes_with_spare.add(request.lane)


def cut_for_choice(state: PinnedState, chosen: int, recorded: int) -> bool:
    """The recording took a block that could grow, the rules a larger one that cannot grow as far: whether cuts agree.

    A request takes the block that can grow least, so the addresses after the recorded one must end earlier.
    """
    blocks = state.arrays.blocks
    tail = int(blocks[recorded, at.B_NEXT])
    if state.recording.total_bytes is not None or tail == at.NONE or blocks[tail, at.B_STATE] != at.UNMAPPED:
        return False
    if blocks[tail, at.B_NEXT] != at.NONE:
        return False
    room = state.growth_room_bytes(chosen) - int(blocks[recorded, at.B_SIZE])
    handle = int(handle_bytes(state.arrays, int(blocks[recorded, at.B_LANE])))
    left = room // handle * handle
    if left < 0 or left >= blocks[tail, at.B_SIZE]:
        return False
    _cut_at(state, int(blocks[recorded, at.B_SEGMENT]), int(blocks[tail, at.B_ADDRESS]) + left)
    return True


def _next_map(blocks: at.Int64Matrix, candidate: int, rounded: int) -> tuple[int, int]:
    """The unmapped range that comes next, and how many bytes of it are wanted."""
    if blocks[candidate, at.B_STATE] == at.UNMAPPED:
        return candidate, min(int(blocks[candidate, at.B_SIZE]), rounded)
    target = int(blocks[candidate, at.B_NEXT])
    return target, min(rounded - int(blocks[candidate, at.B_SIZE]), int(blocks[target, at.B_SIZE]))


def _check_map(state: PinnedState, target: int, n_bytes: int, lane: int) -> None:
    recording, position = state.recording, state.position
    handle = int(handle_bytes(state.arrays, lane))
    address, mapped = int(state.arrays.blocks[target, at.B_ADDRESS]), -(-n_bytes // handle) * handle
    stream = state.stream_of_lane(lane)
    recorded = tuple(int(column[position]) for column in (recording.address, recording.size_bytes, recording.stream))
    if (address, mapped, stream) != recorded:
        got = f"segment_map of {format_count(mapped)} bytes at {address:#x} on stream {stream:#x}"
        raise DivergedError(position, got, "other memory is mapped")


def _candidate(state: PinnedState, request: Request) -> int:
    """Where the request grows; a reservation that the recording shows for the first time is added where it maps."""
    arrays, lane = state.arrays, request.lane
    address = int(state.recording.address[state.position])
    candidate = int(find_candidate(arrays, lane, request.rounded_bytes))
    while candidate != at.NONE:
        target, _ = _next_map(arrays.blocks, candidate, request.rounded_bytes)
        if arrays.blocks[target, at.B_ADDRESS] == address:
            return candidate
        if lane in state.lanes_with_spare and not _is_reserved(arrays, address):
            state.lanes_with_spare.discard(lane)
            break
        if not _cut_reservation(state, candidate, request.rounded_bytes):
            return candidate
        candidate = int(find_candidate(arrays, lane, request.rounded_bytes))
    for segment in (arrays.segments[:, at.S_IS_LIVE] == 1).nonzero()[0].tolist():
        base, size = arrays.segments[segment, [at.S_ADDRESS, at.S_SIZE]].tolist()
        if base < address < base + size:
            _cut_at(state, segment, address)
    return int(add_reservation(arrays, lane, address, int(new_reservation_bytes(arrays, lane))))


def _is_reserved(arrays: at.CachingArrays, address: int) -> bool:
    live = arrays.segments[arrays.segments[:, at.S_IS_LIVE] == 1]
    return bool(((live[:, at.S_ADDRESS] <= address) & (address < live[:, at.S_ADDRESS] + live[:, at.S_SIZE])).any())


def _cut_reservation(state: PinnedState, candidate: int, rounded: int) -> bool:
    """The recording passed over a place that seems large enough: its reservation must end earlier than assumed."""
    arrays = state.arrays
    blocks = arrays.blocks
    if state.recording.total_bytes is not None:
        return False
    handle = int(handle_bytes(arrays, int(blocks[candidate, at.B_LANE])))
    room, block = 0, candidate
    while blocks[block, at.B_NEXT] != at.NONE:
        if blocks[block, at.B_STATE] not in (at.FREE, at.UNMAPPED):
            return False
        room += int(blocks[block, at.B_SIZE])
        block = int(blocks[block, at.B_NEXT])
    if blocks[block, at.B_STATE] != at.UNMAPPED or room >= rounded:
        return False
    left = (rounded - room - 1) // handle * handle
    if left < 0 or left >= blocks[block, at.B_SIZE]:
        return False
    _cut_at(state, int(blocks[block, at.B_SEGMENT]), int(blocks[block, at.B_ADDRESS]) + left)
    return True


def _cut_at(state: PinnedState, segment: int, end: int) -> None:
    """Shorten a reservation whose end is not known; no other one can be longer then, as all cover the same size."""
    arrays = state.arrays
    is_unknown = state.recording.total_bytes is None and arrays.segments[segment, at.S_IS_EXPANDABLE]
    if not is_unknown or not _shorten(arrays, segment, end):
        got = "memory mapped inside another segment"
        raise DivergedError(state.position, got, "a reservation begins where another one is")
    state.inferred[EXTENTS] += 1
    if arrays.segments[segment, at.S_IS_OLD]:
        return  # Where it begins is not known either.
    length = end - int(arrays.segments[segment, at.S_ADDRESS])
    arrays.config[at.CFG_RESERVATION] = min(length, int(arrays.config[at.CFG_RESERVATION]))
    is_reservation = (arrays.segments[:, at.S_IS_LIVE] == 1) & (arrays.segments[:, at.S_IS_EXPANDABLE] == 1)
    for other in is_reservation.nonzero()[0].tolist():
        base, size, lane = arrays.segments[other, [at.S_ADDRESS, at.S_SIZE, at.S_LANE]].tolist()
        longest = int(new_reservation_bytes(arrays, lane))
        if size > longest:
            _shorten(arrays, other, base + longest)


def _shorten(arrays: at.CachingArrays, segment: int, end: int) -> bool:
    """Let a reservation end earlier, if nothing is mapped beyond that."""
    blocks = arrays.blocks
    block = int(arrays.segments[segment, at.S_HEAD])
    while blocks[block, at.B_NEXT] != at.NONE:
        block = int(blocks[block, at.B_NEXT])
    address = int(blocks[block, at.B_ADDRESS])
    if blocks[block, at.B_STATE] != at.UNMAPPED or end < address:
        return False
    if end == address:
        before = int(blocks[block, at.B_PREV])
        if before == at.NONE:
            return False
        remove(arrays, int(blocks[block, at.B_LANE]), at.L_UNMAPPED_ROOT, block)
        blocks[before, at.B_NEXT] = at.NONE
        at.drop_block(arrays, block)
    else:
        blocks[block, at.B_SIZE] = end - address
    arrays.segments[segment, at.S_SIZE] = end - int(arrays.segments[segment, at.S_ADDRESS])
    return True


def widen_old_block(state: PinnedState, free_block: int, request: Request) -> bool:
    """Let the block before a free one reach into it, so far that a request no longer fits; whether that is possible.

    A large block keeps up to 1 MiB more than its request. Of one that predates the recording, and whose neighbour was
    free before the first event, only the request is known; that the recording passed over the free block tells more.
    """
    arrays = state.arrays
    blocks = arrays.blocks
    before = int(blocks[free_block, at.B_PREV])
    if before == at.NONE or is_expandable_block(arrays, before) or not _has_open_end(state, before):
        return False
    slack = int(blocks[free_block, at.B_SIZE]) - request.rounded_bytes + MIN_BLOCK_BYTES
    least = int(round_size(blocks[before, at.B_REQUESTED], arrays.config[at.CFG_DIVISIONS :]))
    if blocks[before, at.B_SIZE] + slack - least > SMALL_BYTES or blocks[free_block, at.B_SIZE] - slack <= SMALL_BYTES:
        return False
    lane = int(blocks[free_block, at.B_LANE])
    remove(arrays, lane, at.L_FREE_ROOT, free_block)
    blocks[free_block, at.B_ADDRESS] += slack
    blocks[free_block, at.B_SIZE] -= slack
    insert(arrays, lane, at.L_FREE_ROOT, free_block)
    blocks[before, at.B_SIZE] += slack
    at.grow_counter(arrays.counters, at.C_ACTIVE, at.C_PEAK_ACTIVE, slack)
    if blocks[before, at.B_STATE] == at.ALLOCATED:
        at.grow_counter(arrays.counters, at.C_ALLOCATED, at.C_PEAK_ALLOCATED, slack)
    state.inferred[SLACK] += 1
    return True


def old_blocks_may_hold(state: PinnedState, n_bytes: int) -> bool:
    """Whether the blocks in use whose size is a lower bound may be larger by that much together."""
    rows = _open_rows(state)
    blocks = state.arrays.blocks
    held = state.block_of_row[rows]
    in_use = np.isin(blocks[held, at.B_STATE], (at.ALLOCATED, at.PENDING)) & (blocks[held, at.B_IS_OLD] == 1)
    freed = state.recording.lifetimes.allocations.free_event[rows]
    in_use &= (freed == NONE_ID) | (freed >= state.recording.first_event + state.position)
    is_possible = 0 < n_bytes <= SMALL_BYTES * int(np.count_nonzero(in_use))
    state.inferred[SLACK] += is_possible
    return is_possible


def _open_rows(state: PinnedState) -> Int64Array:
    """Allocations from before the recording whose block is known only from below."""
    table = state.recording.lifetimes.allocations
    is_open = (table.alloc_event == NONE_ID) & ~table.is_exact & (state.block_of_row >= 0)
    return np.flatnonzero(is_open)


def _has_open_end(state: PinnedState, block: int) -> bool:
    """Whether a block in use predates the recording and its size is a lower bound."""
    in_use = state.arrays.blocks[block, at.B_STATE] in (at.ALLOCATED, at.PENDING)
    is_old = state.arrays.blocks[block, at.B_IS_OLD] == 1
    return bool(in_use and is_old and np.any(state.block_of_row[_open_rows(state)] == block))
