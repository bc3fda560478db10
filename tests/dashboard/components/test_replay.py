"""The table of replays, one row each, and what stands around it: verification, the search, progress, notes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from memscope_dashboard.components.replay import (
    RECORDED_KEY,
    curve_key,
    curve_positions,
    label_of,
    replay_table,
    verify_badge,
    verify_panel,
)
from memscope_dashboard.jobs import Progress
from memscope_dashboard.query import Query
from memscope_dashboard.replay_board import ReplayAsked, ReplayBoard, ReplayOutcome
from memscope_dashboard.store import TraceStore
from plotly.utils import PlotlyJSONEncoder

from memscope.replay.compare import compare
from memscope.replay.verify.divergence import Divergence
from memscope.replay.verify.verify import DeviceVerification
from memscope.trace.container import write_container
from memscope.units import format_bytes
from tests.dashboard.pages import text_of
from tests.training_trace import training_trace


def test_a_curve_keeps_its_colour_whatever_is_done_first() -> None:
    names = [("caching", ""), ("caching", "max_split_size_mb:64"), ("lower-bound", None)]
    assert list(curve_positions(names).values()) == [0, 1, 0]


def test_a_replay_without_settings_is_named_by_its_strategy() -> None:
    assert label_of("lower-bound", None) == "lower-bound"
    assert label_of("caching", "") == "caching · default settings"
    assert curve_key("caching", "max_split_size_mb:64") == "caching max_split_size_mb:64"


def test_the_recording_stands_first_and_what_is_to_come_last(board_store: TraceStore) -> None:
    board = ReplayBoard(board_store.analysis("train.memscope").device(0), board_store.jobs)
    comparison = compare(board.device.lifetimes, ["lower-bound"])
    asked: list[tuple[str, str | None]] = [("caching", ""), ("lower-bound", None)]
    outcomes = [None, ReplayOutcome("lower-bound", None, comparison.results[0], None)]
    rows: list[Any] = replay_table(comparison, asked, outcomes).children[1].children
    assert [getattr(row, "data-curve", None) for row in rows] == [RECORDED_KEY, "lower-bound", None]
    recorded = board.comparison(board.state(ReplayAsked(("lower-bound",)))).recorded
    assert recorded.peak_reserved_bytes is not None
    assert format_bytes(recorded.peak_reserved_bytes) in text_of(rows[0])
    assert format_bytes(comparison.results[0].peak_reserved_bytes) in text_of(rows[1])
    assert text_of(rows[2]) == "cachingdefault settings"
    assert rows[2].className == "to-come"


def test_the_badge_tells_exact_from_not_comparable_from_diverged(board_store: TraceStore) -> None:
    analysis = board_store.analysis("train.memscope")
    done, query = Progress("done"), Query("train.memscope", 0, 3)
    exact = DeviceVerification(0, True, 62_114, 62_114)
    unclear = dataclasses.replace(exact, exact=False, not_comparable="segment events were not recorded")
    apart = dataclasses.replace(exact, exact=False, first_divergence=Divergence(7, "0x10", "0x20", "another block"))
    assert text_of(verify_badge(exact, done)) == "● exact: 62,114 events replayed as recorded"
    partly = dataclasses.replace(exact, n_events_compared=1, skipped=("the final blocks",))
    assert text_of(verify_badge(partly, done)) == "● exact: 1 event replayed as recorded · not all compared"
    assert "exact" not in text_of(verify_badge(exact, done, is_dry_run=True))
    assert verify_badge(unclear, done).className == "warn"
    assert "segment events" in text_of(verify_panel(analysis, unclear, done, query))
    assert verify_badge(apart, done).className == "bad"
    panel = verify_panel(analysis, apart, done, query)
    for word in ("event 7", "0x10", "0x20", "another block"):
        assert word in text_of(panel)
    assert "event=7" in json.dumps(panel, cls=PlotlyJSONEncoder)
    assert "verifying" in text_of(verify_badge(None, Progress("running")))
    assert "broke" in text_of(verify_panel(analysis, None, Progress("failed", problem="broke"), query))


def test_a_dry_runs_badge_says_what_it_proves(tmp_path: Path) -> None:
    trace = training_trace()
    dry = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, source="dry-run"))
    store = TraceStore([write_container(dry, tmp_path / "dry.memscope")])
    exact = DeviceVerification(0, True, 10, 10)
    words = text_of(verify_panel(store.analysis("dry.memscope"), exact, Progress("done"), Query("dry.memscope", 0)))
    assert "not the prediction" in words
