"""Expandable segments growing in a recording: which addresses a request maps, by the rules and as recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memscope._kernels import caching_layout as at
from memscope._kernels.caching import _growth_room as growth_room
from memscope._kernels.caching_blocks import handle_bytes
from memscope._kernels.caching_expandable import add_reservation, find_candidate, map_block
from memscope._kernels.caching_expandable import reservation_bytes as new_reservation_bytes
from memscope._kernels.caching_pinned import FITS_ALREADY
from memscope._kernels.free_sets import remove
from memscope.replay.recording import next_request
from memscope.replay.verify.divergence import DivergedError
from memscope.trace.schema import NONE_ID, Action
from memscope.units import format_count

if TYPE_CHECKING:
    from memscope.replay.verify.pinned import PinnedReplay

EXTENTS = "ends of address reservations (the device's size is not recorded)"


def follow_growth(replay: PinnedReplay) -> None:
    """Do the maps of one attempt to grow, and the allocation that follows if it was enough.

    Raises
    ------
    DivergedError
        If the rules map something else.
    """
    recording, position = replay.recording, replay.position
    request = next_request(recording, position)
    if request == NONE_ID:
        raise DivergedError(position, "a request after it", "memory was mapped for no request")
    lane, rounded = replay.lane_of_request(request)
    replay.check_nothing_fits(request, lane, rounded, FITS_ALREADY)
    replay.count_call(lane)
    candidate = _candidate(replay, lane, rounded)
    blocks = replay.arrays.blocks
    is_mapped = blocks[candidate, at.B_STATE] == at.FREE
    while not is_mapped or blocks[candidate, at.B_SIZE] < rounded:
        if replay.position >= recording.n_events or recording.action[replay.position] != Action.SEGMENT_MAP:
            return  # The driver had no more: a reclaim or an oom follows.
        target, n_bytes = _next_map(blocks, candidate, rounded)
        _check_map(replay, target, n_bytes, lane)
        map_block(replay.arrays, target, n_bytes)
        candidate, is_mapped = target, True
        replay.position += 1
    if replay.position != request or recording.address[request] != blocks[candidate, at.B_ADDRESS]:
        raise DivergedError(replay.position, replay.describe_block(candidate), "what was mapped is used in another way")
    replay.finish_request(candidate, rounded)


def growth_without_map(replay: PinnedReplay, lane: int, rounded: int, address: int) -> int:
    """The free block that a request that found none grows into without a map, −1 if it is not at that address.

    With a split limit a block can be too large for the request. The request then grows an expandable segment, and the
    free block before the unmapped range, which may be that same block, already has the bytes.
    """
    arrays = replay.arrays
    if not replay.config.is_expandable:
        return NONE_ID
    candidate = int(find_candidate(arrays, lane, rounded))
    while candidate != at.NONE:
        state, size, start = arrays.blocks[candidate, [at.B_STATE, at.B_SIZE, at.B_ADDRESS]].tolist()
        if state == at.FREE and size >= rounded and start == address:
            return candidate
        if not _cut_reservation(replay, candidate, rounded):
            break
        candidate = int(find_candidate(arrays, lane, rounded))
    return NONE_ID


def _next_map(blocks: at.Int64Matrix, candidate: int, rounded: int) -> tuple[int, int]:
    """The unmapped range that comes next, and how many bytes of it are wanted."""
    if blocks[candidate, at.B_STATE] == at.UNMAPPED:
        return candidate, min(int(blocks[candidate, at.B_SIZE]), rounded)
    target = int(blocks[candidate, at.B_NEXT])
    return target, min(rounded - int(blocks[candidate, at.B_SIZE]), int(blocks[target, at.B_SIZE]))


def _check_map(replay: PinnedReplay, target: int, n_bytes: int, lane: int) -> None:
    recording, position = replay.recording, replay.position
    handle = int(handle_bytes(replay.arrays, lane))
    address, mapped = int(replay.arrays.blocks[target, at.B_ADDRESS]), -(-n_bytes // handle) * handle
    stream = recording.pairs[lane // 2][1]
    recorded = tuple(int(column[position]) for column in (recording.address, recording.size_bytes, recording.stream))
    if (address, mapped, stream) != recorded:
        got = f"segment_map of {format_count(mapped)} bytes at {address:#x} on stream {stream:#x}"
        raise DivergedError(position, got, "other memory is mapped")


def _candidate(replay: PinnedReplay, lane: int, rounded: int) -> int:
    """Where the request grows; a reservation that the recording shows for the first time is added where it maps."""
    arrays = replay.arrays
    address = int(replay.recording.address[replay.position])
    candidate = int(find_candidate(arrays, lane, rounded))
    while candidate != at.NONE:
        target, _ = _next_map(arrays.blocks, candidate, rounded)
        if arrays.blocks[target, at.B_ADDRESS] == address:
            return candidate
        if lane in replay.lanes_with_spare and not _is_reserved(arrays, address):
            replay.lanes_with_spare.discard(lane)
            break
        if not _cut_reservation(replay, candidate, rounded):
            return candidate
        candidate = int(find_candidate(arrays, lane, rounded))
    for segment in (arrays.segments[:, at.S_IS_LIVE] == 1).nonzero()[0].tolist():
        base, size = arrays.segments[segment, [at.S_ADDRESS, at.S_SIZE]].tolist()
        if base < address < base + size:
            _cut_at(replay, segment, address)
    n_bytes = int(new_reservation_bytes(arrays, lane))
    return int(add_reservation(arrays, lane, address, n_bytes))


def _is_reserved(arrays: at.CachingArrays, address: int) -> bool:
    live = arrays.segments[arrays.segments[:, at.S_IS_LIVE] == 1]
    return bool(((live[:, at.S_ADDRESS] <= address) & (address < live[:, at.S_ADDRESS] + live[:, at.S_SIZE])).any())


def note_failed_growth(replay: PinnedReplay, lane: int, rounded: int) -> None:
    """A request that fits into no reservation made a new one before the driver refused it; nothing records that."""
    if replay.config.is_expandable and find_candidate(replay.arrays, lane, rounded) == at.NONE:
        replay.lanes_with_spare.add(lane)


def _cut_reservation(replay: PinnedReplay, candidate: int, rounded: int) -> bool:
    """The recording passed over a place that seems large enough: its reservation must end earlier than assumed."""
    arrays = replay.arrays
    blocks = arrays.blocks
    if replay.recording.total_bytes is not None:
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
    _cut_at(replay, int(blocks[block, at.B_SEGMENT]), int(blocks[block, at.B_ADDRESS]) + left)
    return True


def cut_for_choice(replay: PinnedReplay, chosen: int, recorded: int) -> bool:
    """The recording took a block that could grow, the rules a larger one that cannot grow as far: whether cuts agree.

    A request takes the block that can grow least, so the addresses after the recorded one must end earlier.
    """
    blocks = replay.arrays.blocks
    tail = int(blocks[recorded, at.B_NEXT])
    if replay.recording.total_bytes is not None or tail == at.NONE or blocks[tail, at.B_STATE] != at.UNMAPPED:
        return False
    if blocks[tail, at.B_NEXT] != at.NONE:
        return False
    room = int(growth_room(replay.arrays, chosen)) - int(blocks[recorded, at.B_SIZE])
    handle = int(handle_bytes(replay.arrays, int(blocks[recorded, at.B_LANE])))
    left = room // handle * handle
    if left < 0 or left >= blocks[tail, at.B_SIZE]:
        return False
    _cut_at(replay, int(blocks[recorded, at.B_SEGMENT]), int(blocks[tail, at.B_ADDRESS]) + left)
    return True


def _cut_at(replay: PinnedReplay, segment: int, end: int) -> None:
    """Shorten a reservation whose end is not known; no other one can be longer then, as all cover the same size."""
    arrays = replay.arrays
    is_unknown = replay.recording.total_bytes is None and arrays.segments[segment, at.S_IS_EXPANDABLE]
    if not is_unknown or not _shorten(arrays, segment, end):
        got = "memory mapped inside another segment"
        raise DivergedError(replay.position, got, "a reservation begins where another one is")
    replay.inferred[EXTENTS] += 1
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
