"""Which free block a request takes by the rules, where what decides between several is not recorded."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_pinned as kernel
from memscope._kernels.caching_blocks import is_expandable_block
from memscope.replay.verify._growth import cut_for_choice, growth_without_map, widen_old_block
from memscope.replay.verify._state import PinnedState, Request
from memscope.replay.verify.divergence import OUT_OF_MEMORY_FITS, REASONS, DivergedError
from memscope.trace.schema import NONE_ID

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
    recorded = state.free_block_at(int(state.recording.address[request.position]))
    if recorded < 0 or state.arrays.blocks[recorded, at.B_LANE] != request.lane:
        raise state.diverged(kernel.FITS_ELSEWHERE)
    chosen = _first_fit_with(state, recorded, request)
    if chosen == at.NONE:
        raise state.diverged(kernel.FITS_ELSEWHERE)
    if chosen == recorded:
        state.inferred[TIES] += 1
    elif (state.config.is_expandable and cut_for_choice(state, chosen, recorded)) or widen_old_block(
        state, chosen, request
    ):
        return
    elif not state.follows_reclaim or growth_without_map(state, request) != recorded:
        raise state.diverged(kernel.FITS_ELSEWHERE)
    state.count_call(request.lane)
    state.serve(request, recorded)


def _tells_an_end(state: PinnedState, chosen: int, recorded: int, request: Request) -> bool:
    """Whether an end that was not known explains why the block of the rules was passed over; it is noted then."""
    if state.config.is_expandable and cut_for_choice(state, chosen, recorded):
        return True
    return widen_old_block(state, chosen, request)


def _first_fit_with(state: PinnedState, favourite: int, request: Request) -> int:
    """The block that a request takes if a free block stands first among those of its size and unknown age."""
    ordered = state.fitting_blocks(request)
    if not state.config.is_expandable:
        ordered = [block for block in ordered if not is_expandable_block(state.arrays, block)]
    if favourite not in ordered:
        return at.NONE
    place = ordered.index(favourite)
    ahead = next((i for i in range(place) if state.is_open_tie(ordered[i], favourite)), place)
    ordered.insert(ahead, ordered.pop(place))
    if not state.config.is_expandable:
        return ordered[0]
    # The walk over what can still grow, as in ``find_free_block``.
    room = [state.growth_room_bytes(block) for block in ordered]
    i = 0
    while is_expandable_block(state.arrays, ordered[i]) and i + 1 < len(ordered) and room[i + 1] < room[i]:
        i += 1
    return ordered[i]


def take_grown_block(state: PinnedState) -> None:
    """A request that found no block took one all the same: it grew, and needed no more memory for it.

    Raises
    ------
    DivergedError
        If it did not.
    """
    request = state.request_at(state.position)
    block = growth_without_map(state, request)
    if block == NONE_ID:
        raise state.diverged(kernel.FITS_NOWHERE)
    state.count_call(request.lane)
    state.serve(request, block)


def check_nothing_fits(state: PinnedState, request: Request, status: int) -> None:
    """A request that got no free block must find none, save what was freed too late.

    A reclaim waits for all streams, which completes frees, and then asks the driver again but not the free blocks.
    What it leaves of blocks that were too large for the request may fit as well by then.

    Raises
    ------
    DivergedError
        If another block fits, with the reason of ``status``.
    """
    block = state.free_block_for(request)
    if block == at.NONE or request.position == state.missed_request:
        return
    if status == OUT_OF_MEMORY_FITS and state.may_be_private:
        state.inferred[PRIVATE_OOMS] += 1
        return
    late = state.completed_just_before()
    for other in [block, *state.fitting_blocks(request)]:
        if not state.holds_any(other, late):
            if widen_old_block(state, other, request):
                check_nothing_fits(state, request, status)
                return
            raise DivergedError(state.position, state.describe_block(block), REASONS[status])
    state.inferred[LATE_FREES] += len(late)
