"""Findings and the verdict on the overview: at once what is known, from a job what would have helped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dash import dcc
from dash.exceptions import PreventUpdate
from memscope_dashboard.components import finding_list, oom_card
from memscope_dashboard.oom_board import OomBoard
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.errors import UsageError
from memscope.oom.verdict import oom_headline
from memscope.trace.container import write_container
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.test_navigation import text_of
from tests.oom.planted import PLANTS, plant
from tests.oracles import ORACLE, needs_shared

TRACES = Path(__file__).resolve().parents[2] / "traces"
TRACE = "tiny-out-of-memory.memscope"
FITTING = "tiny-llama-train.memscope"


@pytest.fixture(scope="module")
def shipped() -> Iterator[TraceStore]:
    store = TraceStore([TRACES / TRACE, TRACES / FITTING])
    yield store
    store.close(WAIT_S)


def data_of(store: TraceStore, trace_id: str = TRACE) -> dict[str, Any]:
    return Query(trace_id).resolved(store).data()


def links(components: Any) -> list[str]:
    parts = [part for one in components if one is not None for part in [one, *one._traverse()]]
    return [part.href for part in parts if isinstance(part, dcc.Link)]


def test_each_finding_leads_to_the_view_and_moment_that_prove_it(shipped: TraceStore) -> None:
    data = data_of(shipped)
    found = shipped.analysis(TRACE).opinions(0).findings.findings
    listed = finding_list.update(shipped, data)
    assert found
    assert links(listed) == [f"/{one.view}{Query(TRACE, 0, one.event).search()}" for one in found]
    for one in found:
        assert one.title in text_of(listed)
        assert one.severity.label in text_of(listed)


def test_a_finding_pins_what_shows_it(shipped: TraceStore) -> None:
    found = shipped.analysis(TRACE).opinions(0).findings.findings
    listed = finding_list.update(shipped, data_of(shipped))
    parts = [part for one in listed if one is not None for part in [one, *one._traverse()]]
    ids = [part.id for part in parts if isinstance(getattr(part, "id", None), dict) and part.id["type"] == "finding"]
    assert [found[one["index"]].kind for one in ids] == [one.kind for one in found]
    assert "leak" in {one.kind for one in found}
    for one in ids:
        rows = found[one["index"]].rows
        expected = {"trace": TRACE, "device": 0, "row": rows[0]} if len(rows) else None
        assert (json.loads(one["pin"]) if one["pin"] else None) == expected


def test_without_findings_the_list_says_so_and_what_was_not_looked_for(shipped: TraceStore) -> None:
    words = text_of(finding_list.update(shipped, data_of(shipped, FITTING)))
    assert "Nothing found that needs attention." in words
    assert "Leaks were not looked for" in words


def test_the_verdict_is_there_at_once_and_what_would_help_follows(shipped: TraceStore) -> None:
    style, choices, chosen, choice_style, verdict, evidence, shown = oom_card.update(
        shipped, "moment", data_of(shipped), None, None
    )
    whole = shipped.analysis(TRACE).oom()
    assert style == {}
    assert chosen == str(whole.event)
    assert [choice["value"] for choice in choices] == [chosen]
    assert choice_style == {"display": "none"}
    headline = oom_headline(whole)
    assert f"{headline[0].upper()}{headline[1:]}" in text_of(verdict)
    assert all(text[1:] in text_of(evidence) for text in whole.evidence)
    assert links(verdict) == [
        f"/{view}{Query(TRACE, 0, whole.event).search()}" for view in ("map", "timeline", "fragmentation")
    ]
    board = oom_card.board_of(shipped, Query(TRACE, 0))
    board.wait(whole.event or 0, WAIT_S)
    changes, is_done = oom_card.update_changes(shipped, shown)
    assert is_done
    assert whole.remedies.found
    for change in whole.remedies.found:
        assert change.text[1:] in text_of(changes)


def test_the_verdict_is_not_drawn_twice(shipped: TraceStore) -> None:
    data = data_of(shipped)
    shown = oom_card.update(shipped, "moment", data, None, None)[-1]
    with pytest.raises(PreventUpdate):
        oom_card.update(shipped, "moment", data, None, shown)


def test_where_nothing_failed_there_is_no_card(shipped: TraceStore) -> None:
    style, *_, shown = oom_card.update(shipped, "moment", data_of(shipped, FITTING), None, None)
    assert style == {"display": "none"}
    assert shown is None
    assert oom_card.update_changes(shipped, None) == [None, True]


@pytest.mark.parametrize("name", PLANTS)
def test_every_cause_can_be_shown(name: str, tmp_path: Path) -> None:
    store = TraceStore([write_container(plant(name, 3).trace(), tmp_path / "planted.memscope")])
    data = data_of(store, "planted.memscope")
    parts = oom_card.update(store, "moment", data, None, None)
    expected = store.analysis("planted.memscope").oom(0)
    if expected.event is None:
        assert parts[0] == {"display": "none"}
        return
    assert expected.verdict.words.lower() in text_of(parts[4]).lower()
    oom_card.board_of(store, Query("planted.memscope", 0)).wait(expected.event, WAIT_S)
    words = text_of(oom_card.update_changes(store, parts[-1])[0])
    for change in expected.remedies.found:
        assert (change.line or change.text[1:]) in words
    store.close(WAIT_S)


@needs_shared
def test_of_several_failed_requests_one_is_chosen() -> None:
    name = "oom_default.pickle.gz"
    store = TraceStore([ORACLE / "torch-2.11.0" / name])
    data = data_of(store, name)
    events = [int(event) for event in store.analysis(name).device(0).oom_events]
    _, choices, chosen, choice_style, *_, shown = oom_card.update(store, "moment", data, None, None)
    assert [int(choice["value"]) for choice in choices] == events
    assert chosen == str(events[0])
    assert choice_style == {}
    assert oom_card.update(store, "overview-oom-choice", data, str(events[7]), shown)[2] == str(events[7])
    there = data | {"event": events[5]}
    assert oom_card.update(store, "moment", there, chosen, shown)[2] == str(events[5])
    store.close(WAIT_S)


def test_a_search_runs_once_and_is_begun_again_after_it_was_cancelled(shipped: TraceStore) -> None:
    analysis = shipped.analysis(TRACE)
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
    board = OomBoard(shipped.analysis(TRACE).opinions(0), shipped.jobs)
    with pytest.raises(UsageError, match="not an out-of-memory error"):
        board.verdict(0)
