"""What every picture over a run has: its zoom, and the moment chosen by a click."""

from __future__ import annotations

import pytest
from memscope_dashboard.components import run_graph
from memscope_dashboard.store import TraceStore

from tests.dashboard.pages import moment_data


def test_what_plotly_reports_becomes_a_window(store: TraceStore) -> None:
    data = moment_data(store)
    found = run_graph.visible_window({"xaxis.range[0]": 3, "xaxis.range[1]": 9.5}, "event", data)
    assert (found["low"], found["high"]) == (3.0, 9.5)
    assert run_graph.visible_window({"xaxis.autorange": True}, "event", data) is None


@pytest.mark.parametrize(("axis", "x", "event"), [("event", 33.4, 33), ("event", -1, -1), ("time", 0.0101, 10)])
def test_a_click_on_the_timeline_chooses_the_event_before_it(
    store: TraceStore, axis: str, x: float, event: int
) -> None:
    assert run_graph.clicked_event(store, {"points": [{"x": x}]}, axis, moment_data(store)) == {"event": event}
