"""What a dry run has recorded so far, kept on disk while the program runs, so that one that is killed loses a moment.

A dry run's events are in memory. A copy of the process, forked while no request is being served, makes a whole trace of
them and puts it into the recording's folder in place of the one before; the program waits for the fork alone. Making
the trace takes longer the more events there are, a second for some hundred thousand: so much more is lost of such runs.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from memscope.capture.cuda.recording import RecordingFolder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.folder import CALLS_NAME, WHOLE_NAME, write_recording
from memscope.trace.trace import Trace

_exit = os._exit
"""As it is before a recorded program's own calls of it are watched."""
DEFAULT_MAX_LOSS_S = 1.0
_POLL_S = 0.02
_MAX_PAUSE_FRAC = 0.1
_MAX_COPYING_FRAC = 0.5
"""Copies that take longer than a second run for no more than this of the time: they take a core of their own."""
_LONG_S = 1.0
_ENDING_S = 10.0


class Keeper:
    """Keeps a trace of what was recorded until now in the folder of the recording.

    Parameters
    ----------
    target
        The file that the recording becomes.
    build
        Makes the trace of this moment.
    n_events
        Events until now.
    is_between
        Whether no event is being recorded at this moment.
    max_loss_s
        How much of the run may be lost when the process is killed.
    overwrite
        Whether the folder of an earlier recording that was cut off may be replaced.

    Raises
    ------
    CaptureError
        If another process is recording to that name.
    UsageError
        If a recording of that name was cut off, and may not be replaced.
    """

    def __init__(
        self,
        target: Path,
        build: Callable[[], Trace],
        n_events: Callable[[], int],
        is_between: Callable[[], bool],
        *,
        max_loss_s: float = DEFAULT_MAX_LOSS_S,
        overwrite: bool = False,
    ) -> None:
        self._build = build
        self._n_events = n_events
        self._is_between = is_between
        self._interval_s = max_loss_s / 2
        self._folder = RecordingFolder(target, overwrite=overwrite)
        self._pid = os.getpid()
        self._copy = 0
        self._n_kept = 0
        self._began_s = self._pause_s = self._took_s = 0.0
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="memscope-keep", daemon=True)

    def start(self, metadata: TraceMetadata) -> None:
        """Begin to keep."""
        write_recording(self._folder.path, self._pid, metadata)
        # Here once: what writing needs would otherwise be made ready in every copy.
        write_container(self._build(), self._folder.path / WHOLE_NAME, is_synced=False)
        self._folder.appear()
        self._began_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Keep no more; what was kept stays."""
        self._is_ending.set()
        if self._thread.is_alive():
            self._thread.join()
        deadline = time.monotonic() + _ENDING_S
        while not self._is_idle():
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(self._copy, signal.SIGKILL)
            time.sleep(0.002)

    def remove(self) -> None:
        """The trace is in its file: the folder is no longer needed."""
        self._folder.remove()

    def _poll(self) -> None:
        while not self._is_ending.wait(_POLL_S):
            if os.getpid() != self._pid:
                return
            n_events = self._n_events()
            if n_events == self._n_kept:
                continue
            self._count(n_events)
            now = time.monotonic()
            interval = max(self._interval_s, self._pause_s / _MAX_PAUSE_FRAC)
            if self._took_s > _LONG_S:
                interval = max(interval, self._took_s / _MAX_COPYING_FRAC)
            # From here to the fork no other thread runs: a moment between two events stays one.
            if self._is_idle() and now - self._began_s > interval and self._is_between():
                self._n_kept, self._began_s = self._n_events(), now
                self._fork()
                self._pause_s = time.monotonic() - now

    def _fork(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the copy uses none
            self._copy = os.fork()
        if not self._copy:
            _keep_and_exit(self._build, self._folder.path)

    def _is_idle(self) -> bool:
        """Whether no copy is at work."""
        if self._copy:
            try:
                is_done = os.waitpid(self._copy, os.WNOHANG)[0] != 0
            except ChildProcessError:  # the program has waited for it
                is_done = True
            if not is_done:
                return False
            self._copy, self._took_s = 0, time.monotonic() - self._began_s
        return True

    def _count(self, n_events: int) -> None:
        """Leave the count where it can be found after the process was killed."""
        with suppress(OSError):
            (self._folder.path / CALLS_NAME).write_bytes(np.array([n_events], "<i8").tobytes())


def _keep_and_exit(build: Callable[[], Trace], folder: Path) -> None:
    """The copy's whole life: it works in the folder, not by the folder's name, which another may soon use."""
    code = 1
    try:
        gc.disable()
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # after a fork the thread that made it is the main one
        write_container(build(), WHOLE_NAME, overwrite=True, is_synced=False)
        code = 0
    except Exception as error:  # noqa: BLE001  what is kept is that of the copy before
        if os.environ.get("MEMSCOPE_DEBUG"):
            sys.stderr.write(f"memscope: a moment was not kept: {type(error).__name__}: {error}\n")
    finally:
        _exit(code)
