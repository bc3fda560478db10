"""Answers made in the background: each once, other work makes way, and failures are kept until asked again."""

from __future__ import annotations

from threading import Event, Lock

import pytest
from memscope_dashboard.board import Board
from memscope_dashboard.jobs import Jobs, Report

from memscope.errors import UsageError
from tests.dashboard.conftest import WAIT_S


def test_an_answer_is_made_once() -> None:
    board: Board[str, int] = Board(Jobs())
    made: list[str] = []

    def work(report: Report) -> int:
        report(0, 2)
        made.append("x")
        return 7

    assert board.answer("x") is None
    assert board.progress("x").state == "done"
    board.ask("x", work)
    assert board.wait("x", WAIT_S).state == "done"
    assert board.ask("x", work).state == "done"
    assert (board.answer("x"), made) == (7, ["x"])


def test_an_answer_may_be_that_there_is_none() -> None:
    board: Board[str, None] = Board(Jobs())
    made: list[str] = []
    for _ in range(2):
        board.ask("x", lambda _report: made.append("x"))
        assert board.wait("x", WAIT_S).state == "done"
    assert made == ["x"]


def test_another_question_makes_work_give_way_and_what_gave_way_is_begun_again() -> None:
    jobs, go = Jobs(), Event()
    board: Board[str, str] = Board(jobs)

    def slow(report: Report) -> str:
        go.wait(WAIT_S)
        report(1, 2)
        return "slow"

    board.ask("slow", slow)
    board.ask("fast", lambda _report: "fast")
    go.set()
    assert board.wait("fast", WAIT_S).state == "done"
    assert board.answer("fast") == "fast"
    assert board.answer("slow") is None
    board.ask("slow", slow)
    assert board.wait("slow", WAIT_S).state == "done"
    assert board.answer("slow") == "slow"


def test_what_failed_is_only_tried_again_where_that_is_asked_for() -> None:
    board: Board[str, int] = Board(Jobs())
    tries: list[int] = []

    def work(_report: Report) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise UsageError("not yet")
        return 7

    board.ask("x", work)
    failed = board.wait("x", WAIT_S)
    assert (failed.state, failed.problem) == ("failed", "not yet")
    assert board.ask("x", work).state == "failed"
    assert len(tries) == 1
    board.ask("x", work, again=True)
    assert board.wait("x", WAIT_S).state == "done"
    assert board.answer("x") == 7


def test_only_the_last_few_answers_are_kept() -> None:
    board: Board[int, int] = Board(Jobs(), n_kept=2)
    for number in range(3):
        board.ask(number, lambda _report, number=number: number * number)
        board.wait(number, WAIT_S)
    assert [board.answer(number) for number in range(3)] == [None, 1, 4]


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_what_waits_for_its_turn_is_ended(end: str) -> None:
    turn = Lock()
    board: Board[str, int] = Board(Jobs(), turn)
    with turn:
        assert board.ask("x", lambda _report: 1).state == "waiting"
        getattr(board, end)()
        assert board.wait("x", WAIT_S).state == "cancelled"
    assert board.answer("x") is None


def test_work_that_was_told_to_end_is_not_waited_for_where_it_is_asked_for_again() -> None:
    board: Board[str, int] = Board(Jobs())
    go = Event()

    def slow(report: Report) -> int:
        go.wait(WAIT_S)
        report(1, 2)
        return 7

    board.ask("x", slow)
    board.cancel()
    board.ask("x", slow)
    go.set()
    assert board.wait("x", WAIT_S).state == "done"
    assert board.answer("x") == 7
