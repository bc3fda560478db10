"""Verdicts kept with their trace: searched once, and again after a search was cancelled."""

from __future__ import annotations

import pytest
from memscope_dashboard.oom_board import OomBoard
from memscope_dashboard.store import TraceStore

from memscope.errors import UsageError
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import OUT_OF_MEMORY


def test_a_search_runs_once_and_is_begun_again_after_it_was_cancelled(shipped: TraceStore) -> None:
    analysis = shipped.analysis(OUT_OF_MEMORY)
    board = OomBoard(analysis.opinions(0), shipped.jobs)
    (event,) = board.events
    assert board.verdict(event).remedies.found == ()
    with board._turn:
        assert board.search(event).state == "waiting"
        board.close()
        assert board._running[event].wait(WAIT_S)
        assert board._running[event].progress.state == "cancelled"
    assert board.wait(event, WAIT_S).state == "done"
    assert board.verdict(event).remedies.found
    assert board.verdict(event) is board.verdict(event)


def test_only_failed_requests_are_judged(shipped: TraceStore) -> None:
    board = OomBoard(shipped.analysis(OUT_OF_MEMORY).opinions(0), shipped.jobs)
    with pytest.raises(UsageError, match="not an out-of-memory error"):
        board.verdict(0)
