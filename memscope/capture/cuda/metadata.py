"""What PyTorch's history does not store: devices, limits, versions, statistics."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from memscope.capture.environment import CaptureEnvironment
from memscope.capture.versions import tie_rule_of
from memscope.emulation.launch import provenance
from memscope.trace.metadata import TraceMetadata


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
