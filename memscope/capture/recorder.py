"""``memscope.record``: recording from inside a program."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from typing_extensions import Self

from memscope.capture.environment import CaptureEnvironment, allocator_settings, rank_path, read_environment
from memscope.capture.kv_caches import CacheLeaf
from memscope.errors import CaptureError, MemscopeError, MissingDependencyError, UsageError
from memscope.files import require_room
from memscope.gpus import DEFAULT_GPU, find_gpu
from memscope.trace.container import write_container
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

Backend = Literal["auto", "dry-run", "cuda"]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_LEAST_HOST_BYTES = 1 << 20


class RecordingBackend(Protocol):
    """One way of recording."""

    trace: Trace | None

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and make the trace."""

    def step(self, name: str | None = None) -> None:
        """A step ended."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """A phase around a block."""

    def push_tag(self, name: str) -> None:
        """Tag what is allocated from now on."""

    def pop_tag(self) -> None:
        """End the innermost tag."""

    def tag(self, tensor: Any, name: str) -> None:
        """Tag the allocation behind a tensor."""

    def know(self, model: Any, optimizer: Any) -> None:
        """Learn names."""

    def know_cache(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:
        """Note what a key/value cache holds now; its parts with their numbers."""

    def written(self) -> None:
        """The trace is in its file."""

    def snapshot(self) -> Trace:
        """The trace until now; the recording goes on."""

    def explain(self, error: BaseException) -> None:
        """Add a line to an out-of-memory error that says where the trace is."""


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What a :class:`Recorder` was asked for: its parameters, checked.

    Raises
    ------
    UsageError
        If one cannot be used.
    """

    path: str | Path | None
    model: torch.nn.Module | None
    optimizer: torch.optim.Optimizer | None
    backend: Backend
    gpu: str
    conf: str | None
    stacks: Literal["python", "all"] | None
    device: int | None
    n_devices: int
    nvml: bool
    on_oom: bool
    max_host_bytes: int
    overwrite: bool
    environment: CaptureEnvironment | None

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "dry-run", "cuda"):
            raise UsageError(f"backend {self.backend!r} is not known: choose auto, dry-run or cuda")
        if self.stacks not in ("python", "all", None):
            raise UsageError(f"stacks {self.stacks!r} is not known: choose 'python', 'all' or None")
        if not 1 <= self.n_devices <= _MOST_DEVICES:
            raise UsageError(f"{self.n_devices} devices: choose from 1 to {_MOST_DEVICES}")
        if self.max_host_bytes < _LEAST_HOST_BYTES:
            raise UsageError(f"max_host_bytes={self.max_host_bytes} is too few: give {_LEAST_HOST_BYTES:,} or more")


_MOST_DEVICES = 16
_under_way: list[Recorder] = []


class Recorder:
    """A recording: use it as a context manager, as a decorator, or with :meth:`start` and :meth:`stop`.

    Parameters
    ----------
    path
        The ``.memscope`` file to write at the end; None writes none. Where a launcher started several ranks, the
        rank's number goes before the suffix; the variable ``MEMSCOPE_OUT`` takes the place of the name. A rank that
        ``MEMSCOPE_RANKS`` does not name records nothing.
    model, optimizer
        Whose parameters, gradients and states to name. Without them, names are found in every module that is called and
        every optimizer that steps.
    backend
        ``cuda`` records PyTorch's own history on a GPU; ``dry-run`` runs the program on tensors without memory, on a
        simulated device; ``auto`` is ``cuda``, and an error where there is no GPU.
    gpu
        Dry run: the device to stand in for, a name such as ``RTX4090-24GB`` or a size such as ``24GiB``.
    conf
        Dry run: the ``PYTORCH_ALLOC_CONF`` to simulate; None takes the environment's.
    stacks
        ``python``; ``all`` with PyTorch's C++ frames too, which costs more (CUDA); None for none.
    device
        CUDA: the only device to record, by PyTorch's index; None records all.
    n_devices
        Dry run: how many devices of the kind there are.
    nvml
        CUDA: whether the device's own count is sampled beside PyTorch's.
    on_oom
        Whether what was recorded until memory first ran out is kept in a file of its own, at once.
    max_host_bytes
        CUDA: host memory that events may take before they are drained to disk; ``MEMSCOPE_MAX_EVENTS`` overrides it.
    overwrite
        Whether an existing file may be replaced.
    environment
        Who this process is among several, and what the environment asks for; read from its variables unless given.

    Raises
    ------
    UsageError
        If an argument cannot be used, or the file exists and ``overwrite`` is false.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        backend: Backend = "auto",
        gpu: str = DEFAULT_GPU,
        conf: str | None = None,
        stacks: Literal["python", "all"] | None = "python",
        device: int | None = None,
        n_devices: int = 1,
        nvml: bool = True,
        on_oom: bool = True,
        max_host_bytes: int = 1 << 30,
        overwrite: bool = False,
        environment: CaptureEnvironment | None = None,
    ) -> None:
        options = RecordingOptions(
            path=path,
            model=model,
            optimizer=optimizer,
            backend=backend,
            gpu=gpu,
            conf=conf,
            stacks=stacks,
            device=device,
            n_devices=n_devices,
            nvml=nvml,
            on_oom=on_oom,
            max_host_bytes=max_host_bytes,
            overwrite=overwrite,
            environment=environment,
        )
        self._set_up(options)

    @classmethod
    def of(cls, options: RecordingOptions) -> Self:
        """A recording of options that were checked before."""
        recorder = cls.__new__(cls)
        recorder._set_up(options)
        return recorder

    def _set_up(self, options: RecordingOptions) -> None:
        self._options = options
        self._environment = read_environment() if options.environment is None else options.environment
        self._path = None if options.path is None else self._environment.output_path(options.path)
        if self._path is not None and self._path.exists() and not options.overwrite:
            raise UsageError(f"{self._path} exists already: choose another name, or pass overwrite=True")
        self._gpu = find_gpu(options.gpu)
        self._backend: RecordingBackend | None = None
        self._has_begun = self._is_running = False
        self._process = os.getpid()

    @property
    def path(self) -> Path | None:
        """The file that is written at the end, None where none is."""
        return self._path if self.records_here else None

    @property
    def records_here(self) -> bool:
        """Whether this process records: not where ``MEMSCOPE_RANKS`` leaves its rank out, nor a forked child."""
        return self._environment.records_here and not self._is_forked

    @property
    def is_dry_run(self) -> bool:
        """Whether it runs the program on tensors without memory."""
        return self._options.backend == "dry-run"

    @property
    def _is_forked(self) -> bool:
        """Whether this is a child of the process that records: the recording, and its file, are the parent's."""
        return os.getpid() != self._process

    @property
    def trace(self) -> Trace:
        """The trace, once the recording has ended.

        Raises
        ------
        UsageError
            Before that, and on a rank that does not record.
        """
        if not self.records_here:
            raise UsageError(f"rank {self._environment.rank or 0} does not record: MEMSCOPE_RANKS leaves it out")
        if self._backend is None or self._backend.trace is None:
            raise UsageError("the trace is there when the recording has ended: leave its with-block, or call stop()")
        return self._backend.trace

    @property
    def backend(self) -> RecordingBackend | None:
        """What records, or has recorded; None on a rank that does not record.

        Raises
        ------
        UsageError
            If the recording has not begun.
        """
        if not self._has_begun:
            raise UsageError("the recording has not begun: enter its with-block, or call start()")
        return self._backend

    def start(self) -> Self:
        """Begin to record.

        Raises
        ------
        CaptureError
            If a recording is under way already, or cannot work here.
        InputFileError
            If its file could not be written: the folder is not there, or the disk is full or read-only.
        MissingDependencyError
            If PyTorch is not installed.
        """
        if _under_way:
            raise CaptureError("a recording is under way already: one at a time")
        if self._path is not None:
            self._path = self._path.absolute()  # the program may change its working folder
            if self.records_here:
                require_room(self._path)
        backend = self._make_backend() if self.records_here else None
        if backend is not None:
            backend.start()
        self._backend = backend
        self._has_begun = self._is_running = True
        _under_way.append(self)
        if backend is not None:
            backend.know(self._options.model, self._options.optimizer)
        return self

    def stop(self) -> Trace | None:
        """End the recording, write the file if one was named, and return the trace; None on a rank that has none."""
        if self._is_running:
            self._is_running = False
            _under_way.remove(self)
            if self._backend is not None:
                self._backend.stop()
                if self._path is not None and not self._is_forked:
                    write_container(self.trace, self._path, overwrite=True)
                    self._backend.written()
        return self.trace if self.records_here else None

    def snapshot(self, path: str | Path | None = None, *, overwrite: bool = False) -> Trace:
        """The trace until now, also as a file where a path is given; the recording goes on.

        Raises
        ------
        UsageError
            If the recording is not under way, this rank does not record, or the file exists and ``overwrite`` is false.
        """
        if not self._is_running:
            raise UsageError("a snapshot can be taken while the recording is under way")
        if self._backend is None:
            raise UsageError("this rank does not record: MEMSCOPE_RANKS leaves it out")
        trace = self._backend.snapshot()
        if path is not None:
            write_container(trace, rank_path(path, self._environment.rank), overwrite=overwrite)
        return trace

    def step(self, name: str | None = None) -> None:
        """Say that a step of the program ended; it is named by its number unless a name is given."""
        backend = self.backend
        if backend is not None:
            backend.step(name)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Mark a phase of the program: ``with rec.phase("prefill"): …``."""
        backend = self.backend
        return nullcontext() if backend is None else backend.phase(name)

    def explain(self, error: BaseException) -> None:
        """Add a line to the error that the program ended with, if memory ran out: where the trace is."""
        backend = self.backend
        if backend is not None:
            backend.explain(error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except MemscopeError as problem:
            if error is None:
                raise
            # The program's own error goes on: what became of the recording is said beside it.
            sys.stderr.write(f"memscope: the recording could not be kept: {problem}\n")
            return
        if error is not None:
            self.explain(error)

    def __call__(self, function: _Function) -> _Function:
        """Record every call of a function; with a path, the second call's file is ``NAME-2.memscope``, and so on."""
        calls = itertools.count(1)

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with Recorder.of(replace(self._options, path=_numbered(self._options.path, next(calls)))):
                return function(*args, **kwargs)

        return recorded  # type: ignore[return-value]

    def _make_backend(self) -> RecordingBackend:
        if find_spec("torch") is None:
            raise MissingDependencyError("torch", "torch", "recording")
        return self._make_dry_run() if self._options.backend == "dry-run" else self._make_cuda_history()

    def _make_dry_run(self) -> RecordingBackend:
        from memscope.capture.dry_run.recording import DryRun
        from memscope.capture.keeping import DEFAULT_MAX_LOSS_S

        options = self._options
        if options.stacks == "all" or options.device is not None:
            raise UsageError("stacks='all' and device are for CUDA: a dry run records all, and Python frames")
        return DryRun(
            self._gpu,
            _settings_in_force() if options.conf is None else options.conf,
            has_stacks=options.stacks is not None,
            rank=self._environment.rank,
            path=self._path,
            on_oom=options.on_oom,
            n_devices=max(options.n_devices, self._environment.device_count),
            device_index=self._environment.device_index,
            max_loss_s=self._environment.max_loss_s or DEFAULT_MAX_LOSS_S,
            overwrite=options.overwrite,
        )

    def _make_cuda_history(self) -> RecordingBackend:
        options = self._options
        if options.conf is not None:
            raise UsageError("conf is for a dry run; on a GPU, set PYTORCH_ALLOC_CONF before the program starts")
        from memscope.capture.cuda.recording import CudaHistory

        return CudaHistory(
            self._path,
            stacks=options.stacks,
            device=options.device,
            nvml=options.nvml,
            on_oom=options.on_oom,
            max_host_bytes=options.max_host_bytes,
            environment=self._environment,
            overwrite=options.overwrite,
        )


def _numbered(path: str | Path | None, number: int) -> Path | None:
    """The name of a call's file."""
    if path is None or number == 1:
        return None if path is None else Path(path)
    return Path(path).with_name(f"{Path(path).stem}-{number}{Path(path).suffix}")


record = Recorder


def backend_under_way() -> RecordingBackend | None:
    """What records now; None where nothing does."""
    return _under_way[-1].backend if _under_way else None


def _settings_in_force() -> str:
    """The allocator settings of the environment."""
    return next(reversed(allocator_settings().values()), "")
