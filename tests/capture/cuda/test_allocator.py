"""What PyTorch says of its CUDA allocator."""

from __future__ import annotations

import pytest

import memscope
from memscope.capture.cuda.allocator import EventCounter, find_obstacle, memory_statistics, recorded_devices
from tests.capture.cuda.fake_history import FakeHistory

torch = pytest.importorskip("torch")


def test_statistics_that_the_program_sets_back_do_not_disturb_the_count(history: FakeHistory) -> None:
    with memscope.record() as rec:
        history.alloc(1)
        torch.cuda.reset_accumulated_memory_stats()
        history.alloc(2)
        torch.cuda.memory.reset_accumulated_memory_stats()
        rec.step()
        history.alloc(3)
    assert rec.trace.metadata.n_events_lost == 0
    assert rec.trace.marks.event.tolist() == [2]


def test_calls_are_counted_from_the_restart_and_other_devices_stay_at_none(history: FakeHistory) -> None:
    counter, of_another = EventCounter(), EventCounter(device=1)
    history.alloc(1)
    counter.restart()
    assert counter.calls() == (0,)
    history.alloc(2)
    assert counter.counts() == ((1, 0, 0),)
    assert of_another.calls() == (0,)


@pytest.mark.parametrize(
    ("backend", "advice"),
    [
        ("cudaMallocAsync", "leave backend:cudaMallocAsync out"),
        ("pluggable", "change_current_allocator"),
        ("another", "native allocator"),
    ],
)
def test_an_allocator_without_a_history_is_an_obstacle(
    monkeypatch: pytest.MonkeyPatch, backend: str, advice: str
) -> None:
    monkeypatch.delenv("PYTORCH_NO_CUDA_MEMORY_CACHING", raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getAllocatorBackend", lambda: backend, raising=False)
    obstacle = find_obstacle()
    assert obstacle is not None
    assert obstacle.finding == f"the allocator is {backend}, which keeps no history"
    assert advice in obstacle.advice
    monkeypatch.setattr(torch._C, "_cuda_getAllocatorBackend", lambda: "native")
    assert find_obstacle() is None
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    found = find_obstacle()
    assert found is not None
    assert found.advice == "unset it"


def test_statistics_are_kept_under_their_moment(history: FakeHistory) -> None:
    assert list(recorded_devices(None)) == [0]
    assert list(recorded_devices(3)) == [3]
    assert memory_statistics([0], "end") == {"memory_stats_at_end": {"0": {"num_ooms": 0}}}
