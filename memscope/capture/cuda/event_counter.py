"""How many allocator calls each device has made: the allocator's own count, which no ring limits."""

from __future__ import annotations

from typing import Any

from memscope.capture.patches import Patches
from memscope.trace.recording.folder import Counts
from memscope.trace.recording.notes import Calls

_KINDS = (("allocation", "allocated"), ("allocation", "freed"), ("active", "freed"))
"""Allocs, free requests and free completions among the allocator's statistics."""


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
