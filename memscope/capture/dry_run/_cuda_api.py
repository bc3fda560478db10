"""What ``torch.cuda`` says and does in a dry run: the simulated device described, its memory and its settings."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

from memscope.capture.dry_run._device import SimulatedDevice
from memscope.capture.dry_run._streams import Event, Streams
from memscope.capture.patches import Patches
from memscope.capture.stacks import user_line
from memscope.errors import CaptureError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.snapshot.write import snapshot_dict, write_snapshot
from memscope.trace.trace import Trace


def patch_cuda(patches: Patches, device: SimulatedDevice, streams: Streams, snapshot: Callable[[], Trace]) -> None:
    """Make ``torch.cuda`` describe the simulated device.

    Parameters
    ----------
    snapshot
        The trace until now, for the program's own snapshots.
    """
    import torch

    history = _History(snapshot)
    answers = {**_queries(device), **_memory(device, history), **_pools(streams), **_actions(device)}
    cuda = torch.cuda
    for name, answer in answers.items():
        for owner in (cuda, cuda.memory, cuda.random, cuda.streams, cuda.graphs, cuda.nvtx):
            if name in vars(owner):
                patches.set(owner, name, answer)
    for name in ("range_push", "range_pop", "range_start", "range_end", "mark"):
        patches.set(cuda.nvtx, name, lambda *_, **__: 0)
    patches.set(torch.backends.cudnn, "is_acceptable", lambda *_: False)  # without a word that this build has none
    for name, dtype in _typed_constructors().items():
        patches.set(cuda, name, _constructor(dtype))
    of_the_build = {
        "_cuda_getCurrentRawStream": lambda *_: streams.current.cuda_stream,
        "_host_emptyCache": lambda *_: None,
        "_cuda_attach_out_of_memory_observer": device.oom_observers.append,
    }
    for name, answer in of_the_build.items():
        if not hasattr(torch._C, name):
            patches.set(torch._C, name, answer)
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None:
        for name, answer in _accelerator(device, streams).items():
            if name in vars(accelerator):
                patches.set(accelerator, name, answer)
    for name, answer in _accelerator_of_the_build(device).items():
        if hasattr(torch._C, name):
            patches.set(torch._C, name, answer)
    patches.set(torch, "Generator", _generator_class())
    patches.set(torch, "Stream", streams.classes()["Stream"])
    patches.set(torch, "Event", Event)


def _queries(device: SimulatedDevice) -> dict[str, Callable[..., Any]]:
    gpu = device.gpu
    properties = SimpleNamespace(
        name=gpu.device_name,
        major=gpu.capability[0],
        minor=gpu.capability[1],
        total_memory=gpu.total_bytes,
        multi_processor_count=gpu.n_multiprocessors,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=99 << 10,
        shared_memory_per_multiprocessor=100 << 10,
        regs_per_multiprocessor=65_536,
        L2_cache_size=40 << 20,
        pci_bus_id=0,
        pci_device_id=0,
        pci_domain_id=0,
        uuid="GPU-00000000-0000-0000-0000-000000000000",
        warp_size=32,
        is_integrated=False,
        is_multi_gpu_board=False,
        gcnArchName="",
    )
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: device.count,
        "current_device": lambda: device.index,
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


class _History:
    """The program's own recording of its memory, which a dry run makes anyhow."""

    def __init__(self, snapshot: Callable[[], Trace]) -> None:
        self._snapshot = snapshot

    def snapshot(self, *_: Any, **__: Any) -> dict[str, Any]:
        """``_snapshot``."""
        return snapshot_dict(self._snapshot())

    def segments(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """``memory_snapshot``."""
        found: list[dict[str, Any]] = self.snapshot()["segments"]
        return found

    def dump(self, filename: str = "dump_snapshot.pickle", *_: Any, **__: Any) -> None:
        """``_dump_snapshot``."""
        write_snapshot(self._snapshot(), filename, overwrite=True)


def _memory(device: SimulatedDevice, history: _History) -> dict[str, Callable[..., Any]]:
    statistics = device.statistics
    allocated, reserved = statistics.of("allocated_bytes"), statistics.of("reserved_bytes")

    def reset(*_: Any) -> None:
        statistics.reset_peaks()

    def configure(settings: str) -> None:
        device.configure(CachingAllocatorConfig.parse(settings, tie_rule=device.tie_rule))
        if device.settings_not_followed is not None:
            sys.stderr.write(
                f"memscope: dry run: {user_line()} changes the allocator's settings while memory is in use: "
                "the simulation goes on with those before\n"
            )

    def nested(*_: Any, **__: Any) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, value in device.memory_stats().items():
            *path, last = name.split(".")
            branch = tree
            for part in path:
                branch = branch.setdefault(part, {})
            branch[last] = value
        return tree

    return {
        "mem_get_info": lambda *_: (device.free_bytes, device.gpu.total_bytes),
        "memory_allocated": lambda *_: allocated.current,
        "max_memory_allocated": lambda *_: allocated.peak,
        "memory_reserved": lambda *_: reserved.current,
        "max_memory_reserved": lambda *_: reserved.peak,
        "memory_cached": lambda *_: reserved.current,
        "max_memory_cached": lambda *_: reserved.peak,
        "memory_stats": lambda *_, **__: device.memory_stats(),
        "memory_stats_as_nested_dict": nested,
        "memory_snapshot": history.segments,
        "_snapshot": history.snapshot,
        "_dump_snapshot": history.dump,
        "_record_memory_history": lambda *_, **__: None,
        "_set_allocator_settings": configure,
        "set_per_process_memory_fraction": lambda fraction, *_: device.limit(fraction),
        "get_per_process_memory_fraction": lambda *_: device.config.memory_fraction,
        "get_allocator_backend": lambda: "native",
        "list_gpu_processes": lambda *_: "GPU:0\nno processes are running",
        "reset_peak_memory_stats": reset,
        "reset_max_memory_allocated": reset,
        "reset_max_memory_cached": reset,
        "reset_accumulated_memory_stats": lambda *_: statistics.reset_accumulated(),
        "empty_cache": device.empty_cache,
    }


def _pools(streams: Streams) -> dict[str, Any]:
    @contextmanager
    def use_mem_pool(pool: Any, *_: Any, **__: Any) -> Iterator[None]:
        streams.begin(pool.id)
        try:
            yield
        finally:
            streams.end()

    return {
        **streams.classes(),
        "graph_pool_handle": lambda: streams.new_pool_id(is_handle=True),
        "use_mem_pool": use_mem_pool,
        "current_stream": lambda *_: streams.current,
        "default_stream": lambda *_: streams.default,
        "set_stream": streams.enter,
        "stream": streams.on,
    }


def _requiring(device: SimulatedDevice) -> Callable[[Any], None]:
    """``set_device``: refuses a device that is not there."""

    def set_device(which: Any) -> None:
        import torch

        device.require(torch.device(which).index if isinstance(which, str) else getattr(which, "index", which))

    return set_device


def _device_block(require: Callable[[Any], None]) -> Any:
    class DeviceBlock(nullcontext[None]):
        """``torch.cuda.device``: a block on the one device that there is."""

        def __init__(self, device: Any = None) -> None:
            super().__init__()
            require(device)

    return DeviceBlock


def _actions(device: SimulatedDevice) -> dict[str, Any]:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    silent = ("init", "synchronize", "ipc_collect", "manual_seed", "manual_seed_all", "seed", "seed_all")
    return {
        **dict.fromkeys((*silent, "set_rng_state", "set_rng_state_all"), nothing),
        "_lazy_init": _guarded_init(threading.get_ident()),
        "set_device": _requiring(device),
        "device": _device_block(_requiring(device)),
        "device_of": lambda *_: nullcontext(),
    }


def _guarded_init(owner: int) -> Callable[[], None]:
    """``_lazy_init``: torch's C++ calls it where no mode of the dry run is in force, and then believes in a device."""

    def lazy_init() -> None:
        if threading.get_ident() != owner:
            raise CaptureError(
                f"{user_line()}: a dry run follows the thread that started it; this one works on the device as well"
            )

    return lazy_init


def _accelerator(device: SimulatedDevice, streams: Streams) -> dict[str, Callable[..., Any]]:
    import torch

    return {
        "is_available": lambda: True,
        "device_count": lambda: device.count,
        "current_accelerator": lambda *_, **__: torch.device("cuda"),
        "current_device_index": lambda: device.index,
        "current_device_idx": lambda: device.index,
        "set_device_index": _requiring(device),
        "set_device_idx": _requiring(device),
        "synchronize": lambda *_: None,
        "current_stream": lambda *_: streams.current,
        "set_stream": streams.enter,
    }


def _accelerator_of_the_build(device: SimulatedDevice) -> dict[str, Callable[..., Any]]:
    """What torch's own code asks of its C++ about the accelerator."""
    import torch

    def exchange(index: int) -> int:
        device.require(None if index < 0 else index)
        return device.index

    return {
        "_get_accelerator": lambda *_: torch.device("cuda"),
        "_accelerator_getDeviceIndex": lambda: device.index,
        "_accelerator_setDeviceIndex": device.require,
        "_accelerator_exchangeDevice": exchange,
        "_accelerator_maybeExchangeDevice": exchange,
        "_accelerator_deviceCount": lambda: device.count,
        "_accelerator_synchronizeDevice": lambda *_: None,
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


def _typed_constructors() -> dict[str, Any]:
    import torch

    return {
        "FloatTensor": torch.float32,
        "DoubleTensor": torch.float64,
        "HalfTensor": torch.float16,
        "BFloat16Tensor": torch.bfloat16,
        "LongTensor": torch.int64,
        "IntTensor": torch.int32,
        "ShortTensor": torch.int16,
        "CharTensor": torch.int8,
        "ByteTensor": torch.uint8,
        "BoolTensor": torch.bool,
    }


def _constructor(dtype: Any) -> Callable[..., Any]:
    """``torch.cuda.FloatTensor`` and its like: of sizes, or of the values of a sequence."""

    def made(*args: Any) -> Any:
        import torch

        is_data = len(args) == 1 and not isinstance(args[0], int | torch.Size)
        if is_data:
            return torch.as_tensor(args[0], dtype=dtype, device="cuda")
        return torch.empty(*args, dtype=dtype, device="cuda")

    return made
