"""Switching a recording on and off in a running program with a signal: ``kill -USR2 PID``."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from typing_extensions import Self

from memscope.errors import CaptureError, MemscopeError, UsageError

_POLL_S = 0.05


class SwitchedRecording(Protocol):
    """What is switched: a :class:`~memscope.capture.recorder.Recorder`, for one."""

    def start(self) -> Any:
        """Begin."""

    def stop(self) -> Any:
        """End, and write the file."""


def cuda_is_ready() -> bool:
    """Whether the program has initialised CUDA. Never imports PyTorch and never initialises anything.

    A recording that initialised CUDA by itself would break programs that fork afterwards.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_initialized = getattr(cuda, "is_initialized", None)
    return bool(is_initialized is not None and is_initialized())


def always_ready() -> bool:
    """For a dry run, which initialises no CUDA."""
    return True


def numbered_path(path: str | Path, number: int) -> Path:
    """``train-2.memscope``."""
    path = Path(path)
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


class SignalTrigger:
    """Starts a recording at a signal and ends it at the next, again and again, each into a file of its own.

    A signal that comes before the program is ready, because PyTorch is still being imported or CUDA not yet
    initialised, starts the recording as soon as it is; another one in the meantime takes it back. A handler that was
    there before is called afterwards. Children made by ``fork`` do not record.

    Parameters
    ----------
    make_recording
        Makes the recording that will write the file given.
    path
        The file; each recording's number goes before its suffix, and files that exist are left alone.
    say
        Told what happened, a line each; to stderr unless given.
    is_ready
        Whether a recording can start now.
    signal_number
        SIGUSR2 unless given.

    Raises
    ------
    UsageError
        If the system has no such signal.
    """

    def __init__(
        self,
        make_recording: Callable[[Path], SwitchedRecording],
        path: str | Path,
        *,
        say: Callable[[str], None] | None = None,
        is_ready: Callable[[], bool] = cuda_is_ready,
        signal_number: int | None = None,
    ) -> None:
        number = getattr(signal, "SIGUSR2", None) if signal_number is None else signal_number
        if number is None:
            raise UsageError("a signal as trigger does not work here: this system has no SIGUSR2")
        self._make_recording, self._path = make_recording, Path(path)
        self._say = _to_stderr if say is None else say
        self._is_ready, self._signal = is_ready, int(number)
        self._pid = os.getpid()
        self._previous: Any = None
        self._is_installed = self._is_busy = self._is_owed = False
        self._n_files = 0
        self._current: tuple[SwitchedRecording, Path] | None = None
        self._waiting: threading.Event | None = None
        self._is_due = threading.Event()

    @property
    def is_recording(self) -> bool:
        """Whether a recording is under way."""
        return self._current is not None

    @property
    def is_waiting(self) -> bool:
        """Whether a recording will start as soon as the program is ready."""
        return self._waiting is not None

    def install(self) -> Self:
        """Listen to the signal from now on, and end a recording under way when Python exits.

        Raises
        ------
        CaptureError
            If this is not the main thread, where alone Python takes signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise CaptureError(
                "a signal as trigger must be set up in the main thread: Python takes signals nowhere else"
            )
        if not self._is_installed:
            self._previous = signal.signal(self._signal, self._handle)
            atexit.register(self.finish)
            self._is_installed = True
        return self

    def remove(self) -> None:
        """Put back the handler that was there before, if this one still stands, and end a recording under way."""
        if self._is_installed:
            self._is_installed = False
            if signal.getsignal(self._signal) == self._handle:
                before = signal.SIG_DFL if self._previous is None else self._previous
                signal.signal(self._signal, before)
            atexit.unregister(self.finish)
        self.finish()

    def finish(self) -> None:
        """End a recording under way, or one that waits for its start."""
        if os.getpid() != self._pid:
            return
        self._cancel_wait()
        if self._current is not None:
            self._guarded(self._stop)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_own = self._is_due.is_set()  # sent by this trigger to itself
        if os.getpid() == self._pid:
            if self._is_busy:
                self._is_owed = not self._is_owed  # the signal came while the one before is being carried out
            else:
                self._act()
        if callable(self._previous) and not is_own:
            self._previous(number, frame)

    def _act(self) -> None:
        """Carry out a signal, and then the ones that came meanwhile; two of those are none."""
        self._is_owed = True
        while self._is_owed:
            self._is_owed = False
            self._guarded(self._toggle)

    def _toggle(self) -> None:
        if self._is_due.is_set():
            self._is_due.clear()
            if self._waiting is None:
                return  # it was taken back when the program was already ready
            self._waiting = None
            self._start()
        elif self._current is not None:
            self._stop()
        elif self._waiting is not None:
            self._cancel_wait()
            self._say("recording will not start")
        elif self._is_ready():
            self._start()
        else:
            self._say("recording will start when CUDA is initialised")
            self._wait()

    def _guarded(self, act: Callable[[], None]) -> None:
        """A signal must not end the program: what goes wrong is said."""
        self._is_busy = True
        try:
            act()
        except (MemscopeError, OSError, RuntimeError) as error:
            self._current = None
            self._say(f"{error}")
        finally:
            self._is_busy = False

    def _start(self) -> None:
        path = self._next_path()
        recording = self._make_recording(path)
        recording.start()
        self._current = recording, path
        self._say(f"recording into {path}")

    def _stop(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            recording, path = current
            recording.stop()
            self._say(f"wrote {path}")

    def _next_path(self) -> Path:
        self._n_files += 1
        while numbered_path(self._path, self._n_files).exists():
            self._n_files += 1
        return numbered_path(self._path, self._n_files)

    def _wait(self) -> None:
        self._waiting = threading.Event()
        threading.Thread(target=self._watch, args=(self._waiting,), name="memscope-trigger", daemon=True).start()

    def _cancel_wait(self) -> None:
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None

    def _watch(self, cancelled: threading.Event) -> None:
        """Wait for the program, then have the main thread act, as at a signal."""
        while not cancelled.wait(_POLL_S):
            if self._is_ready():
                self._is_due.set()
                signal.pthread_kill(_main_ident(), self._signal)
                return


def _main_ident() -> int:
    return threading.main_thread().ident or 0


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"memscope: {line}\n")
