"""The picture of a comparison of replays."""

from __future__ import annotations

from memscope.figures.replay import replay_figure
from memscope.figures.theme import LIGHT
from memscope.replay.compare import Comparison
from memscope.units import GiB
from tests.replay.comparisons import FAILED, OTHER, bound_of, comparison_of, result_of


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
