"""The recording that needs no GPU: a real PyTorch program run on tensors without memory, on a simulated device."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from memscope.capture.dry_run._cuda_api import patch_cuda
from memscope.capture.dry_run._device import Clock, Devices, SimulatedDevice
from memscope.capture.dry_run._ended import end_tensors
from memscope.capture.dry_run._kernel_choices import Autocast
from memscope.capture.dry_run._modes import guarded_thread, hiding, modes_of
from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._redirect import Redirector
from memscope.capture.dry_run._saving import Saving
from memscope.capture.dry_run._sink import DryRunSink
from memscope.capture.dry_run._storages import OwnerBook, RunContext, StorageTable
from memscope.capture.dry_run._streams import Streams
from memscope.capture.dry_run.distributed.distributed import Distributed
from memscope.capture.dry_run.surface.appearance import patch_appearance
from memscope.capture.dry_run.surface.flex_attention import patch_flex_attention
from memscope.capture.dry_run.surface.host_memory import HostMemory
from memscope.capture.dry_run.surface.tools import patch_tools
from memscope.capture.dry_run.values import known as known_values
from memscope.capture.environment import allocator_settings, tie_rule_of
from memscope.capture.keeping import DEFAULT_MAX_LOSS_S, Keeper
from memscope.capture.kv_caches import CacheLeaf
from memscope.capture.oom import OomFile
from memscope.capture.ownership import ModulePaths
from memscope.capture.patches import Patches
from memscope.capture.stacks import StackRecorder
from memscope.capture.watcher import Watcher
from memscope.errors import CaptureError, UsageError
from memscope.gpus import GpuModel
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.trace import Trace
from memscope.units import format_bytes

_NOTES = (
    "a dry run: tensors without values made real requests, the allocator simulator answered them",
    "the workspaces of cuBLAS and cuBLASLt are modelled: one each for every stream with products, and others for those "
    "of backward passes, as the release of PyTorch takes them",
    "what kernels take inside one operation is modelled, after PyTorch 2.11, for reductions, sorts, scans, attention, "
    "gradients of embeddings and indices, losses, and convolutions and recurrent networks without cuDNN",
    "not seen: cuDNN's plans (published: up to 36 GB for one convolution), Triton's kernels, cuSOLVER, cuFFT",
    "torch.compile is left out: compiled functions run eagerly, flex attention as one kernel where anything is",
    "modelled: work on a side stream is done when the next memory is asked for",
)


class _Keeping(NamedTuple):
    """What is kept of a dry run while it goes on: beside which file, how often, and over what."""

    path: Path | None
    max_loss_s: float
    overwrite: bool


class DryRun:
    """One dry run, from :meth:`start` to :meth:`stop`; then :attr:`trace` has what happened.

    Parameters
    ----------
    gpu
        The device to stand in for.
    conf
        Its ``PYTORCH_ALLOC_CONF``.
    has_stacks
        Whether Python stacks are recorded.
    strip_prefixes
        Folders cut off the front of file names in stacks.
    clock
        Nanoseconds since the start; the host's own time by default.
    rank
        The process's rank among several, None where there is one.
    path
        The file that will be written of it, None for none.
    on_oom
        Whether what was recorded until memory first ran out is kept in a file of its own.
    n_devices, device_index
        How many devices of the kind there are, and which of them the program is to use.
    max_loss_s
        How much of the run may be lost when the process is killed.
    overwrite
        Whether the folder of an earlier recording that was cut off may be replaced.
    says_answers
        Whether the first value that is read is said on stderr; the trace counts them all the same.
    """

    def __init__(
        self,
        gpu: GpuModel,
        conf: str = "",
        *,
        has_stacks: bool = True,
        strip_prefixes: tuple[str, ...] = (),
        clock: Clock | None = None,
        rank: int | None = None,
        path: Path | None = None,
        on_oom: bool = True,
        n_devices: int = 1,
        device_index: int = 0,
        max_loss_s: float = DEFAULT_MAX_LOSS_S,
        overwrite: bool = False,
        says_answers: bool = True,
    ) -> None:
        import torch

        self.gpu = gpu
        self._conf = conf
        self._rank = rank
        self._oom_file = OomFile(path, rank, is_wanted=on_oom)
        self._tie_rule = tie_rule_of(torch.__version__)
        config = CachingAllocatorConfig.parse(conf, tie_rule=self._tie_rule)
        if config.backend != "native":
            raise CaptureError(f"a dry run simulates PyTorch's native allocator only, not backend:{config.backend}")
        self._asked = config
        builder = TraceBuilder()
        stacks = StackRecorder(builder.stacks, is_enabled=has_stacks, strip_prefixes=strip_prefixes)
        start_ns = time.perf_counter_ns()
        clock = clock or (lambda: time.perf_counter_ns() - start_ns)
        self._devices = Devices(
            [
                SimulatedDevice(builder, gpu, config, tie_rule=self._tie_rule, stacks=stacks, clock=clock, index=index)
                for index in range(n_devices)
            ]
        )
        self._devices.enter(device_index)
        self.device = self._devices.current
        self._environment_conf = allocator_settings()
        for device in self._devices:
            device.before_first = self._read_settings
        paths = ModulePaths()
        self._context = RunContext(self.device, paths)
        self._owners = OwnerBook(builder)
        self._storages = StorageTable(self._devices, self._owners, self._context)
        self._builder = builder
        self._strip_prefixes = strip_prefixes
        self._patches = Patches()
        self._modes = ExitStack()
        self._router = OperationRouter(self._storages, gpu, self._out_of_memory)
        self._router.says_answers = says_answers
        parts = _Parts(self._router, self._storages, self._owners, self._context)
        self._distributed = Distributed(parts, self._patches)
        self._sink = DryRunSink(
            self._context,
            self._storages,
            self._owners,
            self._router,
            paths=paths,
            stacks=stacks,
            on_move=lambda: self._watcher.look_for_generation(),
        )
        self._watcher = Watcher(self._sink, paths, self._patches)
        self.trace: Trace | None = None
        self._keeping = _Keeping(path, max_loss_s, overwrite)
        self._keeper: Keeper | None = None

    def start(self) -> None:
        """Take over torch until :meth:`stop`.

        Raises
        ------
        CaptureError
            If fake tensors are in use already.
        """
        import torch
        from torch._subclasses import fake_tensor

        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            raise CaptureError("a dry run cannot start inside a FakeTensorMode: start it outside, at the program's top")
        autocast = Autocast(self._router.is_device_tensor)
        saving = Saving(self._router, self._storages)
        streams = Streams(self._devices)
        self._keep()
        redirector = Redirector(
            self._router, autocast, self._sink.moved_to_device, storages=self._storages, streams=streams
        )
        distributed = self._distributed
        modes = modes_of(self._router, autocast, distributed.on_wrapped)
        self._router.fake_mode, self._router.modes, self._sink.call_mode = modes[0], modes, modes[-1]
        try:
            patch_cuda(self._patches, self._devices, streams, self._built)
            patch_appearance(self._patches, self._router)
            self._patches.set(fake_tensor, "init_gpu_context", lambda *_: None)
            self._patches.set(
                fake_tensor.FakeTensor, "__torch_dispatch__", hiding(fake_tensor.FakeTensor, self._router)
            )
            redirector.install(self._patches)
            saving.install(self._patches)
            self._router.host_memory = HostMemory(self._router, fake_tensor.FakeTensor)
            self._router.host_memory.install(self._patches)
            patch_tools(self._patches)
            patch_flex_attention(self._patches, lambda: self._sink.has_compiled)
            distributed.install()
            self._patches.set(threading.Thread, "_bootstrap_inner", guarded_thread(self._router))
            self._watcher.install()
            for mode in modes:
                self._modes.enter_context(mode)
        except BaseException:
            if self._keeper is not None:
                self._keeper.stop()
                self._keeper.remove()
            self._leave()
            raise

    def stop(self) -> None:
        """Give torch back as it was, and make the trace; a second call does nothing."""
        if self.trace is not None:
            return
        if self._keeper is not None:
            self._keeper.stop()
        try:
            self._watcher.scan()
        finally:
            self._leave()
        self.trace = self._built()
        self._storages.close()
        end_tensors(self._router.fake_mode)

    def snapshot(self) -> Trace:
        """The trace until now; the recording goes on.

        Raises
        ------
        UsageError
            If the recording has ended.
        """
        if self.trace is not None:
            raise UsageError("a snapshot can be taken while the recording is under way")
        self._watcher.scan()
        return self._built()

    def explain(self, error: BaseException) -> None:
        """Say in an out-of-memory error where the trace is, and why memory ran out."""
        self._oom_file.explain(error)

    def _read_settings(self) -> None:
        """Take the allocator settings that the program has put into its environment since the start."""
        conf = allocator_settings()
        if conf != self._environment_conf:
            in_force = list(conf.values())[-1] if conf else ""
            for device in self._devices:
                device.configure(CachingAllocatorConfig.parse(in_force, tie_rule=self._tie_rule))

    def _built(self) -> Trace:
        """The trace of what has happened until now."""
        builder = self._builder
        self._context.write_marks(builder)
        for device in self._devices:
            device.write_final_state(builder)
        trace = builder.build(self._metadata())
        builder.forget_final()
        return trace

    def step(self, name: str | None = None) -> None:
        """A step of the program ended."""
        self._watcher.step(name)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A phase that the program names."""
        return self._watcher.user_phase(name)

    def written(self) -> None:
        """The trace is in its file: what was kept beside it is no longer needed."""
        if self._keeper is not None:
            self._keeper.remove()

    def know(self, model: Any, optimizer: Any) -> None:
        """Learn names from a model and an optimizer."""
        self._watcher.know(model, optimizer)

    def know_cache(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:
        """Note what a key/value cache holds now; its parts with their numbers."""
        return self._watcher.know_cache(cache)

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""
        self._owners.push_tag(name)

    def pop_tag(self) -> None:
        """End the innermost tag."""
        self._owners.pop_tag()

    def tag(self, tensor: Any, name: str) -> None:
        """Tag the allocation behind a tensor."""
        allocation = self._storages.of(tensor)
        if allocation is not None:
            self._owners.tag(allocation, name)

    def _shortened(self, place: str) -> str:
        """A ``file:line`` without the folders to strip."""
        return next((place.removeprefix(p) for p in self._strip_prefixes if place.startswith(p)), place)

    def _keep(self) -> None:
        """Begin to keep what is recorded on disk, where there will be a file."""
        path, max_loss_s, overwrite = self._keeping
        if path is not None and hasattr(os, "fork"):
            self._keeper = Keeper(
                path,
                self._built,
                lambda: self._builder.n_events,
                lambda: not any(device.is_serving for device in self._devices),
                max_loss_s=max_loss_s,
                overwrite=overwrite,
            )
            self._keeper.start(self._metadata())

    def _leave(self) -> None:
        try:
            self._modes.close()
        finally:
            self._patches.undo()

    def _out_of_memory(self, error: SimulatedOutOfMemoryError) -> Exception:
        """What CUDA would raise in the program, in its words."""
        import torch

        self._watcher.scan()
        device = self._storages.device
        unused = device.reserved_bytes - device.allocated_bytes
        for observer in device.oom_observers:
            observer(device.index, error.rounded_bytes, device.reserved_bytes, device.free_bytes)
        self._oom_file.ran_out(device.index, time.time_ns(), self._built)
        cap = device.config.memory_fraction
        allowed = f"{format_bytes(int(cap * self.gpu.total_bytes))} allowed; " if cap < 1 else ""
        raised = torch.OutOfMemoryError(
            f"CUDA out of memory. Tried to allocate {format_bytes(error.requested_bytes)}. GPU {device.index} has a "
            f"total capacity of {format_bytes(self.gpu.total_bytes)} of which {format_bytes(device.free_bytes)} is "
            f"free. {allowed}Of the allocated memory {format_bytes(device.allocated_bytes)} is allocated by PyTorch, "
            f"and {format_bytes(unused)} is reserved by PyTorch but unallocated. "
            f"(simulated {self.gpu.name}, memscope dry run)"
        )
        self._oom_file.explain(raised)
        return raised

    def _metadata(self) -> TraceMetadata:
        import torch

        gpu = self.gpu
        answers = self._router.fixed_answers
        notes = [*_NOTES, f"modelled: {format_bytes(gpu.context_bytes)} of the device are the CUDA context's"]
        if self.device.settings_not_followed is not None:
            notes.append(
                f"not followed: the program changed the allocator's settings to {self.device.settings_not_followed!r} "
                "while memory was in use"
            )
        if answers:
            notes.append(
                f"{answers.total()} reads of values that a dry run does not have were answered with 1.0, 1 or False: "
                + ", ".join(f"{self._shortened(place)} ({n})" for place, n in answers.most_common(5))
            )
        # A fraction that the program set by a call is none of the settings.
        settings = replace(self.device.config, memory_fraction=self._asked.memory_fraction)
        return TraceMetadata(
            source="dry-run",
            torch_version=torch.__version__,
            tie_rule=self._tie_rule,
            alloc_conf=self._conf if settings == self._asked else settings.to_conf(),
            allocator_settings=self.device.config.to_settings(),
            device_names=dict.fromkeys(range(len(self._devices)), gpu.device_name),
            device_total_bytes=dict.fromkeys(range(len(self._devices)), gpu.total_bytes),
            memory_fraction={d.index: d.config.memory_fraction for d in self._devices if d.config.memory_fraction < 1},
            rank=self._rank,
            n_events_lost=0,
            has_pool_ids=True,
            notes=tuple(notes),
            extra={
                "gpu": gpu.name,
                "context_bytes_modelled": gpu.context_bytes,
                "n_fixed_answers": answers.total(),
                **self._distributed.extra(),
            },
        )


class _Parts:
    """A dry run as programs of many processes need it."""

    def __init__(self, router: OperationRouter, storages: StorageTable, owners: OwnerBook, context: RunContext) -> None:
        from torch._subclasses.fake_tensor import FakeTensor

        self._router = router
        self._storages = storages
        self._owners = owners
        self._context = context
        self._fake_type = FakeTensor
        self.is_on_device = router.is_device_tensor
        self.aside = router.aside
        self.value_of = known_values.value_of

    def is_without_memory(self, value: object) -> bool:
        return isinstance(value, self._fake_type)

    def handle(self, find: Callable[[Any], Callable[..., Any] | None]) -> None:
        self._router.handler_of = find

    @contextmanager
    def leaving(self) -> Iterator[None]:
        router = self._router
        outer, router.is_leaving_device = router.is_leaving_device, True
        try:
            yield
        finally:
            router.is_leaving_device = outer

    @contextmanager
    def making(self, *, is_on_device: bool, category: Category, label: str) -> Iterator[None]:
        router, owners = self._router, self._owners
        outer = router.call_has_device, owners.owner_at_birth
        router.call_has_device, owners.owner_at_birth = is_on_device, (category, label)
        try:
            yield
        finally:
            router.call_has_device, owners.owner_at_birth = outer

    def new(self, shape: Sequence[int], dtype: Any) -> Any:
        import torch

        device = torch.device("cuda", self._storages.device.index)
        return self._router.dispatch(
            torch.ops.aten.empty.memory_format, (list(shape),), {"dtype": dtype, "device": device}
        )

    def own(self, tensor: Any, category: Category, label: str) -> None:
        allocation = self._storages.of(tensor) if self.is_on_device(tensor) else None
        if allocation is not None:
            self._owners.settle(allocation, category, label)

    def place(self) -> str:
        return self._context.place

    def give(self, tensor: Any, value: Any) -> None:
        known_values.forget(tensor)
        if value is not None:
            known_values.remember(tensor, value)
