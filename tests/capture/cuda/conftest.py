"""A CUDA device whose history is a fake."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tests.capture.cuda.fake_history import FakeHistory

torch = pytest.importorskip("torch")


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> FakeHistory:
    fake = FakeHistory()
    cuda = torch.cuda
    for owner, name, value in (
        (cuda, "is_available", lambda: True),
        (cuda, "init", lambda: None),
        (cuda, "device_count", lambda: 1),
        (cuda, "get_device_name", lambda _: "Fake GPU"),
        (cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1 << 30)),
        (cuda.memory, "get_per_process_memory_fraction", lambda _: 0.5),
        (cuda, "device", lambda _: nullcontext()),
        (torch._C, "_cuda_hasPrimaryContext", lambda _: True),
        (cuda, "memory_stats", lambda _: {"num_ooms": 0}),
        (cuda.memory, "memory_stats_as_nested_dict", fake.stats),
        (cuda.memory, "reset_accumulated_memory_stats", fake.reset),
        (cuda, "reset_accumulated_memory_stats", fake.reset),
        (cuda.memory, "_record_memory_history", fake.record),
        (cuda.memory, "_snapshot", fake.snapshot),
        (torch._C, "_cuda_memoryStats", fake.stats),
        (torch._C, "_cuda_isHistoryEnabled", lambda: False),
        (torch._C, "_cuda_clearCublasWorkspaces", lambda: None),
        (torch._C, "_cuda_attach_out_of_memory_observer", lambda _: None),
    ):
        monkeypatch.setattr(owner, name, value, raising=False)
    return fake
