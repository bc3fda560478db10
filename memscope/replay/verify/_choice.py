"""Which free block a request takes by the rules, where what decides between several is not recorded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from memscope._core import caching
from memscope.replay.verify._growth import cut_for_choice, growth_without_map, widen_old_block
from memscope.replay.verify._state import PinnedState, Request
from memscope.replay.verify.divergence import OUT_OF_MEMORY_FITS, REASONS, DivergedError, Status

TIES = "ties among blocks that predate the recording, taken as recorded"
LATE_FREES = "frees that completed while a request waited for all streams, too late to serve it"
PRIVATE_OOMS = "requests out of memory in a private pool that the recording does not name"


def take_recorded_block(state: PinnedState) -> None:
    """Take the recorded block if what decides between it and the simulator's is not known.

    Where it tells an end that was not known, that is noted, and the event is left to be decided anew.

    Raises
    ------
    DivergedError
        If the rules take another block for certain.
    """
    request = state.request_at(state.position)
    recorded = state.allocator.free_block_at(int(state.recording.address[request.position]))
    if recorded is None or recorded.pool != request.pool:
        raise state.diverged(caching.FollowStatus.FITS_ELSEWHERE)
    chosen = _first_fit_with(state, recorded, request)
    if chosen is None:
        raise state.diverged(caching.FollowStatus.FITS_ELSEWHERE)
    if chosen == recorded:
        state.inferred[TIES] += 1
    elif (state.config.is_expandable and cut_for_choice(state, chosen, recorded)) or widen_old_block(
        state, chosen, request
    ):
        return
    elif not state.follows_reclaim or growth_without_map(state, request) != recorded:
        raise state.diverged(caching.FollowStatus.FITS_ELSEWHERE)
    state.count_call(request.pool)
    state.serve(request, recorded)


def _first_fit_with(state: PinnedState, favourite: caching.Block, request: Request) -> caching.Block | None:
    """The block that a request takes if a free block stands first among those of its size and unknown age."""
    may_be_expandable = state.config.is_expandable
    if favourite.size_bytes < request.rounded_bytes or (favourite.segment.is_expandable and not may_be_expandable):
        return None
    ordered = _with_first(state, favourite, request)
    block = next(ordered, None)
    if may_be_expandable:
        # The walk over what can still grow, as in ``find_free_block``.
        while block is not None and block.segment.is_expandable:
            later = next(ordered, None)
            if later is None or state.growth_room_bytes(later) >= state.growth_room_bytes(block):
                break
            block = later
    return block


def _with_first(state: PinnedState, favourite: caching.Block, request: Request) -> Iterator[caching.Block]:
    """The free blocks that fit a request, in order, but for one that comes before those of its size and unknown age."""
    is_done = False
    for block in state.fitting_blocks(request):
        if not state.config.is_expandable and block.segment.is_expandable:
            continue
        if not is_done and (block == favourite or state.is_open_tie(block, favourite)):
            is_done = True
            yield favourite
        if block != favourite:
            yield block


def take_grown_block(state: PinnedState) -> None:
    """A request that found no block took one all the same: it grew, and needed no more memory for it.

    Raises
    ------
    DivergedError
        If it did not.
    """
    request = state.request_at(state.position)
    block = growth_without_map(state, request)
    if block is None:
        raise state.diverged(caching.FollowStatus.FITS_NOWHERE)
    state.count_call(request.pool)
    state.serve(request, block)


def check_nothing_fits(state: PinnedState, request: Request, status: Status) -> None:
    """A request that got no free block must find none, save what was freed too late.

    A reclaim waits for all streams, which completes frees, and then asks the driver again but not the free blocks.
    What it leaves of blocks that were too large for the request may fit as well by then.

    Raises
    ------
    DivergedError
        If another block fits, with the reason of ``status``.
    """
    block = state.free_block_for(request)
    if block is None or request.position == state.missed_request:
        return
    if status == OUT_OF_MEMORY_FITS and state.may_be_private:
        state.inferred[PRIVATE_OOMS] += 1
        return
    late = state.completed_just_before()
    for other in chain([block], state.fitting_blocks(request)):
        if not state.holds_any(other, late):
            if widen_old_block(state, other, request):
                check_nothing_fits(state, request, status)
                return
            raise DivergedError(state.position, state.describe_block(block), REASONS[status])
    state.inferred[LATE_FREES] += len(late)
