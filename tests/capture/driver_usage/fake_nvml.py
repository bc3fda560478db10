"""NVML with known content, to be put in place of the module ``pynvml``, and CUDA's own answers beside it."""

# ruff: noqa: N802, N815 - the names are NVML's
from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class NVMLError(Exception):
    """As NVML's."""


class NVMLLibraryMismatchError(Exception):
    """As nvidia-ml-py's: no kind of NVMLError."""


class NotSupportedError(NVMLError):
    """What the device does not tell."""


@dataclass
class FakeDevice:
    """One device, or one slice; what is None is not supported."""

    uuid: str
    total: int = 1000
    used: int | None = 0
    reserved: int = 0
    compute: dict[int, int | None] | None = field(default_factory=dict)
    graphics: dict[int, int | None] | None = None
    pci_bus_id: str = ""
    name: str = "a GPU"
    is_cut: bool = False
    slices: list[FakeDevice] = field(default_factory=list)
    is_lost: bool = False
    reads: list[int] = field(default_factory=list)
    """What is used at the next readings, before ``used``."""


class FakeNvml(ModuleType):
    """The functions that memscope calls."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError
    nvmlMemory_v2 = 2

    def __init__(
        self, *devices: FakeDevice, fails: str | None = None, knows_v2: bool = True, is_old: bool = False
    ) -> None:
        super().__init__("pynvml")
        self.devices = devices
        self.fails = fails
        self.knows_v2 = knows_v2
        self.is_old = is_old
        self.n_open = 0

    def nvmlInit(self) -> None:
        if self.fails is not None:
            raise NVMLError(self.fails)
        self.n_open += 1

    def nvmlShutdown(self) -> None:
        self.n_open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetName(self, handle: FakeDevice) -> str:
        return handle.name

    def nvmlDeviceGetUUID(self, handle: FakeDevice) -> str:
        return handle.uuid

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeDevice:
        if index >= len(self.devices):
            raise NVMLError("Invalid Argument")
        return self.devices[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeDevice:
        return self._find(lambda device: device.uuid == uuid)

    def nvmlDeviceGetHandleByPciBusId(self, place: str) -> FakeDevice:
        return self._find(lambda device: device.pci_bus_id == place)

    def _find(self, fits: Any) -> FakeDevice:
        everything = [*self.devices, *(part for device in self.devices for part in device.slices)]
        found = [device for device in everything if fits(device)]
        if not found:
            raise NVMLError("Not Found")
        return found[0]

    def nvmlDeviceGetMigMode(self, handle: FakeDevice) -> list[int]:
        return [int(handle.is_cut), int(handle.is_cut)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeDevice) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: FakeDevice, index: int) -> FakeDevice:
        if index >= len(handle.slices):
            raise NVMLError("Not Found")
        return handle.slices[index]

    def nvmlDeviceGetMemoryInfo(self, handle: FakeDevice, version: int | None = None) -> SimpleNamespace:
        if handle.is_lost:
            raise NVMLError("GPU is lost")
        if handle.used is None:
            raise NotSupportedError("Not Supported")
        if version is not None and not self.knows_v2:
            raise NVMLError("Function Not Found")
        used = handle.reads.pop(0) if handle.reads else handle.used
        free = handle.total - used - handle.reserved
        return SimpleNamespace(
            total=handle.total, free=free, used=used if version else used + handle.reserved, reserved=handle.reserved
        )

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeDevice) -> list[SimpleNamespace]:
        if self.is_old:
            raise NVMLLibraryMismatchError
        return self._listed(handle, handle.compute)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: FakeDevice) -> list[SimpleNamespace]:
        return self._listed(handle, handle.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: FakeDevice) -> list[SimpleNamespace]:
        return self._listed(handle, handle.graphics)

    def _listed(self, handle: FakeDevice, processes: dict[int, int | None] | None) -> list[SimpleNamespace]:
        if handle.is_lost or processes is None:
            raise NotSupportedError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in processes.items()]


class FakeCuda:
    """What ``torch.cuda`` says; ``properties`` by device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

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


def install(monkeypatch: pytest.MonkeyPatch, *devices: FakeDevice, **arguments: Any) -> FakeNvml:
    """Put the fake in place of ``pynvml``."""
    nvml = FakeNvml(*devices, **arguments)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml
