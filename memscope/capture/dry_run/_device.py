"""The simulated device of a dry run: the allocator simulator behind it, and what ``torch.cuda`` answers about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from memscope.capture.patches import Patches
from memscope.capture.stacks import StackRecorder, user_line
from memscope.device.limits import Limits
from memscope.errors import CaptureError
from memscope.gpus import GpuModel
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import Action, TieRule

if TYPE_CHECKING:
    from memscope.replay.config import CachingAllocatorConfig
    from memscope.trace.tables import SegmentTable

Clock = Callable[[], int]


class SimulatedDevice:
    """One device whose memory is only counted.

    Every request and release is handed to the caching allocator's simulator, and every event that this leads to is
    added to the trace with the Python stack that caused it.

    Parameters
    ----------
    builder
        The trace being made.
    gpu
        The device that is stood in for.
    config
        The allocator's settings.
    tie_rule
        Which of equal free blocks is taken (it depends on the PyTorch version).
    stacks
        Where stacks come from.
    clock
        Nanoseconds since the start of the run.
    """

    def __init__(
        self,
        builder: TraceBuilder,
        gpu: GpuModel,
        config: CachingAllocatorConfig,
        *,
        tie_rule: TieRule,
        stacks: StackRecorder,
        clock: Clock | None = None,
    ) -> None:
        self.builder = builder
        self.gpu = gpu
        self.stream = 0
        self._allocator = CachingAllocator(config, Limits(gpu.total_bytes, gpu.context_bytes), tie_rule=tie_rule)
        self._stacks = stacks
        start_ns = time.perf_counter_ns()
        self.clock: Clock = clock or (lambda: time.perf_counter_ns() - start_ns)
        self._stack_of: dict[int, int] = {}
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.max_allocated_bytes = 0
        self.max_reserved_bytes = 0
        self.n_ooms = 0

    def malloc(self, requested_bytes: int) -> tuple[int, int]:
        """Allocate on the current stream.

        Returns
        -------
        tuple of int
            The alloc event's position in the trace, and the address.

        Raises
        ------
        SimulatedOutOfMemoryError
            If the device has no room, after what the allocator tries first; the ``oom`` event is in the trace.
        """
        stack_id = self._stacks.current()
        try:
            address = self._allocator.malloc(requested_bytes, stream=self.stream)
        except SimulatedOutOfMemoryError:
            self.n_ooms += 1
            self._record(stack_id)
            raise
        self._record(stack_id)
        event = self.builder.n_events - 1
        self._stack_of[address] = stack_id
        return event, address

    def free(self, address: int) -> None:
        """Release an allocation."""
        self._allocator.free(address)
        self._stack_of.pop(address, None)
        self._record(self._stacks.current())

    def empty_cache(self) -> None:
        """Give free segments back to the device."""
        self._allocator.empty_cache()
        self._record(self._stacks.current())

    def reset_peaks(self) -> None:
        """Forget the peaks, as ``torch.cuda.reset_peak_memory_stats`` does."""
        self.max_allocated_bytes = self.allocated_bytes
        self.max_reserved_bytes = self.reserved_bytes

    @property
    def free_bytes(self) -> int:
        """Memory that the driver would report as free."""
        return self.gpu.usable_bytes - self.reserved_bytes

    def _record(self, stack_id: int) -> None:
        now_ns = self.clock()
        for action, address, size_bytes, stream, pool in self._allocator.drain_events():
            if action == Action.OOM:
                self.builder.add_sample(time_ns=now_ns, device_free_bytes=self.free_bytes)
            self.builder.add_event(
                action,
                address=address,
                size_bytes=size_bytes,
                time_ns=now_ns,
                stream=stream,
                pool=pool,
                stack_id=stack_id,
            )
            self._count(int(action), size_bytes)
        self.allocated_bytes = self._allocator.stats.allocated_bytes
        self.max_allocated_bytes = max(self.max_allocated_bytes, self.allocated_bytes)
        self.max_reserved_bytes = max(self.max_reserved_bytes, self.reserved_bytes)

    def _count(self, action: int, size_bytes: int) -> None:
        if action in (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP):
            self.reserved_bytes += size_bytes
        elif action in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP):
            self.reserved_bytes -= size_bytes

    def write_final_state(self, builder: TraceBuilder) -> None:
        """Write the segments and blocks of this moment into a trace."""
        state = self._allocator.state()
        segment_ids = [self._add_segment(builder, state.segments, row) for row in range(len(state.segments))]
        blocks = state.blocks
        for row in range(len(blocks)):
            address = int(blocks.address[row])
            builder.add_block(
                segment_ids[int(blocks.segment_id[row])],
                address=address,
                size_bytes=int(blocks.size_bytes[row]),
                requested_bytes=int(blocks.requested_bytes[row]),
                state=int(blocks.state[row]),
                stack_id=self._stack_of.get(address, -1),
            )

    def _add_segment(self, builder: TraceBuilder, segments: SegmentTable, row: int) -> int:
        return builder.add_segment(
            address=int(segments.address[row]),
            size_bytes=int(segments.size_bytes[row]),
            is_large=bool(segments.is_large[row]),
            is_expandable=bool(segments.is_expandable[row]),
            stream=self._allocator.stream_handles[int(segments.stream_id[row])],
            pool=self._allocator.pools[int(segments.pool_id[row])],
        )


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
