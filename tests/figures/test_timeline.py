"""The timeline's data and picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from memscope.figures.frame import byte_axis
from memscope.figures.scrubber import scrubber_figure
from memscope.figures.theme import DARK, LIGHT
from memscope.figures.timeline import timeline_figure
from memscope.figures.timeline_data import timeline_data, x_of_events
from memscope.units import GiB, MiB, format_bytes
from tests.oracles import REAL, needs_shared
from tests.training_trace import HOSTILE, training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def texts(figure_json: str) -> list[str]:
    layout = json.loads(figure_json)["layout"]
    return [note["text"] for note in layout["annotations"]]


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


def test_the_first_shape_is_the_line_of_the_moment(analysis: Analysis) -> None:
    shape = timeline_figure(analysis.device(0), LIGHT, moment=33).layout.shapes[0]
    assert (shape.x0, shape.x1, shape.visible) == (33, 33, True)


def test_peak_oom_and_capacity_are_marked_and_named() -> None:
    analysis = Analysis(training_trace(total_bytes=64 * MiB))
    figure = timeline_figure(analysis.device(0), DARK)
    drawn = json.loads(figure.to_json())
    peak = format_bytes(analysis.peak(0).allocated_bytes)
    assert f"<b>peak {peak}</b>" in texts(figure.to_json())
    (oom,) = [trace for trace in drawn["data"] if trace.get("name") == "out of memory"]
    assert oom["customdata"] == ["512.0 MiB"]
    assert oom["marker"]["color"] == DARK.red
    assert any("capacity 64.0 MiB" in text for text in texts(figure.to_json()))


def test_a_capacity_far_above_is_named_but_does_not_flatten_the_picture() -> None:
    figure = timeline_figure(Analysis(training_trace(total_bytes=80 * GiB)).device(0), LIGHT)
    assert any("↑ capacity 80.0 GiB" in text for text in texts(figure.to_json()))
    assert figure.layout.yaxis.range[1] < 100


def test_an_unknown_capacity_is_not_drawn() -> None:
    figure = timeline_figure(Analysis(training_trace(total_bytes=None)).device(0), LIGHT)
    assert not any("capacity" in text for text in texts(figure.to_json()))


def test_steps_and_phases_are_named(analysis: Analysis) -> None:
    found = texts(timeline_figure(analysis.device(0), LIGHT).to_json())
    assert "step 0" in found
    assert any(text.startswith("for") for text in found)


def test_layers_carry_their_names_where_they_are_thick(analysis: Analysis) -> None:
    assert "weights" in texts(timeline_figure(analysis.device(0), LIGHT).to_json())


def test_scrubber_spans_exactly_the_events(analysis: Analysis) -> None:
    figure = scrubber_figure(analysis.device(0), LIGHT)
    assert list(figure.layout.xaxis.range) == [-1, analysis.trace.n_events - 1]


@pytest.mark.parametrize(("size", "unit"), [(5, "B"), (3 * MiB, "MiB"), (81 * GiB, "GiB"), (0, "B")])
def test_byte_axis_has_few_round_ticks(size: int, unit: str) -> None:
    axis = byte_axis(size)
    assert axis.unit_name == unit
    assert 1 <= len(axis.tick_values) <= 7
    assert axis.tick_values[-1] * axis.unit_bytes <= max(size, 1)


@needs_shared
def test_a_trace_of_twenty_thousand_events_stays_small() -> None:
    analysis = load(REAL / "lm-train-torch2.6.pickle.gz")
    assert len(timeline_figure(analysis.device(0), LIGHT).to_json()) < 400_000


def test_names_from_the_trace_are_not_markup() -> None:
    trace = training_trace()
    analysis = Analysis(trace)
    assert HOSTILE in trace.strings[int(trace.owners.label_id[-1])]
    assert "<script" not in timeline_figure(analysis.device(0), LIGHT).to_json()
