"""The canvas: its title is the run's finding, and a trace without events says what to look at instead."""

from __future__ import annotations

from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import canvas

from memscope.words.headlines import timeline_finding
from tests.dashboard.pages import moment_data, subject_of


def test_the_title_is_what_the_run_shows(store: TraceStore) -> None:
    title, note = canvas.update(store, subject_of(moment_data(store)))
    device = store.analysis("train.memscope").device()
    texts = [part if isinstance(part, str) else part.children for part in title]
    assert "".join(texts) == timeline_finding(device)
    assert "one allocation" in note
