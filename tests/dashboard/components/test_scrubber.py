"""The strip at the bottom: what the moment is, in words and in a picture."""

from __future__ import annotations

from memscope_dashboard.components.scrubber import moment_words
from memscope_dashboard.store import TraceStore

from memscope.units import format_bytes
from tests.dashboard.pages import text_of


def test_the_moment_is_said_in_words(store: TraceStore) -> None:
    peak = store.analysis("train.memscope").peak(0)
    words = text_of(moment_words(peak))
    assert f"event {peak.event:,}" in words
    assert f"{format_bytes(peak.allocated_bytes)} allocated" in words


def test_the_start_has_no_event(store: TraceStore) -> None:
    words = text_of(moment_words(store.analysis("train.memscope").at(-1, 0)))
    assert words.startswith("start")
    assert "before the first event" in words
    assert "0 B allocated" in words
