"""The ring is drained before it overflows; what is lost is counted."""

from __future__ import annotations

import os
from typing import Any

import pytest

import memscope
from memscope.errors import UsageError
from tests.capture.cuda.fake_history import FakeHistory, drain

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("way", ["", "inline"])
def test_a_run_longer_than_the_ring_is_recorded_whole(
    history: FakeHistory, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("MEMSCOPE_MAX_EVENTS", "10")
    monkeypatch.setenv("MEMSCOPE_DRAIN", way)
    with memscope.record() as rec:
        for number in range(35):
            history.alloc(number + 1)
            if number % 7 == 6:
                rec.step()
                drain(rec)
    assert rec.trace.metadata.n_events_lost == 0
    assert rec.trace.size_bytes.tolist() == list(range(1, 36))
    assert rec.trace.marks.event.tolist() == [7, 14, 21, 28, 35]


def test_what_the_ring_overwrote_is_counted_and_the_longest_stretch_kept(
    history: FakeHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSCOPE_MAX_EVENTS", "10")
    monkeypatch.setenv("MEMSCOPE_DRAIN", "inline")
    monkeypatch.setattr("memscope.capture.cuda._history._POLL_S", 3600.0)
    with memscope.record() as rec:
        for number in range(20):
            history.alloc(number + 1)
            if number in (4, 9, 12):
                drain(rec)
        with rec.phase("in the gap"):
            pass
        for number in range(20, 33):
            history.alloc(number + 1)
    # 13 drained in three pieces, then 7 and 13 into a ring of 10: ten are overwritten, and the ten left are apart.
    assert rec.trace.size_bytes.tolist() == list(range(1, 14))
    assert rec.trace.metadata.n_events_lost == 20
    assert "10 events are missing" in rec.trace.metadata.notes[0]
    assert "the other stretches' 10 events were left out" in rec.trace.metadata.notes[1]
    assert len(rec.trace.marks) == 0


def test_a_drain_that_fails_is_counted(history: FakeHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = os.getpid()

    def failing() -> dict[str, Any]:
        if os.getpid() != pid:
            raise RuntimeError("the copy cannot")
        return history.snapshot()

    monkeypatch.setattr(torch.cuda.memory, "_snapshot", failing)
    with memscope.record() as rec:
        history.alloc(1)
        rec.step("first")
        drain(rec)
        history.alloc(2)
        rec.step("second")
    assert rec.trace.size_bytes.tolist() == [2]
    assert rec.trace.metadata.n_events_lost == 1
    # The marks that the failed drain would have written are in the next; the first is the moment before the trace.
    assert [rec.trace.strings[i] for i in rec.trace.marks.label_id] == ["first", "second"]
    assert rec.trace.marks.event.tolist() == [0, 1]


def test_a_wrong_size_of_the_ring_is_refused(history: FakeHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSCOPE_MAX_EVENTS", "many")
    with pytest.raises(UsageError, match="MEMSCOPE_MAX_EVENTS=many cannot be used"), memscope.record():
        pass
    assert history.calls == []
