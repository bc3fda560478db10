"""Recording on a real GPU: PyTorch's own memory history, with steps, phases, tags and owners added."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from memscope.capture import oom
from memscope.capture.cuda._history import DEFAULT_MAX_HOST_BYTES, DEFAULT_MAX_LOSS_S, History, Stacks, max_events
from memscope.capture.cuda._sink import CudaSink, place_of
from memscope.capture.cuda.allocator import (
    EventCounter,
    describe_recording,
    find_obstacle,
    memory_statistics,
    recorded_devices,
)
from memscope.capture.driver_usage.probes import UsageProbes
from memscope.capture.driver_usage.sampler import UsageSampler
from memscope.capture.environment import CaptureEnvironment, read_environment
from memscope.capture.kv_caches import CacheLeaf
from memscope.capture.oom import OomFile
from memscope.capture.ownership import STRENGTH, ModulePaths
from memscope.capture.patches import Patches
from memscope.capture.watcher import Watcher
from memscope.errors import CaptureError, UsageError
from memscope.trace.categories import Category, tag_meaning
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.assembling import assemble
from memscope.trace.recording.folder import (
    Counts,
    is_being_made,
    is_unfinished,
    part_of,
    read_chunks,
    write_recording,
)
from memscope.trace.recording.notes import TAGGED_TENSOR, AddressOwner, OwnersNote, RecordingNotes, TagNote
from memscope.trace.recording.sampling import write_samples
from memscope.trace.trace import Trace


class RecordingFolder:
    """``FILE.part`` beside the file to come, or a temporary folder where there is none.

    Parameters
    ----------
    target
        The file that the recording becomes.
    overwrite
        Whether a recording of that name that was cut off may be replaced.

    Raises
    ------
    CaptureError
        If another process is recording to that name.
    UsageError
        If a recording of that name was cut off, and may not be replaced.
    """

    def __init__(self, target: Path | None, *, overwrite: bool) -> None:
        self._final = None if target is None else part_of(target.absolute())
        if self._final is None:
            self.path = Path(tempfile.mkdtemp(prefix="memscope-"))
            return
        if is_unfinished(self._final):
            if is_being_made(self._final):
                raise CaptureError(f"{self._final} is being recorded by another process: choose another name")
            if not overwrite:
                raise UsageError(
                    f"{self._final} is a recording that was cut off: keep it with memscope import {self._final}, "
                    "or choose another name, or pass overwrite=True"
                )
        self.path = self._final.with_name(f"{self._final.name}.{os.getpid()}")
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.path.mkdir()
        except OSError as error:
            raise UsageError(f"{self._final.parent} cannot be recorded to: {error.strerror or error}") from error

    def appear(self) -> Path:
        """Give the folder its name, once it can be opened, and return where it is."""
        if self._final is not None:
            if self._final.exists():
                shutil.rmtree(self._final)
            self.path = self.path.rename(self._final)
        return self.path

    def remove(self) -> None:
        """Remove it: the file is there. It stops being a recording's folder at once."""
        if self._final is not None and self.path == self._final:
            self.path = self.path.rename(self.path.with_name(f"{self.path.name}.{os.getpid()}"))
        shutil.rmtree(self.path, ignore_errors=True)


_RECORDED_BEFORE = "The program was recording a history of its own before: it was cleared."


class CudaHistory:
    """A recording by ``torch.cuda.memory``'s history, from :meth:`start` to :meth:`stop`.

    While it runs it is drained into a folder beside the file to come, which can be opened if the process is killed.

    Parameters
    ----------
    path
        The file that will be written of it, None for none.
    stacks
        The stacks that are recorded: ``python``, ``all`` with the C++ frames too, or None.
    device
        The only device to record, by PyTorch's index; None records all.
    nvml
        Whether the devices' own count is sampled.
    on_oom
        Whether what was recorded until memory first ran out is kept in a file of its own.
    max_host_bytes
        Host memory that the history may take; it is drained before that is full.
    environment
        Who this process is among several; read from the environment's variables unless given.
    overwrite
        Whether the folder of an earlier recording that was cut off may be replaced.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        stacks: Stacks = "python",
        device: int | None = None,
        nvml: bool = True,
        on_oom: bool = True,
        max_host_bytes: int = DEFAULT_MAX_HOST_BYTES,
        environment: CaptureEnvironment | None = None,
        overwrite: bool = False,
    ) -> None:
        self._path = path
        self._stacks = stacks
        self._device = device
        self._has_nvml = nvml
        self._environment = read_environment() if environment is None else environment
        self._oom_file = OomFile(path, self._environment.rank, is_wanted=on_oom)
        self._max_entries = max_events(max_host_bytes, self._environment)
        self._overwrite = overwrite
        self._notes = RecordingNotes()
        self._patches = Patches()
        self._program_wants: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._pid = os.getpid()
        self._sampler: UsageSampler | None = None
        self._probes: UsageProbes | None = None
        self.trace: Trace | None = None
        self.history: History | None = None

    def start(self) -> None:
        """Switch the history on.

        Raises
        ------
        CaptureError
            If there is no CUDA device, its allocator keeps no history, or another process records to the same file.
        UsageError
            If a recording of that name was cut off and may not be replaced, or there is no such device.
        """
        import torch

        if not torch.cuda.is_available():
            raise CaptureError(
                "there is no CUDA device here: a dry run needs none (memscope run --dry-run, or backend='dry-run')"
            )
        torch.cuda.init()
        obstacle = find_obstacle()
        if obstacle is not None:
            raise CaptureError(f"nothing can be recorded here: {obstacle.finding}: {obstacle.advice}")
        n_devices = torch.cuda.device_count()
        if self._device is not None and not 0 <= self._device < n_devices:
            raise UsageError(f"there is no device {self._device} here: PyTorch sees {n_devices}")
        self._devices = recorded_devices(self._device)
        self._folder = RecordingFolder(self._path, overwrite=self._overwrite)
        try:
            self._begin()
        except BaseException:
            self._patches.undo()
            self._leave_devices()
            self._folder.remove()
            raise

    def stop(self) -> None:
        """Drain the rest, switch the history off, and make the trace; a second call does nothing."""
        if self.trace is not None or self.history is None:
            return
        oom.stop_listening(self._ran_out)
        try:
            self._watcher.finish()
        finally:
            self._patches.undo()
            self.history.stop()
            self._leave_devices()
            self._restore()
        self.trace = self._assembled(self.history.workspaces)
        if self._path is None:
            self._folder.remove()

    def snapshot(self) -> Trace:
        """The trace until now; the recording goes on.

        Raises
        ------
        UsageError
            If the recording has not begun, or has ended.
        """
        if self.history is None or self.trace is not None:
            raise UsageError("a snapshot can be taken while the recording is under way")
        if self._sampler is not None:
            self._sampler.sample_now()
        self._watcher.scan()
        return self._drained_until_now()

    def written(self) -> None:
        """The trace is in its file: the folder is no longer needed."""
        self._folder.remove()

    def step(self, name: str | None = None) -> None:
        """A step ended."""
        self._watcher.scan()
        self._watcher.step(name)
        if self.history is not None:
            self.history.drain_if_due(self._notes.marks[-1].calls)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A phase around a block."""
        return self._watcher.user_phase(name)

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""
        category, label = tag_meaning(name)
        self._notes.open_tags.append(TagNote(self._counter.calls(), None, int(category), label))

    def pop_tag(self) -> None:
        """End the innermost tag."""
        tag = self._notes.open_tags.pop()
        self._notes.tags.append(tag._replace(end=self._counter.calls()))

    def tag(self, tensor: Any, name: str) -> None:
        """Tag the allocation behind a tensor."""
        place = place_of(tensor)
        if place is not None:
            category, label = tag_meaning(name)
            self._notes.owners.append(
                OwnersNote(self._counter.calls(), (AddressOwner(*place, int(category), TAGGED_TENSOR, label),))
            )

    def know(self, model: Any, optimizer: Any) -> None:
        """Learn whose parameters, gradients and states to name."""
        self._watcher.know(model, optimizer)

    def know_cache(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:
        """Note what a key/value cache holds now; its parts with their numbers."""
        return self._watcher.know_cache(cache)

    def explain(self, error: BaseException) -> None:
        """Add a line to an out-of-memory error that says where the trace is, and why memory ran out."""
        self._oom_file.explain(error)

    def _begin(self) -> None:
        import torch

        if self._has_nvml:
            self._sample_driver_usage()
        self._counter = EventCounter(self._device)
        paths = ModulePaths()
        sink = CudaSink(self._notes, self._counter, paths, on_error=self.explain)
        self._watcher = Watcher(sink, paths, self._patches)
        self.history = History(
            self._folder.path,
            self._counter,
            self._notes,
            stacks=self._stacks,
            max_entries=self._max_entries,
            max_loss_s=self._environment.max_loss_s or DEFAULT_MAX_LOSS_S,
            device=self._device,
        )
        is_enabled = getattr(torch._C, "_cuda_isHistoryEnabled", None)
        self._was_recording = is_enabled is not None and bool(is_enabled())
        self._patches.set(torch.cuda.memory, "_record_memory_history", self._noted_for_later)
        self._counter.survive_resets(self._patches)
        self._created_ns = time.time_ns()
        self._stats_at_begin = memory_statistics(self._devices, "begin")
        write_recording(self._folder.path, os.getpid(), self._metadata())
        self.history.start()
        self.history.move(self._folder.appear())
        self.history.on_drained = self._drained
        self.history.watch()
        self._watcher.install()
        oom.listen(self._ran_out)

    def _sample_driver_usage(self) -> None:
        """Begin to sample what the drivers say is used, and to tell apart what is not PyTorch's."""
        import torch

        self._sampler = UsageSampler(self._devices).start()
        self._probes = UsageProbes(self._sampler.readers)
        if torch.cuda.device_count() == 1 or self._device is not None:
            # Among several devices the program may be about to choose another: a context would stay on this one.
            self._probes.probe_context(self._devices[0])
        self._probes.watch_collectives()

    def _leave_devices(self) -> None:
        if self._probes is not None:
            self._probes.stop()
        if self._sampler is not None:
            self._sampler.stop()

    def _drained(self) -> None:
        """Keep what would be lost with the process beside what was drained."""
        write_recording(self._folder.path, os.getpid(), self._with_reasons(self._metadata()))
        if self._sampler is not None:
            write_samples(self._folder.path, self._sampler.samples())

    def _assembled(self, workspaces: Sequence[tuple[int, int]]) -> Trace:
        """The trace of all that was drained."""
        chunks, _ = read_chunks(self._folder.path)
        if workspaces:
            chunks[-1].notes.owners.append(_owned_workspaces(chunks[-1].counts, workspaces))
        metadata = self._metadata()
        stats = {**self._stats_at_begin, **memory_statistics(self._devices, "end")}
        metadata = dataclasses.replace(metadata, extra={**metadata.extra, **stats})
        trace = assemble(chunks, metadata, None if self._sampler is None else self._sampler.samples())
        return dataclasses.replace(trace, metadata=self._with_reasons(trace.metadata))

    def _metadata(self) -> TraceMetadata:
        metadata = describe_recording(
            self._devices, self._environment, created_ns=self._created_ns, max_entries=self._max_entries
        )
        before = (_RECORDED_BEFORE,) if self._was_recording else ()
        parts = {} if self._probes is None else self._probes.metadata()
        return dataclasses.replace(metadata, notes=(*metadata.notes, *before), extra={**metadata.extra, **parts})

    def _with_reasons(self, metadata: TraceMetadata) -> TraceMetadata:
        """With why the device's own count is missing, or is the second best, behind all other notes."""
        reasons = () if self._sampler is None else self._sampler.reasons
        return dataclasses.replace(metadata, notes=(*metadata.notes, *reasons))

    def _noted_for_later(self, *args: Any, **kwargs: Any) -> None:
        """The program's own wish for a history: there is one already; the wish is granted at the end."""
        self._program_wants = args, kwargs

    def _restore(self) -> None:
        """Put the history in the state that the program had it in, or wanted it in meanwhile."""
        import torch

        if self._program_wants is not None:
            args, kwargs = self._program_wants
            torch.cuda.memory._record_memory_history(*args, **kwargs)
        elif self._was_recording:
            torch.cuda.memory._record_memory_history("all")

    def _ran_out(self, lack: oom.OutOfMemory) -> None:
        """Memory ran out: note who holds it, and keep the first such moment."""
        if os.getpid() != self._pid or lack.device not in self._devices:
            return
        if self._sampler is not None:
            self._sampler.sample_now()
        self._watcher.scan_if_held()
        self._oom_file.ran_out(lack.device, lack.time_ns, self._drained_until_now)

    def _drained_until_now(self) -> Trace:
        if self.history is not None:
            self.history.read_now()
        return self._assembled(())


def _owned_workspaces(counts: Counts, places: Sequence[tuple[int, int]]) -> OwnersNote:
    """The owners of what cuBLAS held at the end."""
    category = Category.WORKSPACE
    rows = [AddressOwner(*place, int(category), STRENGTH[category], "cuBLAS workspace") for place in places]
    return OwnersNote(tuple(map(sum, counts)), tuple(rows))
