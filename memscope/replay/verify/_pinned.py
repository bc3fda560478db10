"""A recording followed event by event, pinned to what only it can tell.

The recorded addresses of segments, the moments at which deferred frees completed and the moments at which the driver
was out of memory are taken as recorded. Everything else the simulated allocator decides itself, and each decision must
be the recorded one.
"""

from __future__ import annotations

from typing import Protocol

from memscope._core import caching
from memscope.replay.verify._choice import PRIVATE_OOMS, check_nothing_fits, take_grown_block, take_recorded_block
from memscope.replay.verify._growth import follow_maps, note_failed_growth, old_blocks_may_hold, request_of_maps
from memscope.replay.verify._reclaim import UnusedMemory, follow_reclaim
from memscope.replay.verify._state import GIVES_BACK, PinnedState, Request
from memscope.replay.verify.divergence import OUT_OF_MEMORY_FITS, REASONS, DivergedError, Divergence
from memscope.trace.schema import NONE_ID, Action
from memscope.units import format_handle

DEFERRALS = "frees that waited for another stream (record_stream)"


class Decisions(Protocol):
    """What is done with the events at which the rules and the recording can part: how strict the pass is."""

    def another_block_taken(self, state: PinnedState) -> None:
        """The next event allocates at another address than the rules."""

    def nothing_fitted(self, state: PinnedState, request: Request) -> None:
        """The recording asked the driver for memory, for a request that so found no free block."""

    def memory_went_back(self, state: PinnedState) -> None:
        """The next events give memory back to the driver."""

    def out_of_memory(self, state: PinnedState) -> None:
        """The next event is a request that failed."""


class ByTheRules:
    """Every decision must be the one of the rules, as far as the recording has what they need."""

    def another_block_taken(self, state: PinnedState) -> None:
        """It must be one that the rules may take."""
        take_recorded_block(state)

    def nothing_fitted(self, state: PinnedState, request: Request) -> None:
        """The rules must find none either."""
        check_nothing_fits(state, request, caching.FollowStatus.FITS_ALREADY)

    def memory_went_back(self, state: PinnedState) -> None:
        """Each must be what the rules give back, in their order."""
        follow_reclaim(state)

    def out_of_memory(self, state: PinnedState) -> None:
        """The request must not fit, and nothing that a reclaim would have freed may be left."""
        request = state.request_at(state.position)
        left = UnusedMemory(state).of_pool(0) if state.is_default(request.pool) else []
        if not left:
            check_nothing_fits(state, request, OUT_OF_MEMORY_FITS)
        elif state.may_be_private:
            state.inferred[PRIVATE_OOMS] += 1
        else:
            block = state.free_block_for(request)
            if block is not None:
                raise DivergedError(state.position, state.describe_block(block), REASONS[OUT_OF_MEMORY_FITS])
            reason = "the recording ran out of memory before all unused memory was given back"
            raise DivergedError(state.position, left[0].describe(state.recording.trace), reason)
        state.count_call(request.pool)
        note_failed_growth(state, request)
        state.refuse(request)


BY_THE_RULES = ByTheRules()


def follow(state: PinnedState, decisions: Decisions = BY_THE_RULES) -> Divergence | None:
    """Follow all events; the first divergence, None if there is none."""
    divergence = _follow(state, decisions)
    foreign = state.recording.first_foreign_stream()
    if foreign == NONE_ID or state.position < foreign:
        return divergence
    state.position = foreign
    event, stream = state.recording.first_event + foreign, int(state.recording.stream[foreign])
    reason = "the stream is not the one that the memory was allocated on"
    recorded = f"{state.recording.describe(foreign)} on stream {format_handle(stream)}"
    return Divergence(event, recorded, "its own stream", reason)


def _follow(state: PinnedState, decisions: Decisions) -> Divergence | None:
    recording = state.recording
    while state.position < recording.n_events:
        state.position, status = state.allocator.follow(
            recording.action,
            recording.address,
            recording.size_bytes,
            recording.pair,
            recording.row,
            recording.requests_recorded,
            state.position,
        )
        try:
            _decide(state, decisions, status)
        except DivergedError as diverged:
            event = recording.first_event + diverged.position
            return Divergence(event, recording.describe(diverged.position), diverged.got, diverged.reason)
    state.inferred[DEFERRALS] += recording.n_deferred_frees
    return None


def _decide(state: PinnedState, decisions: Decisions, status: caching.FollowStatus) -> None:
    """Go on where following stopped."""
    if status == caching.FollowStatus.FOLLOWED:
        return
    if status == caching.FollowStatus.FITS_ELSEWHERE:
        decisions.another_block_taken(state)
    elif status == caching.FollowStatus.FITS_NOWHERE:
        take_grown_block(state)
    elif status == caching.FollowStatus.FITS_ALREADY:
        _follow_new_segment(state, decisions)
    elif status == caching.FollowStatus.ACTIVE_BYTES_DIFFER and old_blocks_may_hold(state, _missing_bytes(state)):
        state.position += 1
    elif status == caching.FollowStatus.NEEDS_DECISION:
        _decide_event(state, decisions, Action(int(state.recording.action[state.position])))
    else:
        raise state.diverged(status)


def _decide_event(state: PinnedState, decisions: Decisions, action: Action) -> None:
    if action in GIVES_BACK:
        decisions.memory_went_back(state)
    elif action == Action.SEGMENT_ALLOC:
        _follow_new_segment(state, decisions)
    elif action == Action.SEGMENT_MAP:
        request = request_of_maps(state)
        decisions.nothing_fitted(state, request)
        state.count_call(request.pool)
        follow_maps(state, request)
    elif action == Action.OOM:
        decisions.out_of_memory(state)
    else:
        raise DivergedError(state.position, "nothing", f"{action.name.lower()} cannot be followed here")


def _missing_bytes(state: PinnedState) -> int:
    return int(state.recording.size_bytes[state.position]) - state.allocator.stats.active_bytes


def _follow_new_segment(state: PinnedState, decisions: Decisions) -> None:
    """A miss that was not followed: with garbage collection, or not followed by its allocation."""
    recording, position = state.recording, state.position
    if state.action_at(position + 1) != Action.ALLOC:
        raise DivergedError(position, "an allocation after it", "a segment was made for no request")
    address, n_bytes = int(recording.address[position]), int(recording.size_bytes[position])
    if recording.address[position + 1] != address:
        raise DivergedError(position + 1, recording.trace.address_text(address), "the new segment was not used")
    request = state.request_at(position + 1)
    decisions.nothing_fitted(state, request)
    if state.segment_bytes(request.rounded_bytes) != n_bytes:
        raise state.diverged(caching.FollowStatus.SEGMENT_SIZE_DIFFERS)
    state.count_call(request.pool)
    requested = int(recording.size_bytes[request.position])
    state.finish(request, state.allocator.alloc_in_new_segment(request.pool, address, n_bytes, requested))
