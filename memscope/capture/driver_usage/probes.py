"""Telling apart what a process holds on a device beyond PyTorch's allocator, by counting before and after.

What can be told apart: the CUDA context, where the recording is what creates it, and what communicators take at the
first collective of each process group. What is left is not split further: kernels loaded later, and libraries' own
allocations. The workspaces of cuBLAS and cuBLASLt are no part of it: PyTorch takes them from its own allocator
(``aten/src/ATen/cuda/CublasHandlePool.cpp``, since 1.11; histories show them as allocations of 8,519,680 bytes, or
32 MiB on Hopper), so they are inside what is reserved.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from memscope.attribution.driver_usage import COLLECTIVES, CUDA_CONTEXT
from memscope.capture.driver_usage._reader import UsageReader, UsageReading
from memscope.capture.patches import Patches
from memscope.trace.schema import NONE_ID

_COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "gather",
    "irecv",
    "isend",
    "recv",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
)


def beyond_pytorch(reading: UsageReading, reserved_bytes: int) -> int | None:
    """What the process holds besides PyTorch's reserved bytes, None where that was not measured."""
    if reading.process_used_bytes == NONE_ID:
        return None
    return reading.process_used_bytes - reserved_bytes


def growth_beyond_pytorch(
    before: UsageReading, reserved_before_bytes: int, after: UsageReading, reserved_after_bytes: int
) -> int | None:
    """By how much the process grew beyond PyTorch's reserved bytes, None where that was not measured or it shrank.

    By the process's own count; where that is hidden, by the whole device's, which is right only if no other process
    changed in between.
    """
    own = before.process_used_bytes, after.process_used_bytes
    whole = before.device_used_bytes, after.device_used_bytes
    counts = own if NONE_ID not in own else whole
    if NONE_ID in counts:
        return None
    growth = counts[1] - counts[0] - (reserved_after_bytes - reserved_before_bytes)
    return growth if growth >= 0 else None


class UsageProbes:
    """Collects what was told apart, for the trace.

    Parameters
    ----------
    readers
        What reads each device: a started sampler's ``readers``.
    """

    def __init__(self, readers: Mapping[int, UsageReader]) -> None:
        self._readers = readers
        self._found: dict[int, list[tuple[str, int, int]]] = {}
        self._patches = Patches()
        self._seen_groups: set[int] = set()
        self._is_probing = False

    def metadata(self) -> dict[str, Any]:
        """For a trace's ``extra``: the parts found of each device, as name, time in ns and bytes."""
        return {"device_parts": {str(device): [list(part) for part in parts] for device, parts in self._found.items()}}

    def probe_context(self, device: int) -> int | None:
        """Create a device's CUDA context and say what it took.

        None where that cannot be measured: the context was there before, or the device was not counted then.
        """
        import torch

        reader, has_context = self._readers[device], getattr(_internals(), "_cuda_hasPrimaryContext", None)
        torch.cuda.init()
        if has_context is None or has_context(device):
            return None
        before = reader.read()
        torch.cuda.synchronize(device)
        after = reader.read()
        # Before its context a process has nothing on a device and is not listed.
        size = beyond_pytorch(after, torch.cuda.memory_reserved(device))
        if size is None:
            size = growth_beyond_pytorch(before, 0, after, torch.cuda.memory_reserved(device))
        return self._note(device, CUDA_CONTEXT, size)

    def watch_collectives(self) -> None:
        """Count before and after the first collective of each process group from now on.

        The device is waited for once for each group; later collectives of a group are only looked up.
        """
        import torch.distributed as dist

        if not dist.is_available():
            return
        from torch.distributed import distributed_c10d

        watched: dict[Callable[..., Any], Callable[..., Any]] = {}
        for name in _COLLECTIVES:
            for owner in (dist, distributed_c10d):
                function = vars(owner).get(name)
                if callable(function):
                    # One for both owners: PyTorch compares a P2POp's function with its own by identity.
                    replacement = watched.setdefault(function, self._watched(function))
                    self._patches.set(owner, name, replacement)

    def stop(self) -> None:
        """Watch no longer; what was found stays."""
        self._patches.undo()

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def collective(*args: Any, **kwargs: Any) -> Any:
            group = next((value for value in (*args, *kwargs.values()) if _is_group(value)), None)
            key = id(group)
            if self._is_probing or key in self._seen_groups or not _uses_nccl(group):
                return function(*args, **kwargs)
            self._seen_groups.add(key)
            self._is_probing = True
            try:
                return self._probed(function, args, kwargs)
            finally:
                self._is_probing = False

        return collective

    def _probed(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import torch

        device = torch.cuda.current_device()
        reader = self._readers.get(device)
        if reader is None:
            return function(*args, **kwargs)
        before, reserved = reader.read(), torch.cuda.memory_reserved(device)
        result = function(*args, **kwargs)
        torch.cuda.synchronize(device)
        size = growth_beyond_pytorch(before, reserved, reader.read(), torch.cuda.memory_reserved(device))
        self._note(device, COLLECTIVES, size)
        return result

    def _note(self, device: int, name: str, size_bytes: int | None) -> int | None:
        if size_bytes is not None and size_bytes >= 0:
            self._found.setdefault(device, []).append((name, time.time_ns(), size_bytes))
            return size_bytes
        return None


def _internals() -> Any:
    import torch

    return torch._C


def _is_group(value: Any) -> bool:
    from torch.distributed import ProcessGroup

    return isinstance(value, ProcessGroup)


def _uses_nccl(group: Any) -> bool:
    import torch
    import torch.distributed as dist

    return torch.cuda.is_initialized() and dist.is_initialized() and "nccl" in str(dist.get_backend(group))
