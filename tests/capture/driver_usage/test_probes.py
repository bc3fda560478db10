"""What is told apart by reading before and after: the context, the first collective of a group."""

from __future__ import annotations

import os
from typing import Any

import pytest

from memscope.capture.driver_usage._reader import UsageReader, UsageReading
from memscope.capture.driver_usage.probes import UsageProbes, growth_beyond_pytorch
from tests.capture.driver_usage.fake_nvml import FakeCuda, FakeDevice, FakeNvml

torch = pytest.importorskip("torch")
OWN = os.getpid()
NOTHING = UsageReading()


def test_growth_is_what_the_process_gained_beyond_reserved() -> None:
    before, after = UsageReading(0, 500, 300, 0), UsageReading(0, 900, 450, 0)
    assert growth_beyond_pytorch(before, 100, after, 120) == 130
    hidden = UsageReading(0, 500), UsageReading(0, 900)
    assert growth_beyond_pytorch(hidden[0], 100, hidden[1], 120) == 380
    assert growth_beyond_pytorch(after, 120, before, 100) is None
    assert growth_beyond_pytorch(NOTHING, 0, NOTHING, 0) is None


def test_the_context_is_what_the_device_shows_once_it_is_created(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice("GPU-aa", used=100, compute={})

    def create(index: int) -> None:
        cuda.has_context = True
        device.used, device.compute = 600, {OWN: 490}

    monkeypatch.setattr(torch.cuda, "synchronize", create)
    cuda.has_context = False
    probes = UsageProbes({0: UsageReader(0, FakeNvml(device))})
    assert probes.probe_context(0) == 490
    assert probes.probe_context(0) is None
    [(name, _, size)] = probes.metadata()["device_parts"]["0"]
    assert (name, size) == ("cuda_context", 490)


def test_the_first_collective_of_each_group_is_counted_once(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import distributed as dist

    device = FakeDevice("GPU-aa", used=500, compute={OWN: 400})

    def all_reduce(tensor: Any, group: Any = None) -> str:
        device.used, device.compute = 800, {OWN: 700}
        cuda.reserved += 20
        return f"sum of {tensor}"

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda group: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda index: None)
    probes = UsageProbes({0: UsageReader(0, FakeNvml(device))})
    probes.watch_collectives()
    assert dist.all_reduce is not all_reduce
    assert [dist.all_reduce(1), dist.all_reduce(2)] == ["sum of 1", "sum of 2"]
    probes.stop()
    assert dist.all_reduce is all_reduce
    [(name, _, size)] = probes.metadata()["device_parts"]["0"]
    assert (name, size) == ("collectives", 280)


def test_sends_and_receives_of_a_batch_are_still_known_to_pytorch(cuda: FakeCuda) -> None:
    from torch import distributed as dist
    from torch.distributed import distributed_c10d

    probes = UsageProbes({0: UsageReader(0, FakeNvml(FakeDevice("GPU-aa", used=500, compute={OWN: 400})))})
    probes.watch_collectives()
    try:
        assert dist.isend is distributed_c10d.isend
        distributed_c10d._check_op(dist.isend)
    finally:
        probes.stop()
