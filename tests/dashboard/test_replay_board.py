"""The board of replays: each once, kept without its series, dropped when something else is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memscope_dashboard.replay_board import ReplayAsked, ReplayBoard
from memscope_dashboard.store import TraceStore

from memscope.replay.compare import compare
from memscope.replay.strategies import STRATEGIES
from tests.dashboard.conftest import WAIT_S

BOUND = ReplayAsked(("lower-bound",))


@pytest.fixture
def board(board_store: TraceStore) -> Iterator[ReplayBoard]:
    board = ReplayBoard(board_store.analysis("train.memscope").device(0), board_store.jobs)
    yield board
    board.close()


def test_what_is_asked_for_is_replayed_and_kept_without_its_series(board: ReplayBoard) -> None:
    board.compare(BOUND)
    assert board._compare_job is not None
    assert board._compare_job.wait(WAIT_S)
    (outcome,) = board.state(BOUND).done
    (expected,) = compare(board.device.lifetimes, BOUND.strategies).results
    assert outcome.result is not None
    assert outcome.result.peak_reserved_bytes == expected.peak_reserved_bytes
    assert len(outcome.result.usage.reserved_bytes) == 0
    assert outcome.curve is not None
    assert board.comparison(board.state(BOUND)).results == (outcome.result,)


def test_work_that_waits_makes_way_for_what_is_asked_for_now(board: ReplayBoard) -> None:
    with board._turn:
        board.compare(BOUND)
        first = board._compare_job
        board.compare(BOUND)
        assert board._compare_job is first
        board.compare(ReplayAsked(("caching",)))
        assert first is not None
        assert first.wait(WAIT_S)
        assert first.progress.state == "cancelled"
        assert board.is_comparing
        board.close()


def test_settings_mean_nothing_to_strategies_without_them(board: ReplayBoard) -> None:
    assert [job.options.conf for job in board.replays(ReplayAsked(("lower-bound",), ("max_split_size_mb:64",)))] == [
        None
    ]
    assert not BOUND.takes_confs
    assert ReplayAsked().takes_confs
    asked = ReplayAsked(("caching",), ("max_split_size_mb:64", "max_split_size_mb:64"))
    confs = [job.options.conf for job in board.replays(asked)]
    assert confs.count("max_split_size_mb:64") == 1
    assert {job.strategy for job in board.replays(ReplayAsked())} == set(STRATEGIES)
