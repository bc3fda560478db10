"""``memscope.record`` and ``memscope.tag``: recording from inside a program."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from typing_extensions import Self

from memscope.capture.gpus import DEFAULT_GPU, find_gpu
from memscope.errors import CaptureError, MissingDependencyError, UsageError
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

    def written(self) -> None:
        """The trace is in its file."""


_active: list[Recorder] = []


class Recorder:
    """A recording: use it as a context manager, as a decorator, or with :meth:`start` and :meth:`stop`.

    Parameters
    ----------
    path
        The ``.memscope`` file to write at the end; None writes none.
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
        ``python``, or None for none.
    overwrite
        Whether an existing file may be replaced.

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
        stacks: Literal["python"] | None = "python",
        overwrite: bool = False,
    ) -> None:
        if backend not in ("auto", "dry-run", "cuda"):
            raise UsageError(f"backend {backend!r} is not known: choose auto, dry-run or cuda")
        if stacks not in ("python", None):
            raise UsageError(f"stacks {stacks!r} is not known: choose 'python' or None")
        self._path = None if path is None else Path(path)
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
            "overwrite": overwrite,
        }
        self._backend: RecordingBackend | None = None
        self._is_running = False

    @property
    def trace(self) -> Trace:
        """The trace, once the recording has ended.

        Raises
        ------
        UsageError
            Before that.
        """
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

    def stop(self) -> Trace:
        """End the recording, write the file if one was named, and return the trace."""
        if self._is_running:
            self._is_running = False
            _active.remove(self)
            self.backend.stop()
            if self._path is not None:
                write_container(self.trace, self._path, overwrite=True)
                self.backend.written()
        return self.trace

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

    def __call__(self, function: _Function) -> _Function:
        """Record every call of a function; with a path, the file is the last call's."""

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with Recorder(**{**self._arguments, "overwrite": True}):
                return function(*args, **kwargs)

        return recorded  # type: ignore[return-value]

    def _make_backend(self) -> RecordingBackend:
        if find_spec("torch") is None:
            raise MissingDependencyError("torch", "torch", "recording")
        arguments = self._arguments
        has_stacks = arguments["stacks"] is not None
        if arguments["backend"] == "dry-run":
            from memscope.capture.dry_run import DryRun

            conf = arguments["conf"]
            return DryRun(self._gpu, _conf_in_force() if conf is None else conf, has_stacks=has_stacks)
        if arguments["conf"] is not None:
            raise UsageError("conf is for a dry run; on a GPU, set PYTORCH_ALLOC_CONF before the program starts")
        from memscope.capture.cuda_history import CudaHistory

        return CudaHistory(self._path, has_stacks=has_stacks, overwrite=arguments["overwrite"])


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

    The name of a category (``weights``, ``kv_cache``, …) puts the memory there; any other text is a label. Where
    nothing is being recorded, nothing happens.

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
