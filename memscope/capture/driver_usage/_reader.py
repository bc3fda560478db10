"""What one device's driver says is used: by NVML where it answers, by ``cudaMemGetInfo`` where not.

What nothing answers is −1, "not measured", never 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from memscope.trace.schema import NONE_ID

_NVML_SOURCE = "nvml"
_CUDA_SOURCE = "cudaMemGetInfo"
_NOT_AVAILABLE = 1 << 63
_MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class UsageReading:
    """What a device said once; −1 where it was not measured.

    Attributes
    ----------
    device_free_bytes, device_used_bytes
        Of the whole device. NVML's newer count leaves out of "used" what the driver keeps for itself; the older one and
        ``cudaMemGetInfo`` (total less free) do not.
    process_used_bytes
        Of this process: its context, what libraries allocated themselves, and all that PyTorch reserved.
    others_used_bytes
        Of all other processes.
    """

    device_free_bytes: int = NONE_ID
    device_used_bytes: int = NONE_ID
    process_used_bytes: int = NONE_ID
    others_used_bytes: int = NONE_ID


def open_nvml() -> tuple[ModuleType | None, str]:
    """NVML, initialised, or None and why it is not usable. Every success wants one ``nvmlShutdown``."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError) as error:
        return None, f"NVML is not usable: {error}"
    return pynvml, ""


def find_handle(nvml: Any, device: int) -> tuple[Any | None, str]:
    """The NVML handle of a device that PyTorch numbers ``device``, or None, and how it was found or why not.

    By UUID, else by PCI bus id; both say it for certain. Versions of PyTorch that tell neither leave the index, which
    is NVML's only where CUDA counts in the same order.
    """
    import torch

    properties: Any = torch.cuda.get_device_properties(device)
    names = [f"{kind}-{properties.uuid}" for kind in ("GPU", "MIG")] if hasattr(properties, "uuid") else []
    handle = _first_handle(nvml, nvml.nvmlDeviceGetHandleByUUID, names)
    how = "by UUID"
    if handle is None and hasattr(properties, "pci_bus_id"):
        domain = getattr(properties, "pci_domain_id", 0)
        place = f"{domain:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
        handle, how = _first_handle(nvml, nvml.nvmlDeviceGetHandleByPciBusId, [place]), "by PCI bus id"
    if handle is None:
        handle, how = _handle_by_index(nvml, device)
    return (None, how) if handle is None else _slice_of(nvml, handle, names, how)


def _first_handle(nvml: Any, find: Any, names: Iterable[str]) -> Any | None:
    for name in names:
        with suppress(nvml.NVMLError):
            return find(name)
    return None


def _handle_by_index(nvml: Any, device: int) -> tuple[Any | None, str]:
    """By what ``CUDA_VISIBLE_DEVICES`` names at that position."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [text.strip() for text in visible.split(",")] if visible else []
    if named and device >= len(named):
        return None, "CUDA_VISIBLE_DEVICES does not name this device"
    name = named[device] if named else str(device)
    try:
        if not name.isdigit():
            return nvml.nvmlDeviceGetHandleByUUID(name), "by CUDA_VISIBLE_DEVICES"
        if not _counts_like_cuda(nvml):
            return None, "CUDA's order of devices is not NVML's: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        return nvml.nvmlDeviceGetHandleByIndex(int(name)), "by index"
    except nvml.NVMLError as error:
        return None, f"NVML does not know this device: {error}"


def _counts_like_cuda(nvml: Any) -> bool:
    """Whether an index means the same: by order of the bus, or because all devices are of one kind.

    CUDA's default order puts the fastest first, and equal ones by the bus.
    """
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return True
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    return len(handles) == 1 or len({nvml.nvmlDeviceGetName(handle) for handle in handles}) == 1


def _slice_of(nvml: Any, handle: Any, names: list[str], how: str) -> tuple[Any | None, str]:
    """The handle of the MIG slice that the process was given, where the device found is cut in slices."""
    if not _is_cut(nvml, handle):
        return handle, how
    slices = list(_slices(nvml, handle))
    visible = [text.strip() for text in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    wanted = {name for name in (*names, *visible) if name.startswith("MIG-")}
    found = [part for name, part in slices if name in wanted] or [part for _, part in slices]
    return (found[0], f"{how}, MIG slice") if len(found) == 1 else (None, "which MIG slice is this one cannot be told")


def _is_cut(nvml: Any, handle: Any) -> bool:
    with suppress(nvml.NVMLError, AttributeError):
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    return False


def _slices(nvml: Any, handle: Any) -> Iterable[tuple[str, Any]]:
    n_slices = 0
    with suppress(nvml.NVMLError):
        n_slices = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    for i in range(n_slices):
        with suppress(nvml.NVMLError):
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i)
            yield nvml.nvmlDeviceGetUUID(part), part


class UsageReader:
    """Reads what one device's driver says is used.

    Parameters
    ----------
    device
        The index that PyTorch gives it.
    nvml
        NVML, initialised; None asks ``cudaMemGetInfo`` only.

    Attributes
    ----------
    source
        Who answers for the whole device: ``nvml`` or ``cudaMemGetInfo``.
    reasons
        Why something is not measured, or is measured in the second-best way; a sentence each.
    """

    def __init__(self, device: int, nvml: Any | None) -> None:
        self.device = device
        self.source = _NVML_SOURCE
        self.reasons: list[str] = []
        self._nvml = nvml
        self._handle: Any | None = None
        if nvml is None:
            self.source = _CUDA_SOURCE
            return
        self._handle, how = find_handle(nvml, device)
        if self._handle is None:
            self._fall_back(how)

    def read(self) -> UsageReading:
        """Ask now. Where the device's count moves while the processes are listed, both are read again."""
        before = self._whole_device()
        for _ in range(_MAX_TRIES):
            own, others = self._processes()
            after = self._whole_device()
            if after == before:
                return UsageReading(*after, own, others)
            before = after
        return UsageReading(*before)

    def _fall_back(self, reason: str) -> None:
        self.source = _CUDA_SOURCE
        self.reasons.append(f"device {self.device}: {reason}")

    def _whole_device(self) -> tuple[int, int]:
        """Free and used bytes."""
        if self.source == _NVML_SOURCE:
            try:
                memory = _memory_info(self._nvml, self._handle)
            except (self._nvml.NVMLError, AttributeError) as error:  # type: ignore[union-attr]
                self._fall_back(f"NVML does not count its memory ({error})")
            else:
                if memory.total > 0:
                    return int(memory.free), int(memory.used)
                self._fall_back("NVML does not count its memory")
        return _cuda_memory(self.device)

    def _processes(self) -> tuple[int, int]:
        """Bytes of this process and of the others; −1 for what is hidden.

        A container's process may be listed under a number that is not its own, so that where it is not found, not even
        the others can be told.
        """
        if self._handle is None:
            return NONE_ID, NONE_ID
        sizes = _bytes_by_pid(self._nvml, self._handle)
        own = sizes.pop(os.getpid(), None)
        if own is None:
            return NONE_ID, NONE_ID
        others = NONE_ID if any(size == NONE_ID for size in sizes.values()) else sum(sizes.values())
        return own, others


def _memory_info(nvml: Any, handle: Any) -> Any:
    """The newer count where there is one: it tells apart what the driver keeps for itself."""
    with suppress(nvml.NVMLError, AttributeError):
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    return nvml.nvmlDeviceGetMemoryInfo(handle)


def _cuda_memory(device: int) -> tuple[int, int]:
    """By ``cudaMemGetInfo``, which would set the device up if the process had not done so: it is not asked then."""
    import torch

    internals: Any = torch._C
    try:
        if not torch.cuda.is_initialized() or not internals._cuda_hasPrimaryContext(device):
            return NONE_ID, NONE_ID
        free, total = torch.cuda.mem_get_info(device)
    except (RuntimeError, AttributeError):
        return NONE_ID, NONE_ID
    return int(free), int(total - free)


def _bytes_by_pid(nvml: Any, handle: Any) -> dict[int, int]:
    """Bytes of every process that NVML lists, −1 where it does not say; empty where it lists none.

    A process may be listed as computing and as drawing, each time with all its bytes; within one list it stands once
    for each slice of the device.
    """
    sizes: dict[int, int] = {}
    for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
        listed: dict[int, int] = {}
        for process in _listed(nvml, name, handle):
            size = process.usedGpuMemory
            is_known = size is not None and size < _NOT_AVAILABLE and listed.get(process.pid) != NONE_ID
            listed[process.pid] = listed.get(process.pid, 0) + size if is_known else NONE_ID
        sizes |= {pid: max(size, sizes.get(pid, NONE_ID)) for pid, size in listed.items()}
    return sizes


def _listed(nvml: Any, name: str, handle: Any) -> list[Any]:
    """A list of processes; by the older call where the driver is older than nvidia-ml-py, which then refuses."""
    failures = (nvml.NVMLError, AttributeError, getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError))
    for version in ("", "_v2"):
        with suppress(*failures):
            return list(getattr(nvml, name + version)(handle))
    return []
