"""Which two moments are compared, and the comparisons that are kept for every page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memscope_dashboard.compare_board import (
    PEAK,
    Pair,
    board_of,
    event_text,
    moment_choices,
    moment_named,
    step_text,
    step_words,
)
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.compare.difference import By
from memscope.compare.moments import highest_in_step
from memscope.errors import UsageError
from tests.dashboard.conftest import TRACES, WAIT_S

TRAIN, GENERATE, OOM = "tiny-llama-train.memscope", "tiny-gpt2-generate.memscope", "tiny-out-of-memory.memscope"


@pytest.fixture(scope="module")
def three() -> Iterator[TraceStore]:
    store = TraceStore([TRACES / name for name in (TRAIN, GENERATE, OOM)])
    yield store
    store.close(WAIT_S)


@pytest.mark.parametrize(
    ("looked_at", "ids"), [(TRAIN, (TRAIN, GENERATE)), (GENERATE, (TRAIN, GENERATE)), (OOM, (TRAIN, OOM))]
)
def test_the_usual_is_the_first_trace_and_the_one_looked_at(
    three: TraceStore, looked_at: str, ids: tuple[str, str]
) -> None:
    pair = Pair.usual(three, Query(looked_at, 0))
    assert (pair.a, pair.b, pair.at_a, pair.at_b) == (*ids, PEAK, PEAK)


def test_a_single_trace_is_no_comparison() -> None:
    store = TraceStore([TRACES / TRAIN])
    pair = Pair.usual(store, Query(TRAIN, 0))
    assert pair.is_one_moment
    assert not Pair.of({"at_a": "step:0"}, pair).is_one_moment
    store.close()


def test_a_pair_goes_through_the_browser_and_back(three: TraceStore) -> None:
    usual = Pair.usual(three, Query(TRAIN, 0))
    pair = Pair.of({"a": OOM, "at_b": event_text(7)}, usual)
    assert Pair.from_data(pair.data()) == pair
    assert (pair.a, pair.b, pair.at_b) == (OOM, GENERATE, "event:7")
    assert pair.swapped() == Pair(GENERATE, "event:7", OOM, PEAK, 0)
    assert pair.swapped().swapped() == pair


def test_moments_are_the_peak_a_step_or_an_event(three: TraceStore) -> None:
    device = three.analysis(TRAIN).device(0)
    assert moment_named(device, PEAK).event == device.peak().event
    assert moment_named(device, step_text("0")).event == highest_in_step(device, "0").event
    assert moment_named(device, event_text(100)).event == 100
    assert moment_named(device, event_text(-1)).allocated_bytes == 0


@pytest.mark.parametrize("text", ["", "nonsense", "event:", "event:x", "event:1e9", "event:" + "9" * 40, "step:nine"])
def test_what_is_no_moment_is_refused(three: TraceStore, text: str) -> None:
    with pytest.raises(UsageError):
        moment_named(three.analysis(TRAIN).device(0), text)


def test_a_list_of_moments_has_the_steps_and_what_is_chosen(three: TraceStore) -> None:
    device = three.analysis(TRAIN).device(0)
    found = {one["value"]: one["label"] for one in moment_choices(device, event_text(1234))}
    assert list(found) == [PEAK, "step:0", "step:1", "step:2", "event:1234"]
    assert found["step:1"] == "step 1"
    assert found["event:1234"] == "event 1,234"
    assert step_words("Step 3") == "Step 3"


def test_a_pair_is_compared_once_for_every_page(three: TraceStore) -> None:
    board, pair = board_of(three), Pair(TRAIN, "step:0", TRAIN, "step:2", 0)
    assert board is board_of(three)
    board.ask(pair)
    assert board.wait(pair, WAIT_S).state == "done"
    found = board.compared(pair)
    assert found is not None
    assert found is board.compared(pair)
    assert found.difference() is found.difference(By.HOLDER)
    assert found.difference(By.SITE).delta_bytes == found.difference().delta_bytes
    assert found.tree(is_by_module=True, own_only=True) is found.tree(is_by_module=True, own_only=False)
    assert found.tree(is_by_module=False, own_only=True) is not found.tree(is_by_module=False, own_only=False)


def test_what_cannot_be_compared_says_why(three: TraceStore) -> None:
    board, pair = board_of(three), Pair(TRAIN, "step:99", OOM, PEAK, 0)
    board.ask(pair)
    failed = board.wait(pair, WAIT_S)
    assert failed.state == "failed"
    assert "has no step '99'" in failed.problem
    assert board.compared(pair) is None
    board.close()
