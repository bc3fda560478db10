"""A device's usage over events, reduced to what a picture can show; and the whole run in the dashboard's scrubber."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.figures.theme import LIGHT
from memscope.figures.timeline_data import drawn_ooms, scrubber_figure, timeline_data, x_of_events
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.units import MiB
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


@pytest.mark.parametrize("n_buckets", [3, 10_000])
def test_the_layers_sum_to_active_bytes_at_every_point(analysis: Analysis, n_buckets: int) -> None:
    data = timeline_data(analysis.device(0), n_buckets=n_buckets)
    usage = analysis.device(0).usage
    index = data.event - usage.first_event + 1
    assert np.array_equal(sum(data.layers.values()), usage.active_bytes[index])
    assert np.array_equal(data.active_bytes, usage.active_bytes[index])
    assert all(np.all(layer >= 0) for layer in data.layers.values())


def test_the_peak_survives_any_reduction(analysis: Analysis) -> None:
    usage = analysis.device(0).usage
    data = timeline_data(analysis.device(0), n_buckets=2)
    assert len(data.x) < len(usage)
    assert data.allocated_bytes.max() == usage.allocated_bytes.max()
    assert usage.reserved_bytes is not None
    assert data.reserved_bytes is not None
    assert data.reserved_bytes.max() == usage.reserved_bytes.max()


def test_a_window_is_drawn_in_more_detail_than_the_whole(analysis: Analysis) -> None:
    data = timeline_data(analysis.device(0), window=(20.0, 40.0), n_buckets=6)
    assert data.event.tolist() == list(range(19, 42))


def test_time_axis_counts_seconds_and_never_goes_back(analysis: Analysis) -> None:
    x = x_of_events(analysis.device(0), "time")
    assert x[0] == x[1] == 0
    assert x[11] == pytest.approx(0.010)
    assert np.all(np.diff(x) >= 0)


def test_without_times_events_are_counted() -> None:
    analysis = Analysis(training_trace(with_times=False))
    assert not analysis.device(0).has_times
    assert x_of_events(analysis.device(0), "time").tolist() == x_of_events(analysis.device(0), "event").tolist()


def test_scrubber_spans_exactly_the_events(analysis: Analysis) -> None:
    figure = scrubber_figure(analysis.device(0), LIGHT)
    assert list(figure.layout.xaxis.range) == [-1, analysis.trace.n_events - 1]


def test_the_peak_and_the_failed_request_are_marked_where_they_lie(analysis: Analysis) -> None:
    peak, device = analysis.peak(0), analysis.device(0)
    marked = {trace.marker.symbol: trace for trace in scrubber_figure(device, LIGHT).data if trace.mode == "markers"}
    assert (marked["triangle-up"].x[0], marked["triangle-up"].y[0]) == (peak.event, peak.allocated_bytes)
    # Out of memory is marked on the line of reserved memory: 42 MiB then.
    assert (list(marked["x"].x), list(marked["x"].y)) == ([int(device.oom_events[0])], [42 * MiB])


def test_without_events_it_is_said_that_only_one_moment_is_known() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 40, size_bytes=20 * MiB, is_large=True)
    size = {"size_bytes": 20 * MiB, "requested_bytes": 20 * MiB}
    builder.add_block(segment, address=1 << 40, state=BlockState.ACTIVE_ALLOCATED, **size)
    figure = scrubber_figure(Analysis(builder.build(TraceMetadata(source="synthetic"))).device(0), LIGHT)
    assert [note.text for note in figure.layout.annotations] == ["no events were recorded: only one moment is known"]
    assert not figure.data


def test_of_many_failures_those_in_sight_are_marked_to_the_last() -> None:
    builder = TraceBuilder()
    for _ in range(900):
        builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=2 * MiB)
        builder.add_event(Action.OOM, address=-1, size_bytes=512 * MiB)
        builder.add_event(Action.FREE_REQUESTED, address=1 << 40, size_bytes=2 * MiB)
        builder.add_event(Action.FREE_COMPLETED, address=1 << 40, size_bytes=2 * MiB)
    device = Analysis(builder.build(TraceMetadata(source="synthetic"))).device(0)
    (marked,) = [
        one for one in scrubber_figure(device, LIGHT).data if one.mode == "markers" and one.marker.symbol == "x"
    ]
    assert (marked.x[0], marked.x[-1]) == (device.oom_events[0], device.oom_events[-1])
    assert np.diff(marked.x).max() <= 4 * 4
    late = timeline_data(device, window=(3_200.0, 3_599.0), n_buckets=3)
    expected = device.oom_events[device.oom_events >= 3_200]
    assert np.isin(expected, late.event).all()


def test_every_failure_is_drawn_or_of_very_many_so_many_as_lie_evenly() -> None:
    ooms = np.arange(0, 14_000, 7, dtype=np.int64)
    assert drawn_ooms(ooms[:300]).tolist() == ooms[:300].tolist()
    drawn = drawn_ooms(ooms)
    assert (len(drawn), drawn[0], drawn[-1]) == (300, ooms[0], ooms[-1])
    assert np.diff(drawn).max() <= np.diff(drawn).min() + 7
