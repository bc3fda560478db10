"""The table of replays: one row each, the recording first, those still to come last."""

from __future__ import annotations

from typing import Any

from memscope_dashboard.components.replay_table import RECORDED_KEY, curve_key, curve_positions, label_of, replay_table
from memscope_dashboard.replay_board import ReplayAsked, ReplayBoard, ReplayOutcome
from memscope_dashboard.store import TraceStore

from memscope.replay.compare import compare
from memscope.units import format_bytes
from tests.dashboard.pages import text_of


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
