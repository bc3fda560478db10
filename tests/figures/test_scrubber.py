"""The whole run in a strip."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.figures.scrubber import scrubber_figure
from memscope.figures.theme import LIGHT
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import BlockState
from memscope.units import MiB
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


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
