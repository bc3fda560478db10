"""What techniques make of a run, in the background: the library's own answers, each once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from memscope_dashboard import whatif_board
from memscope_dashboard.store import TraceStore
from memscope_dashboard.whatif_board import WhatIfAsked, WhatIfBoard, WhatIfState, toggled

from memscope.analysis import load
from memscope.errors import UsageError
from memscope.gpus import find_usable_gpu
from memscope.techniques.fit import fit_plan
from memscope.techniques.whatif import what_if, what_if_all
from tests.dashboard.conftest import TRACES, WAIT_S
from tests.dashboard.pages import FITTING


@pytest.fixture
def board() -> Iterator[WhatIfBoard]:
    store = TraceStore([TRACES / FITTING])
    analysis = store.analysis(FITTING)
    yield WhatIfBoard(analysis, analysis.device(0), store.jobs)
    store.close(WAIT_S)


def finished(board: WhatIfBoard, asked: WhatIfAsked) -> WhatIfState:
    """What is known once nothing goes on any more."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        board.ask(asked)
        state = board.state(asked)
        if not state.is_active:
            return state
        time.sleep(0.02)
    raise AssertionError(state)


def test_the_answers_are_the_librarys(board: WhatIfBoard) -> None:
    names = ("optimizer:8bit", "micro-batch:2")
    state = finished(board, WhatIfAsked(names, "T4-16GB"))
    device = load(TRACES / FITTING).device(0)
    assert state.every == what_if_all(device)
    assert state.plan == fit_plan(device, find_usable_gpu("T4-16GB"))
    assert state.applied is not None
    assert state.applied.result == what_if(device, names).together
    assert [one.technique for one in state.applied.changes] == ["optimizer:8bit", "micro-batch:2"]
    assert "AdamW8bit" in state.applied.changes[0].how
    assert state.applied.after.reserved_bytes.max() == state.applied.result.peaks.reserved_bytes
    assert state.applied.before.reserved_bytes.max() == what_if_all(device).baseline.reserved_bytes


def test_an_answer_is_made_once(board: WhatIfBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(*args: object, **options: object) -> object:
        calls.append("x")
        return what_if_all(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(whatif_board, "what_if_all", counted)
    first = finished(board, WhatIfAsked())
    assert finished(board, WhatIfAsked(("micro-batch:2",))).every is first.every
    assert calls == ["x"]


def test_what_cannot_be_asked_is_refused_at_once(board: WhatIfBoard) -> None:
    for asked in (WhatIfAsked(("nonsense",)), WhatIfAsked(("micro-batch:2", "micro-batch:4")), WhatIfAsked((), "T9")):
        with pytest.raises(UsageError):
            board.ask(asked)


def test_what_does_not_apply_fails_and_is_not_tried_again_by_itself(board: WhatIfBoard) -> None:
    asked = WhatIfAsked(("kv:fp8",))
    state = finished(board, asked)
    assert state.applying.state == "failed"
    assert "no key/value cache was seen" in state.applying.problem
    board.ask(asked)
    assert board.state(asked).applying.state == "failed"
    board.ask(asked, again=True)
    assert board.state(asked).applying.state in ("waiting", "running", "failed")


def test_what_is_cancelled_stays_so_until_it_is_asked_for_again(board: WhatIfBoard) -> None:
    asked = WhatIfAsked(("micro-batch:2",))
    board.ask(asked)
    board.cancel(asked)
    board.ask(asked)
    board.wait(asked, WAIT_S)
    assert board.state(asked).applying.state in ("cancelled", "done")
    board.ask(asked, again=True)
    assert finished(board, asked).applied is not None


def test_what_made_way_for_another_question_is_begun_again(board: WhatIfBoard) -> None:
    one, other = WhatIfAsked(("micro-batch:2",)), WhatIfAsked(("micro-batch:2", "optimizer:8bit"))
    for asked in (one, other, one):
        board.ask(asked)
    assert finished(board, one).applied is not None


def test_what_is_closed_ends(board: WhatIfBoard) -> None:
    board.ask(WhatIfAsked())
    board.close()
    board.wait(WhatIfAsked(), WAIT_S)
    assert board.state(WhatIfAsked()).trying.state in ("cancelled", "done")


def test_a_technique_is_put_in_and_taken_out_and_what_clashes_makes_way() -> None:
    assert toggled([], "micro-batch:2") == ["micro-batch:2"]
    assert toggled(["micro-batch:2", "optimizer:sgd"], "micro-batch:2") == ["optimizer:sgd"]
    assert toggled(["micro-batch:2", "optimizer:sgd"], "optimizer:8bit") == ["micro-batch:2", "optimizer:8bit"]
