"""Replays in words, and that every surface says the same."""

from __future__ import annotations

import dataclasses
import io

import pytest
from memscope_dashboard.jobs import Progress
from memscope_dashboard.replay_board import BoardState
from memscope_dashboard.views.replay import title
from rich.console import Console

from memscope.advise.tune import Tuning
from memscope.analysis import Analysis
from memscope.device.limits import Limits
from memscope.replay.compare import Comparison
from memscope.replay.result import ReplayResult
from memscope.reports.html import replay_section
from memscope.reports.replay import comparison_json, print_comparison
from memscope.units import GiB
from memscope.words.labels import sentence
from memscope.words.replay import (
    calibration_words,
    change_words,
    limits_words,
    oom_words,
    result_label,
    signed_bytes,
    tuning_words,
    verdict_words,
)
from tests.replay.comparisons import FAILED, OTHER, bound_of, comparison_of, result_of
from tests.training_trace import training_trace

PARTING = comparison_of(10 * GiB, result_of("", 11 * GiB), result_of(OTHER, int(10.1 * GiB)), bound_of(9 * GiB))
"""Counted from the replay alone, the best setting would seem to save 8.2 %."""


def words_of(comparison: Comparison) -> str:
    return verdict_words(comparison.verdict)


def test_the_command_line_the_page_and_the_dashboard_say_the_same() -> None:
    words = "none of these settings helps much: reserved memory is within 1.1 GiB of what the requests themselves need"
    analysis = Analysis(training_trace())
    assert comparison_json(analysis, PARTING)["verdict"] == words
    printed = io.StringIO()
    print_comparison(analysis, PARTING, Console(file=printed, width=400))
    assert words in printed.getvalue()
    page = replay_section(PARTING)
    assert f"<h3>{sentence(words)}</h3>" in page
    assert "8.2 %" not in page
    idle = Progress("done")
    state = BoardState(PARTING.limits, (), idle, idle, None, idle, None)
    assert title(PARTING, dataclasses.replace(state, outcomes=(_done(PARTING),))) == sentence(words)


def _done(comparison: Comparison) -> object:
    return comparison.results[0]


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (
            comparison_of(10 * GiB, result_of("", 10 * GiB), result_of(OTHER, 8 * GiB)),
            f"of these, {OTHER} would reserve 2.0 GiB less (20.0 %)",
        ),
        (
            comparison_of(
                10 * GiB,
                result_of(OTHER, 10 * GiB),
                result_of("", 8 * GiB),
                conf=OTHER,
            ),
            "of these, the default settings would reserve 2.0 GiB less (20.0 %)",
        ),
        (comparison_of(10 * GiB, result_of("", 10 * GiB)), "none of these settings helps"),
        (
            comparison_of(None, result_of("", 10 * GiB)),
            "the recorded peak of reserved memory was not measured, so nothing can be compared with it",
        ),
        (comparison_of(10 * GiB, bound_of(1 * GiB)), "no setting of PyTorch's allocator was replayed"),
        (
            comparison_of(10 * GiB, result_of("", 9 * GiB, oom=FAILED)),
            "every replay of PyTorch's allocator ran out of memory",
        ),
        (
            comparison_of(
                10 * GiB, result_of("", 9 * GiB, oom=FAILED), result_of(OTHER, 8 * GiB), limits=Limits(9 * GiB)
            ),
            f"the recorded settings run out of memory on this device; of these, {OTHER} would fit, reserving 8.0 GiB",
        ),
    ],
)
def test_each_verdict_has_its_sentence(comparison: Comparison, words: str) -> None:
    assert words_of(comparison) == words


@pytest.mark.parametrize(
    ("recorded", "again", "words"),
    [
        (10 * GiB, 10 * GiB, "the recorded one to the byte"),
        (10 * GiB, 8 * GiB, "20.0 % below the recorded one"),
        (10 * GiB, 11 * GiB, "10.0 % above the recorded one"),
        (None, 11 * GiB, "not recorded"),
        (0, 11 * GiB, "where none was recorded"),
    ],
)
def test_the_error_of_the_replay_is_said(recorded: int | None, again: int, words: str) -> None:
    assert words in calibration_words(comparison_of(recorded, result_of("", again)))


def test_without_a_replay_of_the_recorded_settings_the_error_is_not_known() -> None:
    assert "not known" in calibration_words(comparison_of(10 * GiB, result_of(OTHER, 10 * GiB)))


@pytest.mark.parametrize(
    ("peak", "words"),
    [(10 * GiB, "equal"), (11 * GiB, "+10.0 %"), (9 * GiB, "−10.0 %"), (10 * GiB + 1, "almost equal")],
)
def test_changes_are_signed(peak: int, words: str) -> None:
    assert change_words(peak, 10 * GiB) == words
    assert change_words(peak, None) == ""


def test_a_loss_has_a_minus_sign() -> None:
    assert (signed_bytes(GiB), signed_bytes(-GiB)) == ("1.0 GiB", "−1.0 GiB")


def test_replays_are_named_by_their_settings() -> None:
    labels = [result_label(PARTING, result) for result in PARTING.results]
    assert labels == ["recorded settings, replayed", OTHER, "lower bound"]
    assert result_label(comparison_of(GiB, conf=OTHER), result_of("", GiB)) == "default settings"


def test_limits_say_how_it_is_known() -> None:
    assert limits_words(Limits(None, 0, source="not known")) == (
        "no limit: the device's memory was not recorded, and no capacity was given"
    )
    held = Limits(10 * GiB, GiB, source="recorded")
    assert limits_words(held) == "on a device of 10.0 GiB (recorded), 1.0 GiB of it held by others"


def test_running_out_of_memory_says_where_and_what_was_free() -> None:
    assert oom_words(FAILED) == "out of memory at event 7, asking for 2.0 GiB with 1.0 GiB free on the device"
    inside = dataclasses.replace(FAILED, event=-1, reserved_free_bytes=2 * GiB, largest_free_block_bytes=GiB)
    assert oom_words(inside).startswith("out of memory before the first event")
    assert oom_words(inside).endswith(" and 2.0 GiB free in reserved memory (largest block 1.0 GiB)")


def tuning_of(baseline: ReplayResult | None, best: ReplayResult | None, bound_bytes: int) -> Tuning:
    comparison = comparison_of(10 * GiB, limits=Limits(80 * GiB))
    return Tuning(
        0, comparison.recorded, comparison.limits, baseline, best, bound_of(bound_bytes), (), "PYTORCH_ALLOC_CONF", ()
    )


@pytest.mark.parametrize(
    ("baseline", "best", "bound", "words"),
    [
        (10, 8, 7, "saves 2.0 GiB (20.0 %): 10.0 GiB → 8.0 GiB"),
        (10, 10, 9.9, "fragmentation is not your problem: reserved is within 1.0 % of the lower bound"),
        (10, 10, 8, "no setting of the allocator helps: the best saves 0 B; reserved is 25.0 % above the lower bound"),
        (10, None, 12, "no setting avoids running out of memory: the requests alone need 12.0 GiB"),
    ],
)
def test_each_end_of_a_search_has_its_sentence(baseline: int, best: int | None, bound: float, words: str) -> None:
    again = result_of("", baseline * GiB)
    chosen = None if best is None else result_of(OTHER, best * GiB)
    assert tuning_words(tuning_of(again, chosen, int(bound * GiB))) == words


def test_recorded_settings_that_run_out_of_memory_are_said_by_the_search() -> None:
    failed = result_of("", 10 * GiB, oom=FAILED)
    found = tuning_words(tuning_of(failed, result_of(OTHER, 8 * GiB), GiB))
    assert found == "the settings as recorded run out of memory; these need 8.0 GiB"
