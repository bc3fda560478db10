"""The comparison of replays: its lines, its verdict, and what it says about its own error."""

from __future__ import annotations

import dataclasses

import pytest

from memscope.analysis import Analysis
from memscope.figures.replay import (
    RECORDED,
    REPLAYED,
    ReplayLine,
    calibration_words,
    change_words,
    replay_figure,
    replay_finding,
)
from memscope.figures.replay_lines import replay_lines
from memscope.figures.theme import LIGHT
from memscope.replay.limits import recorded_capacity
from memscope.units import GiB
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def real_lines() -> list[ReplayLine]:
    return replay_lines(Analysis(training_trace()), 0)


def lines_of(real: list[ReplayLine], recorded: int | None, again: int, best: int, bound: int) -> list[ReplayLine]:
    """Lines with chosen peaks, on results of a real replay."""
    result = real[1].result
    return [
        ReplayLine(RECORDED, "", None, recorded, bound),
        ReplayLine(REPLAYED, "exact", result, again, bound),
        ReplayLine("better:True", "exact", result, best, bound),
        ReplayLine("lower bound", "bound", result, bound, bound),
    ]


def test_the_settings_are_compared_once_each(real_lines: list[ReplayLine]) -> None:
    labels = [line.label for line in real_lines]
    assert labels[:2] == [RECORDED, REPLAYED]
    assert labels[-1] == "lower bound"
    assert len(set(labels)) == len(labels)
    assert "default settings" not in labels  # the recorded ones are the default ones


def test_a_saving_is_named_with_both_sizes(real_lines: list[ReplayLine]) -> None:
    words = replay_finding(lines_of(real_lines, 10 * GiB, 10 * GiB, 8 * GiB, 7 * GiB))
    assert words == "better:True would have reserved 8.0 GiB instead of 10.0 GiB: 20.0 % less"


def test_the_error_of_the_replay_is_not_counted_as_a_saving(real_lines: list[ReplayLine]) -> None:
    lines = lines_of(real_lines, 10 * GiB, 8 * GiB, 8 * GiB, 6 * GiB)
    assert replay_finding(lines).startswith("No setting tried here would have helped: 8.0 GiB")
    assert "20.0 % below the recorded one" in calibration_words(lines)


def test_near_the_bound_fragmentation_is_not_the_problem(real_lines: list[ReplayLine]) -> None:
    lines = lines_of(real_lines, 10 * GiB, 10 * GiB, 10 * GiB, int(9.8 * GiB))
    assert replay_finding(lines).startswith("Fragmentation is not the problem")
    assert "to the byte" in calibration_words(lines)


def test_what_was_not_measured_is_said(real_lines: list[ReplayLine]) -> None:
    lines = lines_of(real_lines, None, 10 * GiB, 10 * GiB, 9 * GiB)
    assert "not known" in calibration_words(lines)
    failed = [lines[0], ReplayLine("x", "", None, None, None, problem="cannot")]
    assert replay_finding(failed) == "No setting could be replayed"
    assert "could not be replayed" in calibration_words(failed)


@pytest.mark.parametrize(
    ("peak", "words"),
    [(10 * GiB, "equal"), (11 * GiB, "+10.0 %"), (9 * GiB, "−10.0 %"), (10 * GiB + 1, "almost equal")],
)
def test_changes_are_signed(peak: int, words: str) -> None:
    assert change_words(ReplayLine("x", "exact", None, peak, peak), 10 * GiB) == words


def test_every_measured_line_is_drawn(real_lines: list[ReplayLine]) -> None:
    figure = replay_figure(real_lines, LIGHT)
    drawn = " ".join(note.text for note in figure.layout.annotations)
    for line in real_lines:
        if line.peak_reserved_bytes is not None:
            assert line.label in drawn
    assert len(figure.layout.shapes) == 1


def test_the_device_of_the_recording_limits_its_replays() -> None:
    trace = training_trace(total_bytes=5 * GiB)
    metadata = dataclasses.replace(trace.metadata, extra={"context_bytes_modelled": 512 << 20})
    known = Analysis(dataclasses.replace(trace, metadata=metadata))
    assert recorded_capacity(known.device(0)) == (5 * GiB, 512 << 20, "recorded")
    assert recorded_capacity(Analysis(training_trace(total_bytes=None)).device(0)) == (None, 0, "not known")


def test_a_device_too_small_for_a_setting_is_shown_as_out_of_memory() -> None:
    lines = replay_lines(Analysis(training_trace(total_bytes=30 << 20)), 0)
    again = next(line for line in lines if line.label == REPLAYED)
    assert again.result is not None
    assert again.result.oom is not None
    assert not again.is_candidate
    assert "out of memory" in " ".join(note.text for note in replay_figure(lines, LIGHT).layout.annotations)
