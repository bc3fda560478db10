"""What ``torch.cuda`` says and does in a dry run: the simulated device described, its memory and its settings."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from memscope.capture.dry_run._device import Devices, SimulatedDevice
from memscope.capture.dry_run._streams import Event, Streams, index_of
from memscope.capture.patches import Patches
from memscope.capture.stacks import user_line
from memscope.errors import CaptureError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.snapshot.write import snapshot_dict, write_snapshot
from memscope.trace.trace import Trace


def patch_cuda(patches: Patches, devices: Devices, streams: Streams, snapshot: Callable[[], Trace]) -> None:
    """Make ``torch.cuda`` describe the simulated devices.

    Parameters
    ----------
    snapshot
        The trace until now, for the program's own snapshots.
    """
    import torch

    history = _History(snapshot)
    answers = {**_queries(devices), **_memory(devices, history), **_pools(streams), **_actions(devices)}
    cuda = torch.cuda
    for name, answer in answers.items():
        for owner in (cuda, cuda.memory, cuda.random, cuda.streams, cuda.graphs, cuda.nvtx):
            if name in vars(owner):
                patches.set(owner, name, answer)
    for name in ("range_push", "range_pop", "range_start", "range_end", "mark"):
        patches.set(cuda.nvtx, name, lambda *_, **__: 0)
    patches.set(torch.backends.cudnn, "is_acceptable", lambda *_: False)  # without a word that this build has none

    def observe(observer: Callable[[int, int, int, int], None]) -> None:
        for device in devices:
            device.oom_observers.append(observer)

    of_the_build: dict[str, Callable[..., Any]] = {
        "_cuda_getCurrentRawStream": lambda *_: streams.current.cuda_stream,
        "_host_emptyCache": lambda *_: None,
        "_cuda_getStreamFromExternal": lambda *_: (0, 0, 1),
        "_cuda_getCurrentBlasHandle": lambda *_: 0,
        "_cuda_clearCublasWorkspaces": lambda *_: None,
        "_cuda_canDeviceAccessPeer": lambda *_: True,
        "_cuda_cudaCachingAllocator_enable": lambda *_: None,
        "_cuda_set_sync_debug_mode": lambda *_: None,
        "_cuda_get_sync_debug_mode": lambda *_: 0,
        "_cuda_attach_out_of_memory_observer": observe,
    }
    for name, answer in of_the_build.items():
        if not hasattr(torch._C, name):
            patches.set(torch._C, name, answer)
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None:
        memory = getattr(accelerator, "memory", accelerator)
        for name, answer in {**_accelerator(streams, devices), **_accelerator_memory(answers)}.items():
            for owner in (accelerator, memory):
                if name in vars(owner):
                    patches.set(owner, name, answer)
    for name, answer in _accelerator_of_the_build(devices).items():
        if hasattr(torch._C, name):
            patches.set(torch._C, name, answer)
    patches.set(torch, "Stream", streams.classes()["Stream"])
    patches.set(torch, "Event", Event)


def _queries(devices: Devices) -> dict[str, Callable[..., Any]]:
    gpu = devices.current.gpu
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
        "device_count": lambda: len(devices),
        "current_device": lambda: devices.current_index,
        "get_device_name": lambda *_: gpu.device_name,
        "get_device_capability": lambda *_: gpu.capability,
        "get_device_properties": lambda *_: properties,
        "get_arch_list": lambda: [f"sm_{gpu.capability[0]}{gpu.capability[1]}"],
        "is_bf16_supported": lambda *_, **__: gpu.capability >= (8, 0),
        "is_tf32_supported": lambda: gpu.capability >= (8, 0),
        "is_current_stream_capturing": lambda: False,
        **dict.fromkeys(("utilization", "memory_usage", "temperature", "power_draw", "clock_rate"), lambda *_: 0),
        "device_memory_used": lambda device=None: gpu.total_bytes - devices.of(index_of(device)).free_bytes,
        "get_rng_state": lambda *_: torch_rng_state(),
        "get_rng_state_all": lambda: [torch_rng_state() for _ in devices],
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


def _memory(devices: Devices, history: _History) -> dict[str, Callable[..., Any]]:
    def of(which: Any = None) -> SimulatedDevice:
        return devices.of(index_of(which))

    def count(name: str, number: str) -> Callable[..., int]:
        return lambda device=None: getattr(of(device).statistics.of(name), number)

    def reset(device: Any = None) -> None:
        of(device).statistics.reset_peaks()

    def empty_cache() -> None:
        for device in devices:
            device.empty_cache()

    def configure(settings: str) -> None:
        for device in devices:
            device.configure(CachingAllocatorConfig.parse(settings, tie_rule=device.tie_rule))
        if devices.current.settings_not_followed is not None:
            sys.stderr.write(
                f"memscope: dry run: {user_line()} changes the allocator's settings while memory is in use: "
                "the simulation goes on with those before\n"
            )

    return {
        "mem_get_info": lambda device=None: (of(device).free_bytes, of(device).gpu.total_bytes),
        "memory_allocated": count("allocated_bytes", "current"),
        "max_memory_allocated": count("allocated_bytes", "peak"),
        "memory_reserved": count("reserved_bytes", "current"),
        "max_memory_reserved": count("reserved_bytes", "peak"),
        "memory_cached": count("reserved_bytes", "current"),
        "max_memory_cached": count("reserved_bytes", "peak"),
        "memory_stats": lambda device=None: of(device).memory_stats(),
        "memory_stats_as_nested_dict": lambda device=None: _as_tree(of(device).memory_stats()),
        "memory_snapshot": history.segments,
        "_snapshot": history.snapshot,
        "_dump_snapshot": history.dump,
        "_record_memory_history": lambda *_, **__: None,
        "_set_allocator_settings": configure,
        "set_per_process_memory_fraction": lambda fraction, device=None: of(device).limit(fraction),
        "get_per_process_memory_fraction": lambda device=None: of(device).config.memory_fraction,
        "get_allocator_backend": lambda: "native",
        "list_gpu_processes": lambda *_: "GPU:0\nno processes are running",
        "host_memory_stats": OrderedDict,
        "host_memory_stats_as_nested_dict": dict,
        "reset_peak_host_memory_stats": lambda: None,
        "reset_accumulated_host_memory_stats": lambda: None,
        "reset_peak_memory_stats": reset,
        "reset_max_memory_allocated": reset,
        "reset_max_memory_cached": reset,
        "reset_accumulated_memory_stats": lambda device=None: of(device).statistics.reset_accumulated(),
        "empty_cache": empty_cache,
    }


def _as_tree(stats: OrderedDict[str, int]) -> dict[str, Any]:
    """Counters by the parts of their names."""
    tree: dict[str, Any] = {}
    for name, value in stats.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


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
        "current_stream": lambda device=None: streams.current_of(index_of(device)),
        "default_stream": lambda device=None: streams.default_of(index_of(device)),
        "set_stream": streams.enter,
        "stream": streams.on,
    }


def _device_blocks(devices: Devices) -> dict[str, Any]:
    """``torch.cuda.device`` and its like: blocks in which another device is the current one."""
    import torch

    class device:  # noqa: N801  as PyTorch has it
        def __init__(self, device: Any) -> None:
            self.idx = index_of(device)
            devices.of(None if self.idx is None or self.idx < 0 else self.idx)

        def __enter__(self) -> None:
            self.prev_idx = devices.current_index
            devices.enter(self.idx)

        def __exit__(self, *_: object) -> None:
            devices.enter(self.prev_idx)

    class device_of(device):  # noqa: N801
        def __init__(self, obj: Any) -> None:
            is_here = isinstance(obj, torch.Tensor) and obj.is_cuda
            super().__init__(obj.get_device() if is_here else None)

    return {"device": device, "device_of": device_of}


def _actions(devices: Devices) -> dict[str, Any]:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    silent = ("init", "synchronize", "ipc_collect", "manual_seed", "manual_seed_all", "seed", "seed_all")
    return {
        **dict.fromkeys((*silent, "set_rng_state", "set_rng_state_all"), nothing),
        **_device_blocks(devices),
        "_lazy_init": _guarded_init(threading.get_ident()),
        "set_device": lambda device: devices.enter(index_of(device)),
    }


def _guarded_init(owner: int) -> Callable[[], None]:
    """``_lazy_init``: torch's C++ calls it where no mode of the dry run is in force, and then believes in a device."""

    def lazy_init() -> None:
        if threading.get_ident() != owner:
            raise CaptureError(
                f"{user_line()}: a dry run follows the thread that started it; this one works on the device as well"
            )

    return lazy_init


def _accelerator(streams: Streams, devices: Devices) -> dict[str, Callable[..., Any]]:
    import torch

    return {
        "is_available": lambda: True,
        "device_count": lambda: len(devices),
        "current_accelerator": lambda *_, **__: torch.device("cuda"),
        "current_device_index": lambda: devices.current_index,
        "current_device_idx": lambda: devices.current_index,
        "set_device_index": lambda device: devices.enter(index_of(device)),
        "set_device_idx": lambda device: devices.enter(index_of(device)),
        "synchronize": lambda *_: None,
        "current_stream": lambda device=None: streams.current_of(index_of(device)),
        "set_stream": streams.enter,
    }


def _accelerator_of_the_build(devices: Devices) -> dict[str, Callable[..., Any]]:
    """What torch's own code asks of its C++ about the accelerator."""
    import torch

    def exchange(index: int) -> int:
        before = devices.current_index
        if index >= 0:
            devices.enter(index)
        return before

    return {
        "_get_accelerator": lambda *_: torch.device("cuda"),
        "_accelerator_getDeviceIndex": lambda: devices.current_index,
        "_accelerator_setDeviceIndex": devices.enter,
        "_accelerator_exchangeDevice": exchange,
        "_accelerator_maybeExchangeDevice": exchange,
        "_accelerator_deviceCount": lambda: len(devices),
        "_accelerator_synchronizeDevice": lambda *_: None,
    }


def _accelerator_memory(answers: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """``torch.accelerator``'s names of what ``torch.cuda`` answers."""
    same = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved", "memory_stats")
    return {
        **{name: answers[name] for name in (*same, "empty_cache", "reset_peak_memory_stats")},
        "reset_accumulated_memory_stats": answers["reset_accumulated_memory_stats"],
        "get_memory_info": answers["mem_get_info"],
        "empty_host_cache": lambda: None,
    }
