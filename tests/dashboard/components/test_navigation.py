"""Every control that chooses a moment, and the state of the page around it."""

from __future__ import annotations

from typing import Any

import pytest
from memscope_dashboard.components.navigation import choose, page_state
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from tests.dashboard.pages import NOW, wanted


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
