"""What NVML and CUDA say is used, and "not measured" wherever neither does."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from memscope.capture.driver_usage._reader import UsageReader, UsageReading, find_handle, open_nvml
from memscope.trace.schema import NONE_ID
from tests.capture.driver_usage.fake_nvml import FakeCuda, FakeDevice, FakeNvml, install

torch = pytest.importorskip("torch")
OWN = os.getpid()
NOTHING = UsageReading()


def test_a_reading_tells_own_and_other_bytes_apart(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, reserved=50, compute={OWN: 300, 4: 200})
    assert UsageReader(0, FakeNvml(device)).read() == UsageReading(350, 600, 300, 200)


def test_the_older_count_is_used_where_there_is_no_newer_one(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, reserved=50, compute={OWN: 300})
    assert UsageReader(0, FakeNvml(device, knows_v2=False)).read() == UsageReading(350, 650, 300, 0)


def test_a_driver_older_than_the_module_is_asked_by_the_older_call(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, compute={OWN: 300})
    assert UsageReader(0, FakeNvml(device, is_old=True)).read() == UsageReading(400, 600, 300, 0)


def test_a_process_that_computes_and_draws_counts_once(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, compute={OWN: 300, 4: 200}, graphics={4: 200, 5: 40})
    assert UsageReader(0, FakeNvml(device)).read() == UsageReading(400, 600, 300, 240)


def test_without_the_module_or_the_driver_nvml_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() == (None, "nvidia-ml-py is not installed")
    install(monkeypatch, fails="Driver Not Loaded")
    assert open_nvml() == (None, "NVML is not usable: Driver Not Loaded")


def test_without_nvml_and_without_a_context_nothing_is_measured_and_cuda_is_not_asked(cuda: FakeCuda) -> None:
    cuda.has_context = False
    cuda.memory = 10, 100
    assert UsageReader(0, None).read() == NOTHING
    assert cuda.n_asked == 0


@pytest.mark.parametrize("used", [None, 0])
def test_unified_memory_falls_back_to_cuda(cuda: FakeCuda, used: int | None) -> None:
    """NVML answers NOT_SUPPORTED, or a total of 0; processes may still be listed."""
    cuda.memory = 70, 100
    device = FakeDevice("GPU-aa", total=0, used=used, compute={OWN: 20})
    reader = UsageReader(0, FakeNvml(device))
    assert reader.read() == UsageReading(70, 30, 20, 0)
    assert reader.source == "cudaMemGetInfo"
    assert reader.reasons[0].startswith("device 0: NVML does not count its memory")


def test_a_process_that_is_not_listed_is_not_measured_nor_are_the_others(cuda: FakeCuda) -> None:
    """A container: its processes are listed under the host's numbers, or not at all."""
    for listed in ({OWN + 1: 500}, {}, None):
        device = FakeDevice("GPU-aa", used=600, compute=listed)
        assert UsageReader(0, FakeNvml(device)).read() == UsageReading(400, 600, NONE_ID, NONE_ID)


def test_a_process_without_a_size_is_not_measured(cuda: FakeCuda) -> None:
    for size in (None, (1 << 64) - 1):
        device = FakeDevice("GPU-aa", used=600, compute={OWN: size, 4: 10})
        assert UsageReader(0, FakeNvml(device)).read() == UsageReading(400, 600, NONE_ID, 10)
        device = FakeDevice("GPU-aa", used=600, compute={OWN: 10, 4: size})
        assert UsageReader(0, FakeNvml(device)).read() == UsageReading(400, 600, 10, NONE_ID)


def test_a_device_lost_midway_is_not_measured_from_then_on(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, compute={OWN: 10})
    reader = UsageReader(0, FakeNvml(device))
    assert reader.read().device_used_bytes == 600
    device.is_lost = True
    assert reader.read() == NOTHING
    assert "GPU is lost" in reader.reasons[0]


def test_processes_are_listed_again_where_the_device_changed_meanwhile(cuda: FakeCuda) -> None:
    device = FakeDevice("GPU-aa", used=600, reads=[500], compute={OWN: 300})
    assert UsageReader(0, FakeNvml(device)).read() == UsageReading(400, 600, 300, 0)
    device = FakeDevice("GPU-aa", used=600, reads=[1, 2, 3, 4], compute={OWN: 300})
    assert UsageReader(0, FakeNvml(device)).read() == UsageReading(996, 4, NONE_ID, NONE_ID)


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
    assert UsageReader(0, nvml).read() == UsageReading(6, 4, NONE_ID, NONE_ID)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2")
    assert find_handle(nvml, 0) == (slices[1], "by UUID, MIG slice")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    whole.slices = slices[:1]
    assert find_handle(nvml, 0) == (slices[0], "by UUID, MIG slice")
