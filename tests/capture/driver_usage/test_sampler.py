"""The device's own count: what NVML and CUDA say, and "not measured" wherever neither does."""

from __future__ import annotations

import os
import sys
import time
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from memscope.capture.driver_usage.count import DeviceCounter, DeviceReading, find_handle, open_nvml
from memscope.capture.driver_usage.probes import DeviceProbes, growth_beyond_pytorch
from memscope.capture.driver_usage.sampler import DeviceSampler, _Kept
from memscope.errors import UsageError
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.sampling import placed_samples
from memscope.trace.schema import NONE_ID, Action
from tests.capture.driver_usage.fake_nvml import FakeDevice, FakeNvml

torch = pytest.importorskip("torch")
OWN = os.getpid()
NOTHING = DeviceReading()


class FakeCuda:
    """What ``torch.cuda`` says; ``properties`` by device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.properties: list[Any] = [SimpleNamespace(uuid="aa")]
        self.memory: tuple[int, int] | None = None
        self.has_context = True
        self.n_asked = 0
        self.reserved = 0
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: self.properties[device])
        monkeypatch.setattr(torch.cuda, "mem_get_info", self._mem_get_info)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: self.reserved)
        monkeypatch.setattr(torch._C, "_cuda_hasPrimaryContext", lambda device: self.has_context, raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    def _mem_get_info(self, device: int) -> tuple[int, int]:
        self.n_asked += 1
        if self.memory is None:
            raise RuntimeError("CUDA error: unknown error")
        return self.memory


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def install(monkeypatch: pytest.MonkeyPatch, *devices: FakeDevice, **arguments: Any) -> FakeNvml:
    nvml = FakeNvml(*devices, **arguments)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_a_reading_tells_own_and_other_bytes_apart(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, reserved=50, compute={OWN: 300, 4: 200})
    assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(350, 600, 300, 200)


def test_the_older_count_is_used_where_there_is_no_newer_one(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, reserved=50, compute={OWN: 300})
    assert DeviceCounter(0, FakeNvml(device, knows_v2=False)).read() == DeviceReading(350, 650, 300, 0)


def test_a_driver_older_than_the_module_is_asked_by_the_older_call(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, compute={OWN: 300})
    assert DeviceCounter(0, FakeNvml(device, is_old=True)).read() == DeviceReading(400, 600, 300, 0)


def test_a_process_that_computes_and_draws_counts_once(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, compute={OWN: 300, 4: 200}, graphics={4: 200, 5: 40})
    assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(400, 600, 300, 240)


def test_without_the_module_or_the_driver_nvml_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() == (None, "nvidia-ml-py is not installed")
    install(monkeypatch, fails="Driver Not Loaded")
    assert open_nvml() == (None, "NVML is not usable: Driver Not Loaded")


def test_without_nvml_and_without_a_context_nothing_is_measured_and_cuda_is_not_asked(cuda: FakeCuda) -> None:
    cuda.has_context = False
    cuda.memory = 10, 100
    assert DeviceCounter(0, None).read() == NOTHING
    assert cuda.n_asked == 0


@pytest.mark.parametrize("used", [None, 0])
def test_unified_memory_falls_back_to_cuda(cuda: FakeCuda, used: int | None) -> None:
    """NVML answers NOT_SUPPORTED, or a total of 0; processes may still be listed."""
    cuda.memory = 70, 100
    device = FakeDevice("GPU-aa", total=0, used=used, compute={OWN: 20})
    counter = DeviceCounter(0, FakeNvml(device))
    assert counter.read() == DeviceReading(70, 30, 20, 0)
    assert counter.source == "cudaMemGetInfo"
    assert counter.reasons[0].startswith("device 0: NVML does not count its memory")


def test_a_process_that_is_not_listed_is_not_measured_nor_are_the_others(cuda: FakeCuda) -> None:
    """A container: its processes are listed under the host's numbers, or not at all."""
    for listed in ({OWN + 1: 500}, {}, None):
        device = FakeDevice("GPU-aa", used=600, compute=listed)
        assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(400, 600, NONE_ID, NONE_ID)


def test_a_process_without_a_size_is_not_measured(cuda: FakeCuda) -> None:
    for size in (None, (1 << 64) - 1):
        device = FakeDevice("GPU-aa", used=600, compute={OWN: size, 4: 10})
        assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(400, 600, NONE_ID, 10)
        device = FakeDevice("GPU-aa", used=600, compute={OWN: 10, 4: size})
        assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(400, 600, 10, NONE_ID)


def test_a_device_lost_midway_is_not_measured_from_then_on(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, compute={OWN: 10})
    counter = DeviceCounter(0, FakeNvml(device))
    assert counter.read().device_used_bytes == 600
    device.is_lost = True
    assert counter.read() == NOTHING
    assert "GPU is lost" in counter.reasons[0]


def test_processes_are_listed_again_where_the_device_changed_meanwhile(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, reads=[500], compute={OWN: 300})
    assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(400, 600, 300, 0)
    device = FakeDevice("GPU-aa", used=600, reads=[1, 2, 3, 4], compute={OWN: 300})
    assert DeviceCounter(0, FakeNvml(device)).read() == DeviceReading(996, 4, NONE_ID, NONE_ID)


def test_a_device_is_found_by_uuid_whatever_its_index(cuda: FakeCuda) -> None:
    first, second = FakeDevice("GPU-aa"), FakeDevice("GPU-bb")
    cuda.properties = [SimpleNamespace(uuid="bb")]
    assert find_handle(FakeNvml(first, second), 0) == (second, "by UUID")


def test_a_device_is_found_by_its_place_on_the_bus(cuda: FakeCuda) -> None:
    first, second = FakeDevice("GPU-aa"), FakeDevice("GPU-bb", pci_bus_id="00000001:0a:03.0")
    cuda.properties = [SimpleNamespace(pci_domain_id=1, pci_bus_id=10, pci_device_id=3)]
    assert find_handle(FakeNvml(first, second), 0) == (second, "by PCI bus id")


def test_by_index_only_where_the_order_is_cudas(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.properties = [SimpleNamespace(), SimpleNamespace()]
    first, second = FakeDevice("GPU-aa", name="slow"), FakeDevice("GPU-bb", name="fast")
    nvml = FakeNvml(first, second)
    assert find_handle(nvml, 1)[0] is None
    assert "CUDA_DEVICE_ORDER" in find_handle(nvml, 1)[1]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert find_handle(nvml, 1) == (second, "by index")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert find_handle(nvml, 1) == (first, "by index")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert find_handle(nvml, 0) == (second, "by CUDA_VISIBLE_DEVICES")
    assert find_handle(nvml, 1) == (None, "CUDA_VISIBLE_DEVICES does not name this device")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert find_handle(nvml, 0)[0] is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    second.name = "slow"
    assert find_handle(nvml, 1) == (second, "by index")


def test_a_slice_is_found_by_name_or_as_the_only_one(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = [FakeDevice("MIG-1", used=7), FakeDevice("MIG-2", used=8)]
    whole = FakeDevice("GPU-aa", used=900, is_cut=True, slices=slices)
    nvml = FakeNvml(whole)
    assert find_handle(nvml, 0) == (None, "which MIG slice is this one cannot be told")
    cuda.memory = 6, 10
    assert DeviceCounter(0, nvml).read() == DeviceReading(6, 4, NONE_ID, NONE_ID)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2")
    assert find_handle(nvml, 0) == (slices[1], "by UUID, MIG slice")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    whole.slices = slices[:1]
    assert find_handle(nvml, 0) == (slices[0], "by UUID, MIG slice")


def test_the_sampler_samples_at_both_ends_and_at_changes(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice("GPU-aa", used=100, compute={OWN: 90})
    nvml = install(monkeypatch, device)
    sampler = DeviceSampler([0], interval_s=0.001).start()
    began = time.perf_counter()
    device.used = 200
    while 200 not in sampler.samples()["device_used_bytes"]:
        assert time.perf_counter() - began < 10, "the change was not sampled"
    device.used = 150
    sampler.stop()
    sampler.stop()
    samples = sampler.samples()
    # The thread may see the last change before the sample at the end does, and repeats what stays for a second.
    assert [used for used, _ in groupby(samples["device_used_bytes"].tolist())] == [100, 200, 150]
    assert set(samples["process_used_bytes"].tolist()) == {90}
    assert np.all(np.diff(samples["time_ns"]) > 0)
    assert nvml.n_open == 0
    cost = sampler.cost
    assert cost.n_reads >= 3
    assert cost.read_ns >= cost.longest_ns > 0
    assert cost.mean_ns == cost.read_ns / cost.n_reads


def test_the_sampler_works_where_nothing_is_measured(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = DeviceSampler([0], interval_s=10).start()
    sampler.stop()
    samples = sampler.samples()
    assert samples["device"].tolist() == [0, 0]
    for name in ("device_free_bytes", "device_used_bytes", "process_used_bytes", "others_used_bytes"):
        assert samples[name].tolist() == [NONE_ID, NONE_ID]
    assert sampler.reasons == ("nvidia-ml-py is not installed",)


def test_a_sampler_of_no_device_has_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    sampler = DeviceSampler([]).start()
    sampler.stop()
    assert len(sampler.samples()["time_ns"]) == 0
    assert sampler.cost.mean_ns is None


def test_an_interval_or_a_limit_that_cannot_be_used_is_refused() -> None:
    for interval_s in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="interval"):
            DeviceSampler([0], interval_s)
    with pytest.raises(UsageError, match="max_samples"):
        DeviceSampler([0], max_samples=3)


def test_unchanged_counts_are_kept_once_a_second() -> None:
    kept = _Kept(100)
    for tenth in range(31):
        kept.add(tenth * 100_000_000, DeviceReading(1, 2), is_forced=False)
    assert kept.arrays()[0].tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]


def test_the_samples_are_bounded_and_the_highest_is_never_dropped() -> None:
    kept = _Kept(64)
    for i in range(10_000):
        kept.add(i * 1000, DeviceReading(0, 99_999 if i == 5001 else i % 7), is_forced=False)
    times, _, used = kept.arrays()[:3]
    assert 16 <= len(times) <= 64
    assert times[int(np.argmax(used))] == 5001 * 1000
    assert np.all(np.diff(times) > 0)
    assert times[-1] > 9_000 * 1000


def test_samples_are_placed_before_the_next_event_of_their_device() -> None:
    builder = TraceBuilder()
    for device, time_ns in ((0, 10), (0, 20), (1, 15)):
        builder.add_event(Action.ALLOC, address=512, size_bytes=8, device=device, time_ns=time_ns)
    builder.add_sample(time_ns=15, device=1, device_free_bytes=7)
    trace = builder.build(TraceMetadata(source="cuda"))
    columns = {name: np.zeros(5, np.int64) for name in ("device_free_bytes", "device_used_bytes")}
    columns |= {name: np.full(5, NONE_ID) for name in ("process_used_bytes", "others_used_bytes")}
    columns |= {"time_ns": np.array([5, 10, 14, 15, 30]), "device": np.array([0, 0, 1, 0, 0])}
    placed = placed_samples(columns, trace)
    rows = list(zip(placed.event.tolist(), placed.device.tolist(), placed.time_ns.tolist(), strict=True))
    assert rows == [(0, 0, 5), (1, 0, 10), (1, 0, 15), (2, 1, 14), (2, 0, 30), (3, 1, 15)]


def test_growth_is_what_the_process_gained_beyond_reserved() -> None:
    before, after = DeviceReading(0, 500, 300, 0), DeviceReading(0, 900, 450, 0)
    assert growth_beyond_pytorch(before, 100, after, 120) == 130
    hidden = DeviceReading(0, 500), DeviceReading(0, 900)
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
    probes = DeviceProbes({0: DeviceCounter(0, FakeNvml(device))})
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
    probes = DeviceProbes({0: DeviceCounter(0, FakeNvml(device))})
    probes.watch_collectives()
    assert dist.all_reduce is not all_reduce
    assert [dist.all_reduce(1), dist.all_reduce(2)] == ["sum of 1", "sum of 2"]
    probes.stop()
    assert dist.all_reduce is all_reduce
    [(name, _, size)] = probes.metadata()["device_parts"]["0"]
    assert (name, size) == ("collectives", 280)
