"""Ends that a recording does not name, told by its decisions: of address reservations that grow, and of old blocks."""

from __future__ import annotations

import numpy as np

from memscope._core import caching
from memscope.errors import InvariantError
from memscope.replay.recording import next_request
from memscope.replay.verify._state import PinnedState, Request
from memscope.replay.verify.divergence import DivergedError
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array
from memscope.units import format_count, format_handle

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
    is_mapped = candidate.state == caching.BlockState.FREE
    while not is_mapped or candidate.size_bytes < request.rounded_bytes:
        if state.action_at(state.position) != Action.SEGMENT_MAP:
            return  # The driver had no more: a reclaim or an oom follows.
        target, n_bytes = _next_map(candidate, request.rounded_bytes)
        _check_map(state, target, n_bytes, request.pool)
        state.allocator.map_block(target, n_bytes)
        candidate, is_mapped = target, True
        state.position += 1
    is_used = recording.address[request.position] == candidate.address
    if state.position != request.position or not is_used:
        raise DivergedError(state.position, state.describe_block(candidate), "what was mapped is used in another way")
    state.serve(request, candidate)


def growth_without_map(state: PinnedState, request: Request) -> caching.Block | None:
    """The free block that a request that found none grows into without a map, None if it is not the recorded one.

    With a split limit a block can be too large for the request. The request then grows an expandable segment, and the
    free block before the unmapped range, which may be that same block, already has the bytes.
    """
    if not state.config.is_expandable:
        return None
    address = int(state.recording.address[request.position])
    candidate = _place_to_grow(state, request)
    while candidate is not None:
        is_enough = candidate.size_bytes >= request.rounded_bytes
        if candidate.state == caching.BlockState.FREE and is_enough and candidate.address == address:
            return candidate
        if not _cut_reservation(state, candidate, request.rounded_bytes):
            break
        candidate = _place_to_grow(state, request)
    return None


def _place_to_grow(state: PinnedState, request: Request) -> caching.Block | None:
    return state.allocator.find_expandable_block(request.pool, request.rounded_bytes)


def note_failed_growth(state: PinnedState, request: Request) -> None:
    """A request that fits into no reservation made a new one before the driver refused it; nothing records that."""
    if state.config.is_expandable and _place_to_grow(state, request) is None:
        state.pools_with_spare.add(request.pool)


def cut_for_choice(state: PinnedState, chosen: caching.Block, recorded: caching.Block) -> bool:
    """The recording took a block that could grow, the rules a larger one that cannot grow as far: whether cuts agree.

    A request takes the block that can grow least, so the addresses after the recorded one must end earlier.
    """
    tail = recorded.next
    if state.recording.total_bytes is not None or tail is None or tail.state != caching.BlockState.UNMAPPED:
        return False
    if tail.next is not None:
        return False
    room = state.growth_room_bytes(chosen) - recorded.size_bytes
    handle = state.allocator.handle_size(recorded.pool)
    left = room // handle * handle
    if left < 0 or left >= tail.size_bytes:
        return False
    _cut_at(state, recorded.segment, tail.address + left)
    return True


def _next_map(candidate: caching.Block, rounded: int) -> tuple[caching.Block, int]:
    """The unmapped range that comes next, and how many bytes of it are wanted."""
    if candidate.state == caching.BlockState.UNMAPPED:
        return candidate, min(candidate.size_bytes, rounded)
    target = candidate.next
    if target is None:
        raise InvariantError("a block that can grow ends its reservation")
    return target, min(rounded - candidate.size_bytes, target.size_bytes)


def _check_map(state: PinnedState, target: caching.Block, n_bytes: int, pool: int) -> None:
    recording, position = state.recording, state.position
    handle = state.allocator.handle_size(pool)
    address, mapped = target.address, -(-n_bytes // handle) * handle
    stream = state.stream_of(pool)
    recorded = tuple(int(column[position]) for column in (recording.address, recording.size_bytes, recording.stream))
    if (address, mapped, stream) != recorded:
        shown = recording.trace.address_text(address)
        got = f"segment_map of {format_count(mapped)} bytes at {shown} on stream {format_handle(stream)}"
        raise DivergedError(position, got, "other memory is mapped")


def _candidate(state: PinnedState, request: Request) -> caching.Block:
    """Where the request grows; a reservation that the recording shows for the first time is added where it maps."""
    allocator, pool = state.allocator, request.pool
    address = int(state.recording.address[state.position])
    candidate = _place_to_grow(state, request)
    while candidate is not None:
        target, _ = _next_map(candidate, request.rounded_bytes)
        if target.address == address:
            return candidate
        if pool in state.pools_with_spare and _segment_around(allocator, address) is None:
            state.pools_with_spare.discard(pool)
            break
        if not _cut_reservation(state, candidate, request.rounded_bytes):
            return candidate
        candidate = _place_to_grow(state, request)
    around = _segment_around(allocator, address)
    if around is not None and around.address < address:
        _cut_at(state, around, address)
    return allocator.add_reservation(pool, address)


def _segment_around(allocator: caching.DeviceCachingAllocator, address: int) -> caching.Segment | None:
    """The segment that an address lies in: segments do not overlap."""
    segments = allocator.live_segments()
    return next((s for s in segments if s.address <= address < s.address + s.size_bytes), None)


def _cut_reservation(state: PinnedState, candidate: caching.Block, rounded: int) -> bool:
    """The recording passed over a place that seems large enough: its reservation must end earlier than assumed."""
    if state.recording.total_bytes is not None:
        return False
    handle = state.allocator.handle_size(candidate.pool)
    room, block = 0, candidate
    while (later := block.next) is not None:
        if block.state not in (caching.BlockState.FREE, caching.BlockState.UNMAPPED):
            return False
        room += block.size_bytes
        block = later
    if block.state != caching.BlockState.UNMAPPED or room >= rounded:
        return False
    left = (rounded - room - 1) // handle * handle
    if left < 0 or left >= block.size_bytes:
        return False
    _cut_at(state, block.segment, block.address + left)
    return True


def _cut_at(state: PinnedState, segment: caching.Segment, end: int) -> None:
    """Shorten a reservation whose end is not known; no other one can be longer then, as all cover the same size."""
    allocator = state.allocator
    is_unknown = state.recording.total_bytes is None and segment.is_expandable
    if not is_unknown or not allocator.shorten_reservation(segment, end):
        got = "memory mapped inside another segment"
        raise DivergedError(state.position, got, "a reservation begins where another one is")
    state.inferred[EXTENTS] += 1
    if segment.is_old:
        return  # Where it begins is not known either.
    allocator.reservation_bytes = min(end - segment.address, allocator.reservation_bytes)
    for other in allocator.live_segments():
        longest = allocator.reservation_size(other.pool)
        if other.is_expandable and other.size_bytes > longest:
            allocator.shorten_reservation(other, other.address + longest)


def widen_old_block(state: PinnedState, free_block: caching.Block, request: Request) -> bool:
    """Let the block before a free one reach into it, so far that a request no longer fits; whether that is possible.

    A large block keeps up to 1 MiB more than its request. Of one that predates the recording, and whose neighbour was
    free before the first event, only the request is known; that the recording passed over the free block tells more.
    """
    before = free_block.prev
    if before is None or before.segment.is_expandable or not _has_open_end(state, before):
        return False
    slack = free_block.size_bytes - request.rounded_bytes + caching.MIN_BLOCK_BYTES
    least = caching.round_size(before.requested_bytes, state.config.roundup_divisions)
    if before.size_bytes + slack - least > caching.SMALL_BYTES or free_block.size_bytes - slack <= caching.SMALL_BYTES:
        return False
    state.allocator.widen_block(before, slack)
    state.inferred[SLACK] += 1
    return True


def old_blocks_may_hold(state: PinnedState, n_bytes: int) -> bool:
    """Whether the blocks in use whose size is a lower bound may be larger by that much together."""
    rows = state.allocator.old_rows(_open_rows(state))
    freed = state.recording.lifetimes.allocations.free_event[rows]
    in_use = (freed == NONE_ID) | (freed >= state.recording.first_event + state.position)
    is_possible = 0 < n_bytes <= caching.SMALL_BYTES * int(np.count_nonzero(in_use))
    state.inferred[SLACK] += is_possible
    return is_possible


def _open_rows(state: PinnedState) -> Int64Array:
    """Allocations from before the recording whose block is known only from below."""
    table = state.recording.lifetimes.allocations
    return np.flatnonzero((table.alloc_event == NONE_ID) & ~table.is_exact)


def _has_open_end(state: PinnedState, block: caching.Block) -> bool:
    """Whether a block in use predates the recording and its size is a lower bound."""
    in_use = block.state in (caching.BlockState.ALLOCATED, caching.BlockState.PENDING)
    if not in_use or not block.is_old:
        return False
    return bool(np.any(state.allocator.ids_of_rows(_open_rows(state)) == block.id))
