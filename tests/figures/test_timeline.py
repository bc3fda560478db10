"""The timeline's picture."""

from __future__ import annotations

import json

import pytest

from memscope.analysis import Analysis, load
from memscope.figures.theme import DARK, LIGHT
from memscope.figures.timeline import timeline_figure
from memscope.units import GiB, MiB, format_bytes
from tests.oracles import REAL, needs_shared
from tests.training_trace import HOSTILE, training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def texts(figure_json: str) -> list[str]:
    layout = json.loads(figure_json)["layout"]
    return [note["text"] for note in layout["annotations"]]


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


@needs_shared
def test_a_trace_of_twenty_thousand_events_stays_small() -> None:
    analysis = load(REAL / "lm-train-torch2.6.pickle.gz")
    assert len(timeline_figure(analysis.device(0), LIGHT).to_json()) < 400_000


def test_names_from_the_trace_are_not_markup() -> None:
    trace = training_trace()
    analysis = Analysis(trace)
    assert HOSTILE in trace.strings[int(trace.owners.label_id[-1])]
    assert "<script" not in timeline_figure(analysis.device(0), LIGHT).to_json()
