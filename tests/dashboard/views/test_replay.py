"""The replay view without a browser: what it begins, what it shows on the way, and what it says at the end."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from dash.exceptions import PreventUpdate
from memscope_dashboard.components.replay import (
    limits_note,
    tuning_panel,
)
from memscope_dashboard.query import Query
from memscope_dashboard.replay_board import ReplayAsked
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import replay as view
from memscope_dashboard.views.replay import asked_of, strategy_options
from plotly.utils import PlotlyJSONEncoder

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay import sweep
from memscope.replay.compare import compare
from memscope.replay.result import ReplayResult
from memscope.replay.strategies import STRATEGIES
from memscope.replay.sweep import ReplayJob
from memscope.replay.verify.verify import verify_device
from memscope.units import format_bytes
from memscope.words.labels import sentence
from memscope.words.replay import tuning_words, verdict_words
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import text_of
from tests.oracles import REAL, needs_shared

SUBJECT = {"trace": "train.memscope", "device": 0}


TWO = ["caching", "lower-bound"]
"""Strategies that need few kernels, for what does not depend on which are replayed."""


def show(store: TraceStore, trigger: str | None = None, **controls: Any) -> dict[str, Any]:
    return view.update(store, trigger, SUBJECT, "light", **{"strategies": TWO, **controls})


def finished(store: TraceStore, **controls: Any) -> dict[str, Any]:
    """What the view shows once nothing goes on any more."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        shown = show(store, **controls)
        if shown.get("replay-tick.disabled", True):
            return shown
        time.sleep(0.02)
    raise AssertionError(shown["replay-progress.children"])


class Gate:
    """Lets replays through one at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Semaphore(0)
        self.calls: list[tuple[str, str | None]] = []
        real = sweep.replay

        def gated(lifetimes: Any, strategy: str, options: Any) -> ReplayResult:
            self.calls.append((strategy, options.conf))
            assert self.open.acquire(timeout=WAIT_S)
            return real(lifetimes, strategy, options)

        monkeypatch.setattr(sweep, "replay", gated)

    def let(self, n: int) -> None:
        self.open.release(n)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def until_done(store: TraceStore, n: int, **controls: Any) -> dict[str, Any]:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        shown = show(store, **controls)
        if f"{n} of " in shown["replay-progress.children"]:
            return shown
        time.sleep(0.02)
    raise AssertionError(shown["replay-progress.children"])


def test_the_view_begins_by_itself_and_shows_what_is_done_by_now(board_store: TraceStore, gate: Gate) -> None:
    first = show(board_store)
    assert text_of(first["replay-title.children"]) == "Replaying the recorded requests: 0 of 6 done"
    assert first["replay-tick.disabled"] is False
    gate.let(2)
    shown = until_done(board_store, 2)
    assert shown["replay-progress.children"] == "2 of 6 replays"
    assert shown["replay-meter.value"] == pytest.approx(100 * 2 / 6)
    assert shown["replay-cancel.style"] == {}
    assert [trace.name for trace in shown["replay-graph.figure"].data] == [
        "caching · default settings · exact",
        "caching · expandable_segments:True · exact",
        "recorded",
    ]
    gate.let(4)
    end = finished(board_store)
    assert not end["replay-progress.children"]
    assert end["replay-cancel.style"] == end["replay-resume.style"] == {"display": "none"}


def test_the_end_says_what_the_command_line_says(board_store: TraceStore) -> None:
    shown = finished(board_store)
    comparison = compare(board_store.analysis("train.memscope").device(0).lifetimes, TWO)
    assert text_of(shown["replay-title.children"]) == sentence(verdict_words(comparison.verdict))
    words = text_of(shown["replay-table.children"])
    for result in comparison.results:
        assert format_bytes(result.peak_reserved_bytes) in words
        assert (result.conf or result.strategy) in words
    found = verify_device(board_store.analysis("train.memscope").device(0).lifetimes)
    assert found.first_divergence is not None
    assert f"diverges after {found.n_events_compared:,} equal events" in text_of(shown["replay-verify.children"])
    assert found.first_divergence.reason in text_of(shown["replay-verify-panel.children"])
    assert "replayed under the recorded settings" in shown["replay-check.children"]
    assert len(json.dumps(shown["replay-graph.figure"], cls=PlotlyJSONEncoder)) < 500_000


def test_every_strategy_of_the_registry_is_offered_and_asked_for_by_default(board_store: TraceStore) -> None:
    offered = [item["value"] for group in strategy_options() for item in group["items"]]
    assert sorted(offered) == sorted(STRATEGIES)
    board = view.board_of(board_store, Query("train.memscope", 0))
    assert {job.strategy for job in board.replays(ReplayAsked())} == set(STRATEGIES)


def test_cancelled_replays_are_not_taken_up_before_one_asks_for_it(board_store: TraceStore, gate: Gate) -> None:
    show(board_store)
    gate.let(1)
    until_done(board_store, 1)
    show(board_store, "replay-cancel")
    gate.let(1)
    shown = finished(board_store)
    n_done = shown["replay-progress.children"]
    assert n_done == "Cancelled: 2 of 6 replays done."
    assert text_of(shown["replay-title.children"]).startswith("After 2 of 6 replays: ")
    assert shown["replay-resume.style"] == {}
    assert len(gate.calls) == 2
    gate.let(4)
    show(board_store, "replay-resume")
    assert text_of(finished(board_store)["replay-title.children"])[0] != "A"
    assert len(gate.calls) == len(set(gate.calls)) == 6


def test_a_setting_is_added_without_replaying_the_others_again(board_store: TraceStore, gate: Gate) -> None:
    gate.let(100)
    finished(board_store)
    n_before = len(gate.calls)
    shown = finished(board_store, confs=["max_split_size_mb:64", "max_split_size_mb:64 "])
    assert gate.calls[n_before:] == [("caching", "max_split_size_mb:64")]
    assert "max_split_size_mb:64" in text_of(shown["replay-table.children"])
    again = finished(board_store)
    assert "max_split_size_mb:64" not in text_of(again["replay-table.children"])
    assert len(gate.calls) == n_before + 1


def test_results_outlive_a_look_at_another_trace(board_store: TraceStore, gate: Gate) -> None:
    gate.let(100)
    finished(board_store)
    n_before = len(gate.calls)
    other = {"trace": "other.memscope", "device": 0}
    view.update(board_store, None, other, "light", strategies=["lower-bound"])
    finished(board_store)
    assert [call for call in gate.calls[n_before:] if call[0] == "caching"] == []


def test_a_page_that_waits_does_not_drop_what_another_page_asked_for(board_store: TraceStore, gate: Gate) -> None:
    show(board_store)
    for _ in range(3):
        show(board_store, "replay-tick", strategies=["lower-bound"])
    gate.let(6)
    finished(board_store)
    assert [strategy for strategy, _ in gate.calls] == ["caching"] * 5 + ["lower-bound"]


def test_what_cannot_be_read_is_said_at_its_field(board_store: TraceStore, gate: Gate) -> None:
    shown = show(board_store, confs=["max_split_size_mb:banana", "max_split_size_mb:64"], capacity="24 parsecs")
    assert "banana" in shown["replay-confs.error"]
    assert "24 parsecs" in shown["replay-capacity.error"]
    assert gate.calls == []
    asked, errors = asked_of(["lower-bound"], ["max_split_size_mb:64"], " ")
    assert asked == ReplayAsked(("lower-bound",))
    assert "none of the chosen strategies" in (errors["confs"] or "")
    assert asked_of(None, None, "24GB")[0].capacity_bytes == 24 * 10**9
    gate.let(100)


def test_a_replay_that_is_refused_says_why_in_its_row(board_store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sweep.replay

    def refuses(lifetimes: Any, strategy: str, options: Any) -> ReplayResult:
        if options.conf == "max_split_size_mb:64":
            raise UsageError("these settings are not covered")
        return real(lifetimes, strategy, options)

    monkeypatch.setattr(sweep, "replay", refuses)
    shown = finished(board_store, confs=["max_split_size_mb:64"])
    assert "these settings are not covered" in text_of(shown["replay-table.children"])
    assert not shown["replay-progress.children"]


def test_a_defect_ends_the_comparison_with_a_message_and_keeps_what_is_done(
    board_store: TraceStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = sweep.replay

    def breaks(lifetimes: Any, strategy: str, options: Any) -> ReplayResult:
        if strategy == "lower-bound":
            raise IndexError("off by one")
        return real(lifetimes, strategy, options)

    monkeypatch.setattr(sweep, "replay", breaks)
    shown = finished(board_store)
    assert shown["replay-progress.children"].startswith("Failed after 5 of 6 replays: IndexError: off by one")
    assert shown["replay-resume.style"] == {}
    assert "off by one" in caplog.text


def test_a_capacity_that_is_too_small_is_shown_with_where_it_failed(board_store: TraceStore) -> None:
    shown = finished(board_store, capacity="20MiB")
    words = text_of(shown["replay-table.children"])
    assert "out of memory at event" in words
    assert "asking for" in words
    assert "On a device of 20.0 MiB (given)" in shown["replay-note.children"]
    assert "no check" in shown["replay-check.children"]
    crosses = [trace for trace in shown["replay-graph.figure"].data if trace.mode == "markers"]
    assert crosses
    assert limits_note(Limits(None, 0, source="not known")).startswith("No limit")


def test_a_tick_without_news_changes_nothing(board_store: TraceStore) -> None:
    seen = finished(board_store)["replay-seen.data"]
    with pytest.raises(PreventUpdate):
        show(board_store, "replay-tick", seen=seen)
    assert "replay-table.children" in show(board_store, None, seen=seen)


def test_the_search_gives_a_line_to_copy_or_says_why_not(board_store: TraceStore) -> None:
    finished(board_store)
    begun = show(board_store, "replay-tune")
    assert begun["replay-tune.disabled"] is True
    shown = finished(board_store)
    words = text_of(shown["replay-tuned.children"])
    assert "Best setting found" in words
    assert "lower bound" in words
    assert shown["replay-tune.disabled"] is True
    assert finished(board_store, capacity="60MiB")["replay-tune.disabled"] is False
    tuning = view.board_of(board_store, Query("train.memscope", 0)).state(ReplayAsked(tuple(TWO))).tuning
    assert tuning is not None
    assert sentence(tuning_words(tuning)) in words
    best = tuning.results[0]
    gain = dataclasses.replace(best, peak_reserved_bytes=1 << 20, conf="max_split_size_mb:64")
    panel = tuning_panel(dataclasses.replace(tuning, best=gain))
    assert f"{tuning.variable}=max_split_size_mb:64" in text_of(panel)


@needs_shared
def test_a_state_without_events_has_nothing_to_replay() -> None:
    store = TraceStore([REAL / "rlhf-three-pools-no-trace.pickle.gz"])
    shown = view.update(store, None, {"trace": store.trace_ids[0], "device": 0}, "dark")
    assert "nothing to replay" in shown["replay-title.children"]
    assert shown["replay-tick.disabled"]
    assert shown["replay-table.children"] is shown["replay-verify.children"] is None
    assert store.jobs.n_active == 0


def test_harmful_settings_are_warned_of(board_store: TraceStore) -> None:
    shown = finished(board_store, confs=["expandable_segments:True,max_split_size_mb:128"])
    assert "is known to harm" in text_of(shown["replay-notes.children"])


def test_a_board_that_is_not_kept_any_longer_ends_its_work(trace_files: list[Path], gate: Gate) -> None:
    store = TraceStore(trace_files, n_kept=1)
    show(store)
    board = view.board_of(store, Query("train.memscope", 0))
    store.analysis("other.memscope")
    gate.let(100)
    store.close(WAIT_S)
    assert board.state(ReplayAsked(tuple(TWO))).comparing.state == "cancelled"
    assert isinstance(board.replays(ReplayAsked(tuple(TWO)))[0], ReplayJob)
