"""``memscope.record`` and ``memscope.tag``: recording from inside a program."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from typing_extensions import Self

from memscope.capture.environment import CaptureEnvironment, rank_path, read_environment
from memscope.capture.kv_caches import CacheLeaf, leaf_tensors, leaves
from memscope.errors import CaptureError, MissingDependencyError, UsageError
from memscope.gpus import DEFAULT_GPU, find_gpu
from memscope.trace.container import write_container
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

Backend = Literal["auto", "dry-run", "cuda"]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Tensor = TypeVar("_Tensor", bound="torch.Tensor")
_CONF_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


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


class NoRecording:
    """What stands in for a recording on a rank that does not record: everything is accepted, nothing is done."""

    trace: Trace | None = None

    def start(self) -> None:
        """Nothing begins."""

    def stop(self) -> None:
        """Nothing ends."""

    def step(self, name: str | None = None) -> None:
        """Nothing is marked."""

    def phase(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """The block runs as it is."""
        return nullcontext()

    def push_tag(self, name: str) -> None:
        """Nothing is tagged."""

    def pop_tag(self) -> None:
        """Nothing was tagged."""

    def tag(self, tensor: Any, name: str) -> None:
        """Nothing is tagged."""

    def know(self, model: Any, optimizer: Any) -> None:
        """Nothing is learned."""

    def know_cache(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:  # noqa: ARG002
        """Nothing is noted."""
        return []

    def written(self) -> None:
        """There is no file."""

    def snapshot(self) -> Trace:
        """There is none.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError("this rank does not record: MEMSCOPE_RANKS leaves it out")

    def explain(self, error: BaseException) -> None:
        """There is nothing to say."""


_LEAST_HOST_BYTES = 1 << 20
_active: list[Recorder] = []


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
        nvml: bool = True,
        on_oom: bool = True,
        max_host_bytes: int = 1 << 30,
        overwrite: bool = False,
        environment: CaptureEnvironment | None = None,
    ) -> None:
        if backend not in ("auto", "dry-run", "cuda"):
            raise UsageError(f"backend {backend!r} is not known: choose auto, dry-run or cuda")
        if stacks not in ("python", "all", None):
            raise UsageError(f"stacks {stacks!r} is not known: choose 'python', 'all' or None")
        if max_host_bytes < _LEAST_HOST_BYTES:
            raise UsageError(f"max_host_bytes={max_host_bytes} is too few: give {_LEAST_HOST_BYTES:,} or more")
        self._environment = read_environment() if environment is None else environment
        self._path = None if path is None else self._environment.output_path(path)
        if self._path is not None and self._path.exists() and not overwrite:
            raise UsageError(f"{self._path} exists already: choose another name, or pass overwrite=True")
        self._gpu = find_gpu(gpu)
        self._arguments: dict[str, Any] = {
            "path": path,
            "model": model,
            "optimizer": optimizer,
            "backend": backend,
            "gpu": gpu,
            "conf": conf,
            "stacks": stacks,
            "device": device,
            "nvml": nvml,
            "on_oom": on_oom,
            "max_host_bytes": max_host_bytes,
            "overwrite": overwrite,
            "environment": environment,
        }
        self._backend: RecordingBackend | None = None
        self._is_running = False

    @property
    def path(self) -> Path | None:
        """The file that is written at the end, None where none is."""
        return self._path if self.records_here else None

    @property
    def records_here(self) -> bool:
        """Whether this process records: not where ``MEMSCOPE_RANKS`` leaves its rank out."""
        return self._environment.records_here

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
    def backend(self) -> RecordingBackend:
        """What is recording.

        Raises
        ------
        UsageError
            If the recording has not begun.
        """
        if self._backend is None:
            raise UsageError("the recording has not begun: enter its with-block, or call start()")
        return self._backend

    def start(self) -> Self:
        """Begin to record.

        Raises
        ------
        CaptureError
            If a recording is under way already, or cannot work here.
        MissingDependencyError
            If PyTorch is not installed.
        """
        if _active:
            raise CaptureError("a recording is under way already: one at a time")
        if self._path is not None:
            self._path = self._path.absolute()  # the program may change its working folder
        self._backend = self._make_backend()
        self._backend.start()
        self._is_running = True
        _active.append(self)
        self._backend.know(self._arguments["model"], self._arguments["optimizer"])
        return self

    def stop(self) -> Trace | None:
        """End the recording, write the file if one was named, and return the trace; None on a rank that has none."""
        if self._is_running:
            self._is_running = False
            _active.remove(self)
            self.backend.stop()
            if self._path is not None and self.records_here:
                write_container(self.trace, self._path, overwrite=True)
                self.backend.written()
        return self.trace if self.records_here else None

    def snapshot(self, path: str | Path | None = None, *, overwrite: bool = False) -> Trace:
        """The trace until now, also as a file where a path is given; the recording goes on.

        Raises
        ------
        UsageError
            If the recording is not under way, or the file exists and ``overwrite`` is false.
        """
        if not self._is_running:
            raise UsageError("a snapshot can be taken while the recording is under way")
        trace = self.backend.snapshot()
        if path is not None and self.records_here:
            write_container(trace, rank_path(path, self._environment.rank), overwrite=overwrite)
        return trace

    def step(self, name: str | None = None) -> None:
        """Say that a step of the program ended; it is named by its number unless a name is given."""
        self.backend.step(name)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Mark a phase of the program: ``with rec.phase("prefill"): …``."""
        return self.backend.phase(name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is not None:
            self.backend.explain(error)

    def __call__(self, function: _Function) -> _Function:
        """Record every call of a function; with a path, the file is the last call's."""

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with Recorder(**{**self._arguments, "overwrite": True}):
                return function(*args, **kwargs)

        return recorded  # type: ignore[return-value]

    def _make_backend(self) -> RecordingBackend:
        if not self.records_here:
            return NoRecording()
        if find_spec("torch") is None:
            raise MissingDependencyError("torch", "torch", "recording")
        arguments = self._arguments
        if arguments["backend"] == "dry-run":
            from memscope.capture.dry_run.recording import DryRun

            if arguments["stacks"] == "all" or arguments["device"] is not None:
                raise UsageError("stacks='all' and device are for CUDA: a dry run has one device, and Python frames")
            given, has_stacks = arguments["conf"], arguments["stacks"] is not None
            conf = _conf_in_force() if given is None else given
            environment, on_oom = self._environment, arguments["on_oom"]
            return DryRun(self._gpu, conf, has_stacks=has_stacks, rank=environment.rank, path=self._path, on_oom=on_oom)
        if arguments["conf"] is not None:
            raise UsageError("conf is for a dry run; on a GPU, set PYTORCH_ALLOC_CONF before the program starts")
        from memscope.capture.cuda.recording import CudaHistory

        names = ("stacks", "device", "nvml", "on_oom", "max_host_bytes", "overwrite")
        options = {name: arguments[name] for name in names}
        return CudaHistory(self._path, environment=self._environment, **options)


def _conf_in_force() -> str:
    """The allocator settings of the environment; PyTorch's older variable wins where both are set."""
    found = [os.environ[name] for name in _CONF_VARIABLES if os.environ.get(name)]
    return found[-1] if found else ""


record = Recorder


class _Tag:
    """What :func:`tag` with a name returns."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._entered: list[Recorder | None] = []

    def __enter__(self) -> None:
        recorder = _active[-1] if _active else None
        self._entered.append(recorder)
        if recorder is not None:
            recorder.backend.push_tag(self._name)

    def __exit__(self, *_: object) -> None:
        recorder = self._entered.pop()
        if recorder is not None:
            recorder.backend.pop_tag()

    def __call__(self, function: _Function) -> _Function:
        """Tag everything that a function allocates."""

        @functools.wraps(function)
        def tagged(*args: Any, **kwargs: Any) -> Any:
            with _Tag(self._name):
                return function(*args, **kwargs)

        return tagged  # type: ignore[return-value]


@overload
def tag(what: str) -> _Tag: ...


@overload
def tag(what: _Tensor, name: str) -> _Tensor: ...


def tag(what: Any, name: str | None = None) -> Any:
    """Tag memory: ``with tag("kv_cache"): …``, ``@tag("kv_cache")``, or ``tag(tensor, "kv_cache")``.

    The name of a category (``weights``, ``kv_cache``, …) puts the memory there, as does ``category: label``; other text
    is a label. Where nothing is being recorded, nothing happens.

    Raises
    ------
    UsageError
        If the arguments are neither a name, nor a tensor and a name.
    """
    if isinstance(what, str) and name is None:
        return _Tag(what)
    if name is None or not hasattr(what, "untyped_storage"):
        raise UsageError('tag takes a name, or a tensor and a name: tag("kv_cache"), tag(tensor, "kv_cache")')
    if _active:
        _active[-1].backend.tag(what, name)
    return what


def register_kv_cache(cache: Any) -> None:
    """Say which tensors are an engine's key/value cache, once it has allocated them.

    Caches that are passed to a Hugging Face model are found by themselves. Of a transformers ``Cache`` it is noted how
    its layers keep tokens, and how many it holds now: a loop that calls the layers of a model by itself can say so
    after each step. Where nothing is being recorded, nothing happens.

    Parameters
    ----------
    cache
        A tensor, or lists, tuples, dictionaries or a transformers ``Cache`` of tensors, nested in any way; a tensor's
        place in it becomes its label.

    Raises
    ------
    UsageError
        If there is no tensor in it.
    """
    found = list(_tensors_in(cache, ""))
    if not found:
        raise UsageError(
            f"register_kv_cache takes tensors, or containers of tensors: a {type(cache).__name__} has none"
        )
    if _active:
        for label, tensor in found:
            _active[-1].backend.tag(tensor, f"kv_cache: {label}" if label else "kv_cache")


def _tensors_in(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The tensors in nested containers, each with its place."""
    if hasattr(value, "untyped_storage"):
        yield place, value
        return
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        noted = _active[-1].backend.know_cache(value) if _active else []
        items = [part for number, leaf in noted or _unnumbered(value) for part in leaf_tensors(leaf, number)]
    for key, part in items:
        yield from _tensors_in(part, f"{place} {key}".strip())


def _unnumbered(cache: Any) -> list[tuple[int | None, CacheLeaf]]:
    return [(None, leaf) for leaf in leaves(cache)]
