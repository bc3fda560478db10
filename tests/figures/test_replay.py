"""Replays: what each setting would have reserved for the same requests, side by side and over the run."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.figures.replay import (
    CURVE_COLORS,
    DrawnCurve,
    ReplayCurve,
    curve_color,
    curves_figure,
    curves_words,
    reduced_curve,
    replay_figure,
)
from memscope.figures.theme import DARK, LIGHT
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.compare import Comparison
from memscope.units import GiB
from tests.replay.comparisons import FAILED, OTHER, bound_of, comparison_of, result_of

MiB = 1 << 20


def usage(n: int, reserved: np.ndarray | None = None) -> UsageSeries:
    random = np.random.default_rng(3)
    active = random.integers(1, 50, n + 1) * MiB
    return UsageSeries(0, active, active, active, active + 7 * MiB if reserved is None else reserved)


def drawn(curve: ReplayCurve, label: str = "bfc", exactness: str = "modelled", position: int = 0) -> DrawnCurve:
    return DrawnCurve(label, label, exactness, exactness, position, curve)  # type: ignore[arg-type]


def test_a_long_run_is_reduced_and_keeps_its_highest_and_its_last_moment() -> None:
    reserved = np.full(100_001, 60 * MiB)
    reserved[77_777] = 99 * MiB
    curve = reduced_curve(usage(100_000, reserved))
    assert curve is not None
    assert len(curve.index) < 1000
    assert curve.reserved_bytes.max() == 99 * MiB
    assert curve.index[curve.reserved_bytes.argmax()] == 77_777
    assert curve.index[-1] == 100_000
    assert np.array_equal(curve.bytes_of("unused"), curve.reserved_bytes - curve.active_bytes)


def test_without_reserved_bytes_there_is_no_curve() -> None:
    series = usage(10)
    assert reduced_curve(UsageSeries(0, series.active_bytes, series.active_bytes, series.active_bytes, None)) is None


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_recording_lies_on_top_of_named_replays(theme: object) -> None:
    curve = reduced_curve(usage(50))
    assert curve is not None
    one = drawn(curve, "caching · <b>x</b>", "exact", 1)
    figure = curves_figure(curve, [one, drawn(curve), drawn(curve, "lower-bound", "bound")], np.arange(51.0), theme)
    assert [trace.name for trace in figure.data][-1] == "recorded"
    assert [trace.line.dash for trace in figure.data[:3]] == ["solid", "dash", "dot"]
    assert "&lt;b&gt;" in figure.data[0].hovertemplate
    assert figure.data[0].line.color == CURVE_COLORS[theme.name][1]
    assert np.array_equal(np.asarray(figure.data[0].customdata), curve.reserved_bytes)


def test_a_curve_far_beyond_the_recording_leaves_the_picture_and_is_named() -> None:
    low, high = (reduced_curve(usage(10, np.full(11, size * MiB))) for size in (60, 600))
    assert low is not None
    assert high is not None
    figure = curves_figure(low, [drawn(high, "binning")], np.arange(11.0), LIGHT)
    assert figure.layout.yaxis.range[1] < 100
    assert "↑ binning 600.0 MiB" in [note.text for note in figure.layout.annotations]
    alone = curves_figure(None, [drawn(high, "binning")], np.arange(11.0), LIGHT)
    assert alone.layout.yaxis.range[1] > 600


def test_the_capacity_is_a_line_where_it_is_near() -> None:
    curve = reduced_curve(usage(10, np.full(11, 60 * MiB)))
    near = curves_figure(curve, [], np.arange(11.0), LIGHT, capacity_bytes=64 * MiB)
    far = curves_figure(curve, [], np.arange(11.0), LIGHT, capacity_bytes=640 * MiB)
    unused = curves_figure(curve, [], np.arange(11.0), LIGHT, capacity_bytes=64 * MiB, measure="unused")
    assert [len(figure.layout.shapes) for figure in (near, far, unused)] == [2, 1, 1]
    assert "above" in far.layout.annotations[0].text


def test_running_out_of_memory_is_a_red_cross_at_the_end() -> None:
    curve = reduced_curve(usage(10), has_failed=True)
    assert curve is not None
    figure = curves_figure(None, [drawn(curve)], np.arange(11.0), LIGHT)
    (cross,) = [trace for trace in figure.data if trace.mode == "markers"]
    assert cross.marker.color == LIGHT.red
    assert list(cross.x) == [10]


def test_nothing_to_draw_is_said() -> None:
    figure = curves_figure(None, [], np.zeros(1), DARK)
    assert figure.layout.annotations[0].text == "nothing is replayed"
    assert curves_words(1, True) == "Reserved memory over the run: the recording and 1 replay."
    assert curve_color("light", "bound", 3) is None
    assert curve_color("dark", "exact", 13) == CURVE_COLORS["dark"][1]


def drawn_words(comparison: Comparison) -> str:
    return " ".join(note.text for note in replay_figure(comparison, LIGHT).layout.annotations)


def test_the_recording_and_every_replay_are_drawn_and_the_bound_is_a_line() -> None:
    comparison = comparison_of(10 * GiB, result_of("", 10 * GiB), result_of(OTHER, 8 * GiB), bound_of(7 * GiB))
    words = drawn_words(comparison)
    for label in ("recorded", "recorded settings, replayed", OTHER, "lower bound", "equal", "−20.0 %"):
        assert label in words
    figure = replay_figure(comparison, LIGHT)
    assert len(figure.layout.shapes) == 1
    assert len(figure.layout.annotations) == 2 * 4


def test_what_was_not_measured_has_no_bar() -> None:
    assert len(replay_figure(comparison_of(None, result_of("", GiB)), LIGHT).layout.annotations) == 2
    assert not replay_figure(comparison_of(None), LIGHT).data


def test_a_replay_that_runs_out_of_memory_is_crossed() -> None:
    comparison = comparison_of(10 * GiB, result_of("", 9 * GiB, oom=FAILED))
    assert "out of memory" in drawn_words(comparison)
    assert [trace.mode for trace in replay_figure(comparison, LIGHT).data if trace.type == "scatter"] == ["markers"]
