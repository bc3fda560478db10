"""Running a user's script or module as ``__main__``, unchanged, while it is recorded."""

from __future__ import annotations

import importlib.util
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from memscope.capture.recorder import Recorder
from memscope.capture.stacks import is_tracer_frame
from memscope.capture.trigger import SignalTrigger
from memscope.errors import InputFileError, MemscopeError, UsageError

INTERRUPTED = 130


def run_recorded(recorder: Recorder, target: str, arguments: Sequence[str], *, is_module: bool = False) -> int:
    """Run a script file, or a module by name, under a recording, and return its exit code.

    The script finds ``__name__``, ``sys.argv``, ``sys.path[0]`` and its standard streams as if Python had started it.
    Whatever way it ends, the trace is kept; what it had in its globals is still alive at the end of the trace.

    Raises
    ------
    InputFileError
        If the script cannot be read.
    UsageError
        If the module is not there.
    """
    code = None if is_module else _compiled(Path(target))
    if is_module:
        _require_module(target)
    with _as_main(target, arguments, is_module=is_module) as module:
        recorder.start()
        problem: MemscopeError | None = None
        try:
            with _kept_if_killed(recorder):
                exit_code, error = _run(module, code, target)
        finally:
            # Before the traceback is touched: its frames hold what was alive when the program failed.
            problem = _stopped(recorder)
        if error is not None:
            if problem is None:
                recorder.explain(error)
            _print_error(error)
        if problem is not None:
            raise problem
        return exit_code


def _stopped(recorder: Recorder) -> MemscopeError | None:
    """End the recording; why it could not be kept, which is said after the program's own error and not in its place."""
    try:
        recorder.stop()
    except MemscopeError as problem:
        return problem
    return None


@contextmanager
def _kept_if_killed(recorder: Recorder) -> Iterator[None]:
    """Have a dry run write its trace where the program is told to end, or leaves without a word (``os._exit``).

    A recording on a GPU is on disk as it goes: nothing need be done for it. Where the program handles a signal itself,
    it does so as ever.
    """
    if not recorder.is_dry_run or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    def leave(code: int) -> None:
        recorder.stop()
        leave_at_once(code)

    leave_at_once = os._exit
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, end)
    os._exit = leave  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave_at_once
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler)


def run_triggered(trigger: SignalTrigger, target: str, arguments: Sequence[str], *, is_module: bool = False) -> int:
    """Run a script file, or a module by name, that a signal starts and stops recordings of; return its exit code.

    Raises
    ------
    InputFileError
        If the script cannot be read.
    UsageError
        If the module is not there.
    CaptureError
        If this is not the main thread.
    """
    code = None if is_module else _compiled(Path(target))
    if is_module:
        _require_module(target)
    with _as_main(target, arguments, is_module=is_module) as module:
        trigger.install()
        try:
            exit_code, error = _run(module, code, target)
        finally:
            trigger.remove()
        if error is not None:
            _print_error(error)
        return exit_code


def _run(module: ModuleType, code: Any, target: str) -> tuple[int, BaseException | None]:
    """Execute; return the exit code, and the error that the program ended with."""
    try:
        if code is None:
            module.__dict__.update(runpy.run_module(target, run_name="__main__", alter_sys=True))
        else:
            exec(code, module.__dict__)  # noqa: S102
    except SystemExit as end:
        return _exit_code(end), None
    except KeyboardInterrupt:
        return INTERRUPTED, None
    except BaseException as error:  # noqa: BLE001
        return 1, error
    return 0, None


def _require_module(name: str) -> None:
    """Raise if there is no such module, looking where ``python -m`` would."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    finally:
        sys.path[:] = before
    if found is None:
        raise UsageError(f"no module named {name}")


def _compiled(path: Path) -> Any:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    try:
        return compile(source, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise InputFileError(path, f"is not a Python script: {error}") from error


@contextmanager
def _as_main(target: str, arguments: Sequence[str], *, is_module: bool) -> Iterator[ModuleType]:
    """The interpreter's state as a fresh ``python target arguments`` would have it; put back afterwards."""
    main = ModuleType("__main__")
    main.__dict__.update({"__builtins__": __builtins__})
    if not is_module:
        main.__file__ = target
    before = sys.modules["__main__"], sys.argv, list(sys.path)
    sys.argv = [target, *arguments]
    sys.path[0] = str(Path.cwd()) if is_module else str(Path(target).resolve().parent)
    sys.modules["__main__"] = main
    try:
        yield main
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = before


def _exit_code(end: SystemExit) -> int:
    """The number that Python would exit with; a text goes to stderr and means 1."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    sys.stderr.write(f"{end.code}\n")
    return 1


def _print_error(error: BaseException) -> None:
    """Print a traceback as Python would, without memscope's frames."""
    _strip(error, set())
    traceback.print_exception(type(error), error, error.__traceback__)


def _strip(error: BaseException | None, seen: set[int]) -> None:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    error.__traceback__ = _without_own(error.__traceback__)
    _strip(error.__cause__, seen)
    _strip(error.__context__, seen)


def _without_own(entry: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this package, of the fake tensors and of the import machinery that runs it."""
    kept: TracebackType | None = None
    entries = []
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    for part in reversed(entries):
        if not is_tracer_frame(part.tb_frame.f_code.co_filename):
            kept = TracebackType(kept, part.tb_frame, part.tb_lasti, part.tb_lineno)
    return kept
