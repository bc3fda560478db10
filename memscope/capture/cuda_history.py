"""Recording on a real GPU: PyTorch's own memory history, with steps, phases, tags and owners added."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from memscope.capture.cuda_program import CudaProgram
from memscope.capture.device_notes import place_of
from memscope.capture.event_counter import EventCounter
from memscope.capture.history import DEFAULT_MAX_HOST_BYTES, History, max_events
from memscope.capture.ownership import STRENGTH, tag_meaning
from memscope.capture.patches import Patches
from memscope.capture.recording_folder import RecordingFolder
from memscope.capture.versions import tie_rule_of
from memscope.emulation.launch import provenance
from memscope.errors import CaptureError
from memscope.trace.categories import Category
from memscope.trace.claims import TAGGED_TENSOR, Claim, ClaimLog, Row, Span
from memscope.trace.metadata import TraceMetadata
from memscope.trace.trace import Trace
from memscope.trace.unfinished import Counts, assemble, read_chunks, write_recording

_watching: list[weakref.ref[CudaProgram]] = []
"""Who is told of memory that ran out; torch's observer, once attached, stays."""


class CudaHistory:
    """A recording by ``torch.cuda.memory``'s history, from :meth:`start` to :meth:`stop`.

    While it runs it is drained into a folder beside the file to come, which can be opened if the process is killed.

    Parameters
    ----------
    path
        The file that will be written of it, None for none.
    has_stacks
        Whether Python stacks are recorded.
    max_host_bytes
        Host memory that the history may take; it is drained before that is full.
    overwrite
        Whether the folder of an earlier recording that was cut off may be replaced.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        has_stacks: bool = True,
        max_host_bytes: int = DEFAULT_MAX_HOST_BYTES,
        overwrite: bool = False,
    ) -> None:
        self._path = path
        self._has_stacks = has_stacks
        self._max_entries = max_events(max_host_bytes)
        self._overwrite = overwrite
        self._log = ClaimLog()
        self._patches = Patches()
        self._program_wants: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.trace: Trace | None = None
        self.history: History | None = None

    def start(self) -> None:
        """Switch the history on.

        Raises
        ------
        CaptureError
            If there is no CUDA device, or another process records to the same file.
        UsageError
            If a recording of that name was cut off, and may not be replaced.
        """
        import torch

        if not torch.cuda.is_available():
            raise CaptureError(
                "there is no CUDA device here: a dry run needs none (memscope run --dry-run, or backend='dry-run')"
            )
        torch.cuda.init()
        self._folder = RecordingFolder(self._path, overwrite=self._overwrite)
        try:
            self._begin()
        except BaseException:
            self._patches.undo()
            self._folder.remove()
            raise

    def stop(self) -> None:
        """Drain the rest, switch the history off, and make the trace; a second call does nothing."""
        if self.trace is not None or self.history is None:
            return
        try:
            self._program.finish()
        finally:
            self._patches.undo()
            self.history.stop()
            self._restore()
        chunks, _ = read_chunks(self._folder.path)
        if self.history.workspaces:
            chunks[-1].log.claims.append(self._workspaces(chunks[-1].counts, self.history.workspaces))
        metadata = self._metadata()
        stats = {**self._stats_at_begin, **_memory_stats("end")}
        metadata = dataclasses.replace(metadata, extra={**metadata.extra, **stats})
        self.trace = assemble(chunks, metadata)
        if self._path is None:
            self._folder.remove()

    def written(self) -> None:
        """The trace is in its file: the folder is no longer needed."""
        self._folder.remove()

    def step(self, name: str | None = None) -> None:
        """A step ended."""
        self._program.step(name)
        if self.history is not None:
            self.history.drain_if_due(self._log.marks[-1].calls)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A phase around a block."""
        return self._program.user_phase(name)

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""
        category, label = tag_meaning(name)
        self._log.open_spans.append(Span(self._counter.calls(), None, int(category), label))

    def pop_tag(self) -> None:
        """End the innermost tag."""
        span = self._log.open_spans.pop()
        self._log.spans.append(span._replace(end=self._counter.calls()))

    def tag(self, tensor: Any, name: str) -> None:
        """Tag the allocation behind a tensor."""
        place = place_of(tensor)
        if place is not None:
            category, label = tag_meaning(name)
            self._log.claims.append(Claim(self._counter.calls(), (Row(*place, int(category), TAGGED_TENSOR, label),)))

    def know(self, model: Any, optimizer: Any) -> None:
        """Learn whose parameters, gradients and states to name."""
        self._program.know(model, optimizer)

    def _begin(self) -> None:
        import torch

        self._counter = EventCounter()
        self._program = CudaProgram(self._log, self._counter, self._patches)
        self.history = History(
            self._folder.path,
            self._counter,
            self._log,
            has_stacks=self._has_stacks,
            max_entries=self._max_entries,
        )
        is_enabled = getattr(torch._C, "_cuda_isHistoryEnabled", None)
        self._was_recording = is_enabled is not None and bool(is_enabled())
        self._patches.set(torch.cuda.memory, "_record_memory_history", self._noted_for_later)
        self._counter.survive_resets(self._patches)
        self._created_ns = time.time_ns()
        self._stats_at_begin = _memory_stats("begin")
        write_recording(self._folder.path, os.getpid(), self._metadata())
        self.history.start()
        self.history.move(self._folder.appear())
        self.history.watch()
        self._program.install()
        _tell_of_lack(self._program)

    def _workspaces(self, counts: Counts, places: Sequence[tuple[int, int]]) -> Claim:
        """The owners of what cuBLAS held at the end."""
        category = Category.WORKSPACE
        rows = [Row(*place, int(category), STRENGTH[category], "cuBLAS workspace") for place in places]
        return Claim(tuple(map(sum, counts)), tuple(rows))

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

    def _metadata(self) -> TraceMetadata:
        """What PyTorch does not store, as far as it is known when the recording begins."""
        import torch

        devices = range(torch.cuda.device_count())
        fractions: dict[int, float] = {}
        for device in devices:
            with suppress(AttributeError, RuntimeError):
                fractions[device] = float(torch.cuda.memory.get_per_process_memory_fraction(device))
        emulated = provenance()
        rank = os.environ.get("RANK", "")
        before = ("The program was recording a history of its own before: it was cleared.",)
        return TraceMetadata(
            source="cuda",
            torch_version=torch.__version__,
            tie_rule=tie_rule_of(torch.__version__),
            device_names={device: torch.cuda.get_device_name(device) for device in devices},
            device_total_bytes={device: torch.cuda.get_device_properties(device).total_memory for device in devices},
            memory_fraction=fractions,
            rank=int(rank) if rank.isdecimal() else None,
            created_ns=self._created_ns,
            max_entries=self._max_entries,
            notes=(*emulated.get("notes", ()), *(before if self._was_recording else ())),
            extra={
                "cuda_version": torch.version.cuda,
                "python_version": platform.python_version(),
                "transformers_version": getattr(sys.modules.get("transformers"), "__version__", None),
                **emulated.get("extra", {}),
            },
        )


def _memory_stats(moment: str) -> dict[str, Any]:
    """``memory_stats()`` of every device, under a key that names the moment."""
    import torch

    devices = range(torch.cuda.device_count())
    return {f"memory_stats_at_{moment}": {str(device): _flat(torch.cuda.memory_stats(device)) for device in devices}}


def _flat(stats: Any) -> dict[str, int | float]:
    return {str(key): value for key, value in stats.items() if isinstance(value, int | float)}


def _tell_of_lack(program: CudaProgram) -> None:
    """Have a program's owners noted when memory runs out, while those that failed still hold it."""
    import torch

    attach = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)
    if attach is None:
        return
    if not _watching:
        attach(_on_lack)
    _watching[:] = [weakref.ref(program)]


def _on_lack(*_: Any) -> None:
    program = _watching[0]()
    if program is not None:
        program.ran_out()
