"""What PyTorch says of its CUDA allocator and its devices: whether there is a history, how many calls, statistics."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from memscope.capture.environment import CaptureEnvironment, tie_rule_of
from memscope.capture.patches import Patches
from memscope.emulation.launch import provenance
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.folder import Counts
from memscope.trace.recording.notes import Calls

_NATIVE = "native"
_ADVICE = {
    "cudaMallocAsync": "leave backend:cudaMallocAsync out of PYTORCH_ALLOC_CONF and PYTORCH_CUDA_ALLOC_CONF",
    "pluggable": "record without torch.cuda.memory.change_current_allocator",
}
_KINDS = (("allocation", "allocated"), ("allocation", "freed"), ("active", "freed"))
"""Allocs, free requests and free completions among the allocator's statistics."""


class Obstacle(NamedTuple):
    """Why there is no history, and what to do."""

    finding: str
    advice: str


def find_obstacle() -> Obstacle | None:
    """Ask PyTorch which allocator serves the program: only its native caching allocator keeps a history.

    None where nothing is in the way, and where PyTorch cannot tell.
    """
    import torch

    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"):
        return Obstacle("PYTORCH_NO_CUDA_MEMORY_CACHING switches the caching allocator off", "unset it")
    internals: Any = torch._C
    ask = getattr(internals, "_cuda_getAllocatorBackend", None)
    backend = _NATIVE if ask is None else str(ask())
    if backend == _NATIVE:
        return None
    advice = _ADVICE.get(backend, "record with PyTorch's native allocator")
    return Obstacle(f"the allocator is {backend}, which keeps no history", advice)


class EventCounter:
    """Counts since :meth:`restart`. Reading costs some 20 µs for each device.

    Parameters
    ----------
    device
        The only device to count; those of the others stay 0. None counts all.

    Source: ``c10/cuda/CUDACachingAllocator.cpp``, where each statistic is raised beside the event of its kind.
    """

    def __init__(self, device: int | None = None) -> None:
        import torch

        # The function behind it works in a forked copy of the process too, which the public one refuses to.
        self._read_stats = getattr(torch._C, "_cuda_memoryStats", torch.cuda.memory.memory_stats_as_nested_dict)
        self._devices = range(torch.cuda.device_count())
        self._only = device
        self._base: Counts = ((0, 0, 0),) * len(self._devices)

    def restart(self) -> None:
        """Count from now on."""
        self._base = self._raw()

    def counts(self) -> Counts:
        """Calls of each device and kind."""
        raw = self._raw()
        return tuple((a - a0, b - b0, c - c0) for (a, b, c), (a0, b0, c0) in zip(raw, self._base, strict=True))

    def calls(self) -> Calls:
        """Calls of each device, of all kinds."""
        return tuple(map(sum, self.counts()))

    def survive_resets(self, patches: Patches) -> None:
        """Keep the count right when the program sets its accumulated statistics back."""
        import torch

        for owner in (torch.cuda.memory, torch.cuda):
            patches.set(owner, "reset_accumulated_memory_stats", self._surviving(owner.reset_accumulated_memory_stats))

    def _surviving(self, reset: Any) -> Any:
        def surviving(*args: Any, **kwargs: Any) -> Any:
            before = self.counts()
            result = reset(*args, **kwargs)
            self._base = tuple(
                (a - a0, b - b0, c - c0) for (a, b, c), (a0, b0, c0) in zip(self._raw(), before, strict=True)
            )
            return result

        return surviving

    def _raw(self) -> Counts:
        raw = []
        for device in self._devices:
            if self._only not in (None, device):
                raw.append((0, 0, 0))
                continue
            stats = self._read_stats(device)
            a, b, c = (int(stats[group]["all"][key]) for group, key in _KINDS)
            raw.append((a, b, c))
        return tuple(raw)


def recorded_devices(device: int | None) -> Sequence[int]:
    """The devices that a recording is about: the one named, or all."""
    import torch

    return range(torch.cuda.device_count()) if device is None else (device,)


def describe_recording(
    devices: Sequence[int], environment: CaptureEnvironment, *, created_ns: int, max_entries: int
) -> TraceMetadata:
    """The metadata of a recording, as far as they are known at this moment."""
    import torch

    emulated = provenance()
    return TraceMetadata(
        source="cuda",
        torch_version=torch.__version__,
        tie_rule=tie_rule_of(torch.__version__),
        device_names={device: torch.cuda.get_device_name(device) for device in devices},
        device_total_bytes={device: torch.cuda.get_device_properties(device).total_memory for device in devices},
        memory_fraction=_memory_fractions(devices),
        rank=environment.rank,
        created_ns=created_ns,
        max_entries=max_entries,
        notes=tuple(emulated.get("notes", ())),
        extra={
            "cuda_version": torch.version.cuda,
            "python_version": platform.python_version(),
            "transformers_version": getattr(sys.modules.get("transformers"), "__version__", None),
            "local_rank": environment.local_rank,
            "world_size": environment.world_size,
            **emulated.get("extra", {}),
        },
    )


def _memory_fractions(devices: Sequence[int]) -> dict[int, float]:
    """The share of each device that the process may take, of those that the process has set up.

    PyTorch up to 2.6 makes a device the current one when asked for its share, and so would set others up.
    """
    import torch

    internals: Any = torch._C
    has_context = getattr(internals, "_cuda_hasPrimaryContext", lambda _: False)
    fractions: dict[int, float] = {}
    for device in devices:
        with suppress(AttributeError, RuntimeError):
            if has_context(device):
                with torch.cuda.device(device):
                    fractions[device] = float(torch.cuda.memory.get_per_process_memory_fraction(device))
    return fractions


def memory_statistics(devices: Sequence[int], moment: str) -> dict[str, Any]:
    """``memory_stats()`` of devices, under a key that names the moment."""
    import torch

    stats = {str(device): _flat(torch.cuda.memory_stats(device)) for device in devices}
    return {f"memory_stats_at_{moment}": stats}


def _flat(stats: Any) -> dict[str, int | float]:
    return {str(key): value for key, value in stats.items() if isinstance(value, int | float)}
