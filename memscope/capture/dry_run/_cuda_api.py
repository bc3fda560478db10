"""``torch.cuda`` during a dry run: the questions a program asks of a GPU, answered for the simulated one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from typing_extensions import Self

from memscope.capture.dry_run._device import SimulatedDevice
from memscope.capture.patches import Patches
from memscope.capture.stacks import user_line
from memscope.errors import CaptureError


class _Stream:
    """A stream that does nothing: a dry run has no work to order."""

    stream_id = 0
    cuda_stream = 0
    device_index = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured; a dry run has none."""
        return False

    def query(self) -> bool:
        """Whether all work is done; there never is any."""
        return True

    def record_event(self, event: Any = None) -> Any:
        """An event at this point of the stream."""
        return event if event is not None else _Event()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    wait_stream = wait_event = lambda self, other: None  # noqa: ARG005


class _Event(_Stream):
    """An event that has happened as soon as it is recorded; no time passes between two."""

    def record(self, stream: Any = None) -> None:
        """Record it."""

    def wait(self, stream: Any = None) -> None:
        """Nothing to wait for."""

    def elapsed_time(self, end_event: Any) -> float:  # noqa: ARG002
        """Milliseconds between two events."""
        return 0.0


def patch_cuda(patches: Patches, device: SimulatedDevice) -> None:
    """Make ``torch.cuda`` describe the simulated device."""
    import torch

    for name, answer in {**_queries(device), **_memory(device), **_actions()}.items():
        for owner in (torch.cuda, torch.cuda.memory, torch.cuda.random, torch.cuda.streams, torch.cuda.graphs):
            if name in vars(owner):
                patches.set(owner, name, answer)
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None:
        for name, answer in _accelerator().items():
            if name in vars(accelerator):
                patches.set(accelerator, name, answer)
    patches.set(torch, "Generator", _generator_class())
    patches.set(torch, "Stream", _Stream)
    patches.set(torch, "Event", _Event)


def _queries(device: SimulatedDevice) -> dict[str, Callable[..., Any]]:
    gpu = device.gpu
    properties = SimpleNamespace(
        name=gpu.device_name,
        major=gpu.capability[0],
        minor=gpu.capability[1],
        total_memory=gpu.total_bytes,
        multi_processor_count=gpu.n_multiprocessors,
        max_threads_per_multi_processor=2048,
        warp_size=32,
        is_integrated=False,
        is_multi_gpu_board=False,
        gcnArchName="",
    )
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: gpu.device_name,
        "get_device_capability": lambda *_: gpu.capability,
        "get_device_properties": lambda *_: properties,
        "get_arch_list": lambda: [f"sm_{gpu.capability[0]}{gpu.capability[1]}"],
        "is_bf16_supported": lambda *_, **__: gpu.capability >= (8, 0),
        "is_tf32_supported": lambda: gpu.capability >= (8, 0),
        "is_current_stream_capturing": lambda: False,
        "utilization": lambda *_: 0,
        "get_rng_state": lambda *_: torch_rng_state(),
        "get_rng_state_all": lambda: [torch_rng_state()],
        "initial_seed": lambda: 0,
    }


def torch_rng_state() -> Any:
    """A state as ``torch.cuda.get_rng_state`` returns it: 16 bytes on the host."""
    import torch

    return torch.zeros(16, dtype=torch.uint8)


def _memory(device: SimulatedDevice) -> dict[str, Callable[..., Any]]:
    def stats(*_: Any) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": device.allocated_bytes,
            "allocated_bytes.all.peak": device.max_allocated_bytes,
            "reserved_bytes.all.current": device.reserved_bytes,
            "reserved_bytes.all.peak": device.max_reserved_bytes,
            "num_ooms": device.n_ooms,
        }

    def reset(*_: Any) -> None:
        device.reset_peaks()

    return {
        "mem_get_info": lambda *_: (device.free_bytes, device.gpu.total_bytes),
        "memory_allocated": lambda *_: device.allocated_bytes,
        "max_memory_allocated": lambda *_: device.max_allocated_bytes,
        "memory_reserved": lambda *_: device.reserved_bytes,
        "max_memory_reserved": lambda *_: device.max_reserved_bytes,
        "memory_cached": lambda *_: device.reserved_bytes,
        "memory_stats": stats,
        "memory_summary": lambda *_, **__: "".join(f"{name}: {value:,}\n" for name, value in stats().items()),
        "reset_peak_memory_stats": reset,
        "reset_max_memory_allocated": reset,
        "reset_max_memory_cached": reset,
        "reset_accumulated_memory_stats": lambda *_: None,
        "empty_cache": device.empty_cache,
    }


def _actions() -> dict[str, Any]:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    def set_device(which: Any) -> None:
        index = which if isinstance(which, int) else getattr(which, "index", None) or 0
        if index > 0:
            raise RuntimeError(f"CUDA error: invalid device ordinal (a dry run has one device, not cuda:{index})")

    stream = _Stream()
    silent = ("init", "synchronize", "ipc_collect", "manual_seed", "manual_seed_all", "seed", "seed_all")
    return {
        **dict.fromkeys((*silent, "set_rng_state", "set_rng_state_all"), nothing),
        "set_per_process_memory_fraction": _refuse_fraction,
        "_lazy_init": _guarded_init(threading.get_ident()),
        "set_device": set_device,
        "device": lambda *_: nullcontext(),
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": lambda *_: stream,
        "default_stream": lambda *_: stream,
        "set_stream": nothing,
        "stream": lambda *_: nullcontext(),
    }


def _guarded_init(owner: int) -> Callable[[], None]:
    """``_lazy_init``: torch's C++ calls it where no mode of the dry run is in force, and then believes in a device."""

    def lazy_init() -> None:
        if threading.get_ident() != owner:
            raise CaptureError(
                f"{user_line()}: a dry run follows the thread that started it; this one works on the device as well"
            )

    return lazy_init


def _refuse_fraction(*_: Any, **__: Any) -> None:
    raise CaptureError(
        "a dry run takes its memory fraction before it starts: record with conf='per_process_memory_fraction:0.8' "
        "(command line: --conf per_process_memory_fraction:0.8)"
    )


def _accelerator() -> dict[str, Callable[..., Any]]:
    import torch

    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_accelerator": lambda *_, **__: torch.device("cuda"),
        "current_device_index": lambda: 0,
        "current_device_idx": lambda: 0,
        "set_device_index": lambda *_: None,
        "synchronize": lambda *_: None,
        "current_stream": lambda *_: _Stream(),
    }


def _generator_class() -> Any:
    """``torch.Generator`` that takes ``cuda``; instances are ordinary generators of the host."""
    import torch

    original = torch.Generator

    class _AnyDevice(type):
        def __call__(cls, device: Any = "cpu") -> Any:  # noqa: ARG002
            return original("cpu")

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

    return _AnyDevice("Generator", (), {"__module__": "torch", "__doc__": original.__doc__})
