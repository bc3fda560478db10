"""Every control that chooses a moment, and the state of the page around it."""

from __future__ import annotations

from typing import Any

import pytest
from memscope_dashboard.components.header import trust_update
from memscope_dashboard.components.inspector import inspect
from memscope_dashboard.components.navigation import choose, page_state
from memscope_dashboard.components.scrubber import moment_words
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.units import format_bytes
from tests.oracles import BAD, ORACLE, needs_shared

NOW = {"trace": "train.memscope", "device": 0, "event": 40}


def wanted(**values: Any) -> dict[str, Any]:
    return {"search": "", "trace": "train.memscope", "device": "0", "event": 40, "jump": None} | values


def text_of(component: Any) -> str:
    if component is None:
        return ""
    if isinstance(component, str | int | float):
        return str(component)
    if isinstance(component, list | tuple):
        return "".join(map(text_of, component))
    return text_of(getattr(component, "children", None))


@pytest.mark.parametrize(
    ("trigger", "values", "event"),
    [
        ("go-on", {}, 41),
        ("go-back", {}, 39),
        ("event-input", {"event": 12}, 12),
        ("event-input", {"event": 10**9}, None),
        ("event-input", {"event": -5}, -1),
        ("event-input", {"event": ""}, 40),
        ("jump", {"jump": {"event": 3}}, 3),
    ],
)
def test_controls_move_the_moment(store: TraceStore, trigger: str, values: dict[str, Any], event: int | None) -> None:
    expected = store.analysis("train.memscope").device(0).lifetimes.last_event if event is None else event
    assert choose(store, trigger, NOW, wanted(**values)).event == expected


def test_landmarks(store: TraceStore) -> None:
    analysis = store.analysis("train.memscope")
    (oom,) = analysis.device(0).oom_events
    assert choose(store, "go-peak", NOW, wanted()).event == analysis.peak(0).event
    assert choose(store, "go-end", NOW, wanted()).event == analysis.end(0).event
    assert choose(store, "go-oom", NOW, wanted()).event == oom
    assert choose(store, "go-oom", NOW | {"event": analysis.end(0).event}, wanted()).event == oom


def test_another_trace_starts_at_its_own_peak(store: TraceStore) -> None:
    query = choose(store, "trace-select", NOW, wanted(trace="other.memscope"))
    assert query == Query("other.memscope")
    assert query.resolved(store).event == store.analysis("other.memscope").peak(0).event


def test_the_address_decides_when_the_page_opens(store: TraceStore) -> None:
    assert choose(store, "url", None, wanted(search="?trace=train.memscope&device=0&event=5")).event == 5


def test_page_state_follows_the_query(store: TraceStore) -> None:
    state = page_state(store, Query("train.memscope", 0, 40))
    assert state["index"] == 41
    assert state["bounds"] == {"first": 0, "n": store.analysis("train.memscope").trace.n_events}
    assert state["has_oom"]
    assert page_state(store, Query("train.memscope", 0, -1))["index"] == 0


def test_a_trace_that_cannot_be_opened_leaves_an_empty_page(store: TraceStore) -> None:
    state = page_state(store, Query("unheard of"))
    assert state["moment"] == {"trace": "unheard of", "device": None, "event": None}
    assert state["devices"] == []


def test_the_moment_is_said_in_words(store: TraceStore) -> None:
    peak = store.analysis("train.memscope").peak(0)
    words = text_of(moment_words(peak))
    assert f"event {peak.event:,}" in words
    assert f"{format_bytes(peak.allocated_bytes)} allocated" in words


def test_the_badge_says_exact_for_a_complete_trace(store: TraceStore) -> None:
    badge, notes = trust_update(store, {"trace": "train.memscope", "device": 0})
    assert "exact" in text_of(badge)
    assert "is accounted for" in text_of(notes)


@needs_shared
def test_the_badge_of_a_contradictory_trace_says_so() -> None:
    store = TraceStore([BAD / "double-free.pickle"])
    badge, notes = trust_update(store, {"trace": "double-free.pickle", "device": None})
    assert "cannot be trusted" in text_of(badge)
    assert "contradicts itself" in text_of(notes)


def test_the_inspector_says_what_the_table_has(store: TraceStore) -> None:
    moment = store.analysis("train.memscope").peak(0)
    row = int(moment.rows[0])
    words = text_of(inspect(moment, row))
    live = moment.allocations().iloc[0]
    assert format_bytes(live["block_bytes"]) in words
    assert live["owner"] in words
    assert hex(live["address"]) in words
    assert "live at this moment" in words
    assert "train.py:7" in words


def test_the_inspector_keeps_a_pin_that_is_not_live(store: TraceStore) -> None:
    moment = store.analysis("train.memscope").at(0, 0)
    last = len(moment.lifetimes.allocations) - 1
    assert "not live at this moment" in text_of(inspect(moment, last))
    assert "Nothing is pinned" in text_of(inspect(moment, 10**6))


@needs_shared
def test_the_start_of_a_later_device_is_a_moment_too() -> None:
    name = "two_gpus.pickle.gz"
    store = TraceStore([ORACLE / "torch-2.11.0" / name])
    second = store.analysis(name).trace.devices[1]
    assert store.analysis(name).device(second).lifetimes.first_event > 0
    assert Query(name, second, -1).resolved(store) == Query(name, second, -1)
    before = store.analysis(name).device(second).lifetimes.first_event - 1
    assert Query(name, second, before).resolved(store) == Query(name, second, -1)
    store.close()
