"""Which free block is taken, where the recording does not have what decides it."""

import dataclasses

import pytest

from memscope._core import caching
from memscope.replay.verify._choice import LATE_FREES, TIES, check_nothing_fits
from memscope.replay.verify._pinned import follow
from memscope.replay.verify._state import Request
from memscope.replay.verify.divergence import REASONS, DivergedError
from memscope.replay.verify.verify import verify
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.recordings import Recorder
from tests.replay.verify.exactness import assert_exact, state_before


def test_block_that_a_reclaim_waited_for_comes_too_late_for_its_request():
    recorder = NaiveRecorder(total=60 * MiB)
    kept, late = recorder.malloc(18 * MiB), recorder.malloc(8 * MiB)
    beside = recorder.malloc(6 * MiB)
    recorder.naive.free(late, waits=True)
    assert recorder.malloc(7 * MiB) is not None
    assert recorder.malloc(14 * MiB) is None
    assert {kept, beside} <= {block.address for block in recorder.naive.all_blocks()}
    inferred = assert_exact(recorder.trace())
    assert inferred.get(LATE_FREES, 0) == 0

    recorder = NaiveRecorder(total=40 * MiB)
    late, _, other = recorder.malloc(8 * MiB), recorder.malloc(6 * MiB), recorder.malloc(18 * MiB)
    recorder.naive.free(late, waits=True)
    assert recorder.malloc(7 * MiB) is None
    assert other is not None
    inferred = assert_exact(recorder.trace())
    assert inferred[LATE_FREES] == 1


def test_old_ties_are_taken_as_recorded():
    # Two segments of one size predate the recording; only the recording knows that the higher one is older.
    recorder = Recorder()
    low = recorder.allocator.malloc(30 * MiB)
    high = recorder.allocator.malloc(30 * MiB)
    recorder.start_recording()
    recorder.allocator.free(low)
    recorder.allocator.free(high)
    recorder.allocator.malloc(29 * MiB)

    def take_the_higher(events):
        events[-1][1] = high

    trace = recorder.trace(take_the_higher)
    blocks = trace.blocks
    swapped = dataclasses.replace(
        blocks,
        requested_bytes=blocks.requested_bytes[::-1],
        state=blocks.state[::-1],
    )
    result = verify(dataclasses.replace(trace, blocks=swapped))
    assert result.exact
    assert result.devices[0].inferred == {TIES: 1}


def test_request_that_a_free_block_would_serve_did_not_find_nothing():
    recorder = NaiveRecorder()
    recorder.naive.free(recorder.malloc(30 * MiB))
    # Behind a request what was freed is no longer late.
    recorder.malloc(1000)
    state = state_before(recorder.trace())
    assert follow(state) is None
    pool = state.request_at(1).pool
    check_nothing_fits(state, Request(6, pool, 31 * MiB), caching.FollowStatus.FITS_ALREADY)
    with pytest.raises(DivergedError) as diverged:
        check_nothing_fits(state, Request(6, pool, 29 * MiB), caching.FollowStatus.FITS_ALREADY)
    assert diverged.value.reason == REASONS[caching.FollowStatus.FITS_ALREADY]
    state.missed_request = 6
    check_nothing_fits(state, Request(6, pool, 29 * MiB), caching.FollowStatus.FITS_ALREADY)
