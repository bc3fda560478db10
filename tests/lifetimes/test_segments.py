"""The segments of a device over its events."""

from __future__ import annotations

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.segments import segment_timeline
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.verify.exactness import assert_exact


def test_unmapped_memory_is_small_or_large_as_what_lay_in_it() -> None:
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=900 * MiB, seed=3)
    small, large = recorder.malloc(1000, stream=5), recorder.malloc(2 * MiB, stream=5)
    recorder.start_recording()
    recorder.naive.free(large)
    recorder.naive.free(small)
    # All 20 MiB of the large reservation go back, as ten handles of a small one might.
    recorder.naive.empty_cache()
    trace = recorder.trace()
    timeline = DeviceLifetimes(trace, 0).timeline
    assert sorted(zip(timeline.size_bytes.tolist(), timeline.key_is_large[timeline.key].tolist(), strict=True)) == [
        (2 * MiB, False),
        (20 * MiB, True),
    ]
    assert_exact(trace)


def test_unmap_belongs_to_the_reservation_that_was_there_at_the_time() -> None:
    recorder = NaiveRecorder("expandable_segments:True", expandable=True, total=900 * MiB)
    place = recorder.naive.next_address
    recorder.naive.free(recorder.malloc(1000, stream=5))
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    recorder.naive.free(recorder.malloc(9 * MiB, stream=7))
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    recorder.malloc(500, stream=5)
    trace = recorder.trace()
    timeline = DeviceLifetimes(trace, 0).timeline
    assert timeline.n_misfits == 0
    assert timeline.key_is_large[timeline.key].tolist() == [False, False, True, True, False]
    assert_exact(trace)


def test_segments_before_the_first_event_are_the_final_ones_undone() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_FREE, address=100 * MiB, size_bytes=20 * MiB)
    builder.add_event(Action.SEGMENT_ALLOC, address=200 * MiB, size_bytes=2 * MiB)
    segment = builder.add_segment(address=200 * MiB, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=200 * MiB, size_bytes=2 * MiB, requested_bytes=0, state=2)
    timeline = segment_timeline(builder.build(TraceMetadata(source="synthetic")), 0)
    assert timeline.n_misfits == 0
    assert timeline.start_bytes == 20 * MiB
    assert [timeline.segments_at(event).address.tolist() for event in (-1, 0, 1)] == [[100 * MiB], [], [200 * MiB]]
    assert timeline.deltas(0, 2).tolist() == [-20 * MiB, 2 * MiB]


def test_segment_that_no_event_gave_back_is_a_misfit() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=100 * MiB, size_bytes=512)
    builder.add_event(Action.SEGMENT_ALLOC, address=100 * MiB, size_bytes=2 * MiB)
    timeline = segment_timeline(builder.build(TraceMetadata(source="synthetic")), 0)
    assert (timeline.n_misfits, timeline.first_misfit) == (1, 1)


def test_pool_of_what_lay_at_the_place_of_a_final_segment_before_is_not_recorded() -> None:
    recorder = NaiveRecorder(has_pool_ids=False)
    place = recorder.naive.next_address
    recorder.naive.free(recorder.malloc(4 * MiB))
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    assert recorder.malloc(3 * MiB, pool=1) == place
    trace = recorder.trace()
    timeline = DeviceLifetimes(trace, 0).timeline
    assert timeline.action.tolist() == [Action.SEGMENT_ALLOC, Action.SEGMENT_FREE, Action.SEGMENT_ALLOC]
    assert timeline.key_is_pool_recorded[timeline.key].tolist() == [False, False, True]
    assert timeline.key_pool_id[timeline.key[2]] == trace.segments.pool_id[0] > 0
