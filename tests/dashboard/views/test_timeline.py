"""The timeline: a window of its own trace."""

from __future__ import annotations

from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import timeline

from tests.dashboard.pages import moment_data, subject_of


def test_timeline_zooms_into_the_window_of_its_own_trace_only(store: TraceStore) -> None:
    data = moment_data(store)
    window = {"axis": "event", "trace": "train.memscope", "device": 0, "low": 10.0, "high": 20.0}
    whole = timeline.update(store, subject_of(data), "light", "event", None, data)[2]
    zoomed = timeline.update(store, subject_of(data), "light", "event", window, data)[2]
    foreign = timeline.update(store, subject_of(data), "light", "event", window | {"trace": "x"}, data)[2]
    assert list(zoomed.layout.xaxis.range) == [10, 20]
    assert len(zoomed.data[0].x) < len(whole.data[0].x) == len(foreign.data[0].x)
