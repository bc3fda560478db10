"""The verdict on the overview: at once what is known, from a job what would have helped."""

from __future__ import annotations

from pathlib import Path

import pytest
from dash.exceptions import PreventUpdate
from memscope_dashboard.components import oom_card
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.oom.verdict import oom_headline
from memscope.trace.container import write_container
from memscope.words.techniques import technique_words
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import FITTING, OUT_OF_MEMORY, links, moment_data, text_of
from tests.oom.planted import PLANTS, plant
from tests.oracles import ORACLE, needs_shared


def test_the_verdict_is_there_at_once_and_what_would_help_follows(shipped: TraceStore) -> None:
    style, choices, chosen, choice_style, verdict, evidence, shown = oom_card.update(
        shipped, "moment", moment_data(shipped, OUT_OF_MEMORY), None, None
    )
    whole = shipped.analysis(OUT_OF_MEMORY).oom()
    assert style == {}
    assert chosen == str(whole.event)
    assert [choice["value"] for choice in choices] == [chosen]
    assert choice_style == {"display": "none"}
    headline = oom_headline(whole)
    assert f"{headline[0].upper()}{headline[1:]}" in text_of(verdict)
    assert all(text[1:] in text_of(evidence) for text in whole.evidence)
    assert links(verdict) == [
        f"/{view}{Query(OUT_OF_MEMORY, 0, whole.event).search()}" for view in ("map", "timeline", "fragmentation")
    ]
    board = oom_card.board_of(shipped, Query(OUT_OF_MEMORY, 0))
    board.wait(whole.event or 0, WAIT_S)
    changes, is_done = oom_card.update_changes(shipped, shown)
    assert is_done
    assert whole.remedies.found
    for change in whole.remedies.found:
        assert change.text[1:] in text_of(changes)
    assert whole.techniques
    for technique in whole.techniques:
        assert technique_words(technique) in text_of(changes)
        assert technique.how in text_of(changes)
        where = f"/whatif{Query(OUT_OF_MEMORY, 0).search()}&apply={technique.technique.replace(':', '%3A')}"
        assert where in links(changes)


def test_the_verdict_is_not_drawn_twice(shipped: TraceStore) -> None:
    data = moment_data(shipped, OUT_OF_MEMORY)
    shown = oom_card.update(shipped, "moment", data, None, None)[-1]
    with pytest.raises(PreventUpdate):
        oom_card.update(shipped, "moment", data, None, shown)


def test_where_nothing_failed_there_is_no_card(shipped: TraceStore) -> None:
    style, *_, shown = oom_card.update(shipped, "moment", moment_data(shipped, FITTING), None, None)
    assert style == {"display": "none"}
    assert shown is None
    assert oom_card.update_changes(shipped, None) == [None, True]


@pytest.mark.parametrize("name", PLANTS)
def test_every_cause_can_be_shown(name: str, tmp_path: Path) -> None:
    store = TraceStore([write_container(plant(name, 3).trace(), tmp_path / "planted.memscope")])
    data = moment_data(store, "planted.memscope")
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
    data = moment_data(store, name)
    events = [int(event) for event in store.analysis(name).device(0).oom_events]
    _, choices, chosen, choice_style, *_, shown = oom_card.update(store, "moment", data, None, None)
    assert [int(choice["value"]) for choice in choices] == events
    assert chosen == str(events[0])
    assert choice_style == {}
    assert oom_card.update(store, "overview-oom-choice", data, str(events[7]), shown)[2] == str(events[7])
    there = data | {"event": events[5]}
    assert oom_card.update(store, "moment", there, chosen, shown)[2] == str(events[5])
    store.close(WAIT_S)
