"""The series in a few numbers, against sums worked by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from memscope.fragmentation.over_time import outline, summarise
from memscope.fragmentation.series import FragmentationSeries, fragmentation_series
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.replay.recordings import Recorder
from tests.training_trace import training_trace

MiB = 1 << 20
BASE = 1 << 40


def four_events() -> Trace:
    """20 MiB are taken; 10 of them used; then another 5; then the 10 are free again. At 0, 1, 2 and 10 seconds."""
    builder = TraceBuilder()
    second = 1_000_000_000
    builder.add_event(Action.SEGMENT_ALLOC, address=BASE, size_bytes=20 * MiB, time_ns=0)
    builder.add_event(Action.ALLOC, address=BASE, size_bytes=10 * MiB, time_ns=second)
    builder.add_event(Action.ALLOC, address=BASE + 10 * MiB, size_bytes=5 * MiB, time_ns=2 * second)
    builder.add_event(Action.FREE_COMPLETED, address=BASE, size_bytes=10 * MiB, time_ns=10 * second)
    segment = builder.add_segment(address=BASE, size_bytes=20 * MiB, is_large=True)
    for start, end, state in ((0, 10, 2), (10, 15, 0), (15, 20, 2)):
        size = (end - start) * MiB
        requested = 0 if state else size
        builder.add_block(segment, address=BASE + start * MiB, size_bytes=size, requested_bytes=requested, state=state)
    return builder.build(TraceMetadata(source="synthetic", alloc_conf=""))


def series_of(trace: Trace) -> FragmentationSeries:
    series = fragmentation_series(DeviceLifetimes(trace, 0))
    assert series is not None
    return series


def test_means_and_extremes_are_those_worked_by_hand() -> None:
    trace = four_events()
    found = summarise(series_of(trace), time_ns=trace.time_ns, available_bytes=30 * MiB)
    # Utilisation after the events: 0, 1/2, 3/4, 1/4.
    assert found.mean_utilisation_by_event_frac == pytest.approx(1.5 / 4)
    # 0 for a second, 1/2 for a second, 3/4 for eight; the last event has no duration.
    assert found.mean_utilisation_by_time_frac == pytest.approx(6.5 / 10)
    assert (found.lowest_utilisation_frac, found.lowest_utilisation_event) == (0.0, 0)
    assert found.efficiency_frac == pytest.approx(15 / 20)
    # 30 MiB, of which 20 are reserved, can grow by 10: after each event at least 10 MiB can be had.
    assert (found.smallest_largest_request_bytes, found.smallest_largest_request_event) == (10 * MiB, 1)
    assert [(w.event, w.pinned_bytes) for w in found.worst] == [(3, 15 * MiB), (1, 10 * MiB)]
    assert found.worst[0].largest_request_bytes == 10 * MiB


def test_without_times_and_capacity_nothing_is_made_up() -> None:
    found = summarise(series_of(four_events()), time_ns=None, available_bytes=None)
    assert found.mean_utilisation_by_time_frac is None
    assert found.smallest_largest_request_bytes is None
    assert found.worst[0].largest_request_bytes is None


def test_a_device_that_never_reserved_anything_has_no_utilisation() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0)
    found = summarise(series_of(builder.build(TraceMetadata(source="synthetic"))), time_ns=None, available_bytes=None)
    assert found.mean_utilisation_by_event_frac is None
    assert found.lowest_utilisation_frac is None
    assert found.efficiency_frac is None
    assert found.worst == ()


@pytest.mark.parametrize("n_runs", [1, 7, 50, 10**6])
def test_an_outline_keeps_the_extremes_of_each_run(n_runs: int) -> None:
    trace = training_trace()
    lifetimes, series = DeviceLifetimes(trace, 0), series_of(trace)
    found = outline(series, n_runs, available_bytes=64 * MiB)
    assert len(found) == min(n_runs, lifetimes.n_events)
    bounds = [*found.event.tolist(), lifetimes.end_event]
    reserved = lifetimes.usage.reserved_bytes
    assert reserved is not None
    for i, (begin, end) in enumerate(pairwise(bounds)):
        assert found.reserved_bytes[i] == reserved[begin + 1 : end + 1].max()
        assert found.active_bytes[i] == lifetimes.usage.active_bytes[begin + 1 : end + 1].max()
    largest = series.largest_request_bytes(64 * MiB)
    assert found.largest_request_bytes.min() == largest[1:].min()


def test_worst_moments_are_apart_and_in_order() -> None:
    recorder = Recorder()
    recorder.workload(3, 3000)
    series = series_of(recorder.trace())
    found = summarise(series, time_ns=None, available_bytes=None, n_worst=6)
    pinned = series.overall.free_in_split_segments_bytes
    sizes = [worst.pinned_bytes for worst in found.worst]
    assert sizes[0] == pinned.max()
    assert sizes == sorted(sizes, reverse=True)
    assert len({worst.event for worst in found.worst}) == len(found.worst) > 1
    first, second = sorted(series.overall.row_of(worst.event) for worst in found.worst[:2])
    assert pinned[first:second].min() < np.ceil(sizes[0] / 2)
