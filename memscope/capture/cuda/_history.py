"""PyTorch's memory history, drained in chunks while the program runs, so that neither host memory nor the ring ends it.

The ring is read by a forked copy of the process: the program waits for the fork and for the ring to be cleared, not for
the snapshot. A drain is made by the main thread between two of its bytecodes, when no allocator call is under way.

Between drains what the ring has by then is kept as well, so that a process that is killed loses no more than a moment:
the copy writes the chunk that the next drain will write, in a version of its own, and the ring goes on.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from memscope.capture.cuda.allocator import EventCounter
from memscope.capture.environment import CaptureEnvironment
from memscope.trace.recording.folder import CALLS_NAME, chunk_path, forget_versions, write_notes
from memscope.trace.recording.notes import Calls, RecordingNotes, Sizes

Stacks = Literal["python", "all"] | None
DEFAULT_MAX_HOST_BYTES = 1 << 30
_EVENT_BYTES = 2 << 10
"""Host memory of an event with a Python stack, in the ring and while it is written; measured, rounded up."""
_POLL_S = 0.05
_SHORTEST_POLL_S = 0.002
_LONGEST_INTERVAL_S = 10.0
_MAX_PAUSE_FRAC = 0.02
"""Drains for the sake of time take no more than this of the run, and leave chunks of no less than this of it."""
DEFAULT_MAX_LOSS_S = 1.0
_MAX_KEEPING_FRAC = 0.1
"""What is kept between drains takes no more than this of the run: where a pause is long, more may be lost."""
_MAX_KEPT_EVENTS = 30_000
"""From so many on a chunk is drained, not written again and again."""
_CHILD_LIMIT_S = 120.0
_UNSERVED_S = 5.0


def max_events(max_host_bytes: int, environment: CaptureEnvironment) -> int:
    """Size of the ring, in events of each device; the variable MEMSCOPE_MAX_EVENTS overrides it."""
    return environment.max_events or max(max_host_bytes // _EVENT_BYTES, 1)


class History:
    """The history from :meth:`start` to :meth:`stop`, drained into a folder.

    Parameters
    ----------
    folder
        Where chunks go.
    counter, notes
        What is counted and noted meanwhile; what a chunk has of the notes is dropped from it.
    stacks
        The stacks that are recorded: ``python``, ``all`` with the C++ frames too, or None.
    max_entries
        Events that the ring holds for each device.
    max_loss_s
        How much of the run may be lost when the process is killed.
    device
        The only device whose events are kept, None for all.
    """

    def __init__(
        self,
        folder: Path,
        counter: EventCounter,
        notes: RecordingNotes,
        *,
        stacks: Stacks,
        max_entries: int,
        max_loss_s: float = DEFAULT_MAX_LOSS_S,
        device: int | None = None,
    ) -> None:
        import torch

        self._folder = folder
        self._counter = counter
        self._notes = notes
        self._context = None if stacks is None else "all"
        self._stacks = stacks or "python"
        self._max_entries = max_entries
        self._device = device
        self._record = torch.cuda.memory._record_memory_history
        self._snapshot = torch.cuda.memory._snapshot
        self._can_clear = "clear_history" in inspect.signature(self._record).parameters
        self._forks = hasattr(os, "fork") and os.environ.get("MEMSCOPE_DRAIN") != "inline"
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._max_loss_s = max_loss_s
        self._n_chunks = self._version = 0
        self._drained = self._kept = 0
        self._drained_s = self._kept_s = self._started_s = 0.0
        self._is_ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._request = _MainThreadRequest(self._serve)
        self.workspaces: list[tuple[int, int]] = []
        """At the end: device and address of the memory that cuBLAS held for itself."""
        self.pauses_s: list[float] = []
        """How long the program stood still for each drain."""
        self.on_drained: Callable[[], None] | None = None
        """Called after each drain."""

    def start(self) -> None:
        """Switch the history on and write the first chunk: the state that the recording begins with."""
        self._switch_on()
        self._counter.restart()
        self._started_s = self._drained_s = self._kept_s = time.monotonic()
        self._write_chunk(0)
        self._n_chunks = 1

    def watch(self) -> None:
        """Begin to drain whenever that is due."""
        self._thread = threading.Thread(target=self._poll, name="memscope-drain", daemon=True)
        self._thread.start()

    def move(self, folder: Path) -> None:
        """Write from now on into a folder under its new name."""
        self._folder = folder

    def stop(self) -> None:
        """Drain what is left and switch the history off."""
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._finish_child(wait=True)
            try:
                self._write_chunk(self._n_chunks, version=self._version + 1)
                self.workspaces = self._find_workspaces()
            finally:
                self._record(None)

    def drain(self) -> None:
        """Drain now; where the one before is still being written, wait for it."""
        with self._lock:
            self._drain()

    def read_now(self) -> None:
        """Drain now and here, without a copy of the process: all that happened until now is in the folder then."""
        with self._lock:
            forks, self._forks = self._forks, False
            try:
                self._drain()
            finally:
                self._forks = forks

    def drain_if_due(self, calls: Calls) -> None:
        """Drain, or keep, if that is due, at a moment when the program has come to a rest by itself."""
        now = time.monotonic()
        if self._is_due(sum(calls) - self._drained, now) or self._is_keeping_due(sum(calls), now):
            self._serve()

    def _serve(self) -> None:
        """A drain that was asked for, in the main thread; where none is due, what the ring has is kept."""
        if os.getpid() != self._pid or self._is_ending.is_set() or not self._lock.acquire(blocking=False):
            return
        try:
            n_new = sum(self._counter.calls()) - self._drained
            if n_new > _MAX_KEPT_EVENTS or self._is_due(n_new, time.monotonic()):
                self._drain()
            else:
                self._keep()
        finally:
            self._lock.release()

    def _keep(self) -> None:
        """Write what the ring has by now, as a version of the chunk that the next drain will write."""
        begin = time.monotonic()
        if not self._finish_child(wait=False):
            return
        self._version += 1
        self._kept = sum(self._counter.calls())
        self._write(sizes=None)
        self._kept_s = time.monotonic()
        self.pauses_s.append(self._kept_s - begin)

    def _write(self, sizes: Sizes | None) -> None:
        """Write the chunk under way in its newest version; ``sizes`` of the notes are dropped when that is done."""
        number, version = self._n_chunks, self._version
        if self._forks:
            path = chunk_path(self._folder, number, version)
            self._child = _Child(lambda: self._write_chunk(number, Path(), version=version), path, sizes)
        else:
            self._write_chunk(number, version=version)
            if sizes is not None:
                self._notes.drop(sizes)
        if self.on_drained is not None:
            self.on_drained()

    def _drain(self) -> None:
        begin = time.monotonic()
        self._finish_child(wait=True)
        self._version += 1
        self._drained = self._kept = sum(self._counter.calls())
        self._write(self._notes.sizes())
        self._n_chunks, self._version = self._n_chunks + 1, 0
        self._clear()
        self._drained_s = self._kept_s = time.monotonic()
        self.pauses_s.append(self._drained_s - begin)

    def _finish_child(self, *, wait: bool) -> bool:
        """Whether no drain is being written any more; what one has written of the notes is dropped."""
        child = self._child
        if child is None:
            return True
        if not child.is_done(_CHILD_LIMIT_S if wait else 0.0):
            return False
        self._child = None
        if child.has_written and child.sizes is not None:
            self._notes.drop(child.sizes)
        return True

    def _write_chunk(self, number: int, folder: Path | None = None, *, version: int = 0) -> None:
        folder = self._folder if folder is None else folder
        path = chunk_path(folder, number, version)
        for _ in range(3):
            counts = self._counter.counts()
            snapshot = self._snapshot()
            if self._counter.counts() == counts:
                break  # else another thread went on allocating meanwhile
        if self._device is not None:
            _keep_only(snapshot, self._device)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            pickle.dump(snapshot, file, protocol=pickle.HIGHEST_PROTOCOL)
        write_notes(path, counts, self._notes)
        partial.replace(path)
        forget_versions(folder, number, version)

    def _find_workspaces(self) -> list[tuple[int, int]]:
        """Have cuBLAS give its workspaces back, and see which memory that is; it takes new ones when it next works.

        Nothing else tells them from the memory of the operation that cuBLAS first worked for.
        """
        import torch

        give_back = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if give_back is None:
            return []
        self._clear()
        give_back()
        return [
            (device, event["addr"])
            for device, events in enumerate(self._snapshot()["device_traces"])
            for event in events
            if event["action"] == "free_requested"
        ]

    def _switch_on(self) -> None:
        if not self._can_clear:
            self._record(None)
            self._record("all", **self._options())
        else:
            self._clear()

    def _clear(self) -> None:
        """Empty the ring: everything before now has been read, or is being read in the copy."""
        if self._can_clear:
            self._record("all", clear_history=True, **self._options())
        else:
            self._record(None)
            self._record("all", **self._options())

    def _options(self) -> dict[str, Any]:
        return {"context": self._context, "stacks": self._stacks, "max_entries": self._max_entries}

    def _poll(self) -> None:
        """Ask for drains; runs in a thread of its own."""
        asked_s = None
        wait_s, n_before = _POLL_S, 0
        while not self._is_ending.wait(wait_s):
            if os.getpid() != self._pid:
                return
            calls = self._counter.calls()
            self._publish(calls)
            n_new, now = sum(calls) - self._drained, time.monotonic()
            # Look twice while a quarter of the ring fills, at the rate of the last interval.
            n_came, n_before = sum(calls) - n_before, sum(calls)
            wait_s = min(max(self._max_entries / 8 / max(n_came, 1) * wait_s, _SHORTEST_POLL_S), _POLL_S)
            if not self._is_due(n_new, now):
                if self._is_keeping_due(sum(calls), now):
                    self._request.send()
                asked_s = None
                continue
            asked_s = now if asked_s is None else asked_s
            if now - asked_s > _UNSERVED_S and n_new > self._max_entries // 2:
                # The main thread waits inside something: read here; what comes meanwhile may be lost, and is counted.
                self.read_now()
                asked_s = None
            else:
                self._request.send()

    def _is_due(self, n_new: int, now: float) -> bool:
        if n_new >= self._max_entries // 4:
            # One that is still being written is waited for only when the ring is about to overflow.
            return n_new >= self._max_entries // 4 * 3 or self._child is None or self._child.is_done(0.0)
        pause = self.pauses_s[-1] if self.pauses_s else 0.0
        interval = max(_LONGEST_INTERVAL_S, pause / _MAX_PAUSE_FRAC, (now - self._started_s) * _MAX_PAUSE_FRAC)
        return n_new > 0 and now - self._drained_s > interval and (self._child is None or self._child.is_done(0.0))

    def _is_keeping_due(self, n_calls: int, now: float) -> bool:
        pause = self.pauses_s[-1] if self.pauses_s else 0.0
        interval = max(self._max_loss_s / 2, pause / _MAX_KEEPING_FRAC)
        is_idle = self._child is None or self._child.is_done(0.0)
        return n_calls > self._kept and now - self._kept_s > interval and is_idle

    def _publish(self, calls: tuple[int, ...]) -> None:
        """Leave the count where it can be found after the process was killed."""
        with suppress(OSError):
            (self._folder / CALLS_NAME).write_bytes(np.array(calls, "<i8").tobytes())


def _keep_only(snapshot: dict[str, Any], device: int) -> None:
    """Take everything of the other devices out of a snapshot."""
    traces = snapshot["device_traces"]
    snapshot["device_traces"] = [events if position == device else [] for position, events in enumerate(traces)]
    snapshot["segments"] = [segment for segment in snapshot["segments"] if segment["device"] == device]


class _Child:
    """A forked copy of the process that writes one chunk into its working folder and ends."""

    def __init__(self, write: Callable[[], None], path: Path, sizes: Sizes | None) -> None:
        self._path = path
        self.sizes = sizes
        self._ended = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the copy uses none
            self._pid = os.fork()
        if not self._pid:
            _run_and_exit(write, path.parent)

    @property
    def has_written(self) -> bool:
        """Whether the chunk is there."""
        return self._path.exists()

    def is_done(self, limit_s: float) -> bool:
        """Whether the copy has ended; one that runs past a limit which is not 0 is killed."""
        deadline = time.monotonic() + limit_s
        while not self._ended:
            try:
                self._ended = os.waitpid(self._pid, os.WNOHANG)[0] != 0
            except ChildProcessError:  # the program has waited for it
                self._ended = True
            if self._ended or not limit_s:
                break
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.002)
        return self._ended


def _run_and_exit(write: Callable[[], None], folder: Path) -> None:
    """The copy's whole life; nothing of the program runs in it, at its end neither.

    It works in the folder, not by the folder's name: when the program is killed, another may soon use the name.
    """
    code = 1
    try:
        gc.disable()
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _let_go_of_gpus()
        write()
        code = 0
    finally:
        os._exit(code)


def _let_go_of_gpus() -> None:
    """Close the copy's hold on the devices: it must not keep their memory when the program is killed."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return
    for entry in list(folder.iterdir()):
        with suppress(OSError):
            if str(entry.readlink()).startswith("/dev/nvidia"):
                os.close(int(entry.name))


class _MainThreadRequest:
    """Has a function called by the main thread, between two bytecodes."""

    def __init__(self, serve: Callable[[], None]) -> None:
        self._serve = serve
        self._is_sent = False
        self._callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._called)

    def send(self) -> None:
        """Ask, unless it was asked already and not yet served."""
        if not self._is_sent:
            self._is_sent = True
            if ctypes.pythonapi.Py_AddPendingCall(self._callback, None) != 0:
                self._is_sent = False  # the interpreter's queue is full

    def _called(self, _: object) -> int:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001
            sys.stderr.write(f"memscope: a drain failed: {error}\n")
        finally:
            self._is_sent = False
        return 0
