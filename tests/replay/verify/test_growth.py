"""Ends that a recording does not name: the decisions tell them, or they are as the rules say."""

import pytest

from memscope.replay.verify._growth import EXTENTS, SLACK
from memscope.replay.verify._pinned import follow
from memscope.replay.verify.verify import verify
from memscope.trace.schema import Action
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.verify.exactness import assert_exact, state_before


def test_growth_that_needs_no_map_is_followed():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, max_split=32 * MiB)
    recorder.naive.free(recorder.malloc(120 * MiB))
    # The free block is too large for the request by the split limit, so the request grows: into that very block.
    recorder.malloc(80 * MiB)
    trace = recorder.trace()
    assert list(trace.action).count(Action.SEGMENT_MAP) == 1
    assert_exact(trace)


def test_reservation_made_by_a_request_that_failed_is_used_later():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=200 * MiB)
    recorder.naive.next_address = 0x7F4000000000
    recorder.malloc(60 * MiB)
    recorder.naive.next_address = 0x7F2000000000
    assert recorder.malloc(190 * MiB) is None
    address = recorder.malloc(30 * MiB)
    assert address == 0x7F2000000000
    assert_exact(recorder.trace())


def test_choice_between_free_blocks_tells_where_a_reservation_ends():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=240 * MiB)
    hole, _, tail = recorder.malloc(120 * MiB), recorder.malloc(20 * MiB), recorder.malloc(80 * MiB)
    recorder.naive.free(hole)
    recorder.naive.free(tail)
    # 60 MiB of addresses are left behind the tail: with them it would be the larger one.
    assert recorder.malloc(30 * MiB) == hole
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=200 * MiB)
    hole, _, tail = recorder.malloc(120 * MiB), recorder.malloc(20 * MiB), recorder.malloc(60 * MiB)
    recorder.naive.free(hole)
    recorder.naive.free(tail)
    assert recorder.malloc(30 * MiB) == tail
    inferred = assert_exact(recorder.trace())
    assert inferred[EXTENTS] >= 1


def test_decisions_tell_how_far_a_block_from_before_the_recording_reaches():
    recorder = NaiveRecorder()
    held, beside = recorder.malloc(5 * MiB), recorder.malloc(4 * MiB)
    rest = recorder.malloc(11 * MiB)
    recorder.naive.free(held)
    # The block of 5 MiB is taken whole by a request of 4.5, and what follows it is freed.
    held = recorder.malloc(4 * MiB + MiB // 2)
    recorder.naive.free(rest)
    recorder.naive.free(beside)
    recorder.start_recording()
    recorder.malloc(15 * MiB + MiB // 4)
    recorder.naive.free(held)
    recorder.malloc(18 * MiB)
    inferred = assert_exact(recorder.trace())
    assert inferred[SLACK] == 1


@pytest.mark.parametrize(("more", "is_exact"), [(MiB // 2, True), (2 * MiB, False), (-512, False)])
def test_active_bytes_may_be_more_by_what_old_blocks_can_hold(more, is_exact):
    recorder = NaiveRecorder()
    held, beside = recorder.malloc(5 * MiB), recorder.malloc(4 * MiB)
    recorder.naive.free(beside)
    recorder.start_recording()
    recorder.naive.events.append(("snapshot", 0, 5 * MiB + more, 0, 0))
    recorder.naive.free(held)
    result = verify(recorder.trace())
    assert result.exact == is_exact


def test_large_block_from_before_the_recording_is_not_split():
    recorder = NaiveRecorder(max_split=20 * MiB)
    recorder.naive.free(recorder.malloc(30 * MiB))
    held = recorder.malloc(22 * MiB)
    recorder.start_recording()
    # The 8 MiB behind the 22 are part of the block: what is asked for does not fit anywhere.
    recorder.malloc(3 * MiB)
    recorder.naive.free(held)
    recorder.malloc(3 * MiB)
    assert_exact(recorder.trace())


def test_map_of_fewer_bytes_than_the_request_needs_diverges():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True)
    recorder.malloc(30 * MiB)
    # 30 MiB need two handles of 20 MiB, and get them at once.
    ((action, address, size_bytes, *owner), alloc) = recorder.naive.events
    assert size_bytes == 40 * MiB
    halves = [(action, place, 20 * MiB, *owner) for place in (address, address + 20 * MiB)]
    recorder.naive.events[:] = [*halves, alloc]
    divergence = follow(state_before(recorder.trace()))
    assert divergence is not None
    assert divergence.reason == "other memory is mapped"
    assert "41,943,040 bytes" in divergence.got
