"""The header: how far the trace can be trusted."""

from __future__ import annotations

from memscope_dashboard.components.header import trust_update
from memscope_dashboard.store import TraceStore

from tests.dashboard.pages import text_of
from tests.oracles import BAD, needs_shared


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
