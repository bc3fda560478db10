"""Out of memory on CUDA: being told at the very moment, and saying afterwards where the trace is."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from memscope.trace.container import write_container
from memscope.trace.trace import Trace


class OomFile:
    """Writes what was recorded until memory first ran out, and says in the error where that is.

    Parameters
    ----------
    recording
        The recording's own file, which the other's name is made of; None writes nothing and says nothing.
    rank
        The process's rank among several.
    is_wanted
        Whether the file is written; where not, errors name the recording's own file.
    """

    def __init__(self, recording: Path | None, rank: int | None, *, is_wanted: bool) -> None:
        self._recording = recording
        self._rank = rank
        self._is_wanted = is_wanted
        self._n_ooms = 0
        self.path: Path | None = None
        self.trace: Trace | None = None

    def ran_out(self, device: int, time_ns: int, take: Callable[[], Trace]) -> None:
        """Memory ran out: at the first time, take the trace until now and write it."""
        self._n_ooms += 1
        if not self._is_wanted or self._recording is None or self._n_ooms > 1:
            return
        path = oom_path(self._recording, self._rank, os.getpid(), time_ns)
        trace = take()
        write_container(trace, path)
        self.trace, self.path = trace, path
        sys.stderr.write(f"memscope: out of memory on device {device}: the trace until then is in {path}\n")

    def explain(self, error: BaseException) -> None:
        """Add a line to an out-of-memory error, once: where the trace is.

        The first one's trace is in a file of its own; a later one is in the recording's file.
        """
        if self._recording is None or not is_out_of_memory(error) or has_note(error):
            return
        if self._n_ooms == 1 and self.path is not None and self.trace is not None:
            add_oom_note(error, self.path, why_it_ran_out(self.trace))
        else:
            add_oom_note(error, self._recording)


def why_it_ran_out(trace: Trace) -> str:
    """The verdict on the last out-of-memory moment of a trace in one line; empty where it cannot be drawn up."""
    from memscope.analysis import Analysis
    from memscope.oom.verdict import oom_headline

    try:
        return oom_headline(Analysis(trace).oom(searches=False))
    except Exception as error:  # noqa: BLE001  an error here would replace the program's own
        return f"why cannot be told ({error or type(error).__name__})"


_NAMES = ("OutOfMemoryError",)
_NOTE = "memscope: "


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What PyTorch says when the driver refuses a segment, before it raises.

    Attributes
    ----------
    time_ns
        Nanoseconds since the epoch, on the trace's clock.
    device
        Whose memory ran out.
    segment_bytes
        The segment asked of the driver: the request rounded up to a segment's size.
    limit_bytes
        The limit set by a memory fraction, else the device's total.
    device_free_bytes
        What the driver had left.
    """

    time_ns: int
    device: int
    segment_bytes: int
    limit_bytes: int
    device_free_bytes: int


Listener = Callable[[OutOfMemory], None]
_listeners: list[Listener] = []
_is_attached = False


def listen(listener: Listener) -> bool:
    """Have a function called at every out-of-memory error on CUDA from now on, until :func:`stop_listening`.

    It is called before the error is raised, on the thread that asked, without the allocator's lock: the history may be
    read in it. Called again with the same function, nothing changes. What it raises is printed and goes no further,
    because it would take the place of the out-of-memory error.

    PyTorch cannot forget an observer, so one is attached once for the process and forwards to whoever listens.

    Returns
    -------
    bool
        Whether this PyTorch can tell: one built without CUDA cannot.
    """
    global _is_attached
    import torch

    attach = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)
    if attach is None:
        return False
    if listener not in _listeners:
        _listeners.append(listener)
    if not _is_attached:
        torch.cuda.init()
        attach(_forward)
        _is_attached = True
    return True


def stop_listening(listener: Listener) -> None:
    """Call the function no longer; nothing happens if it was not called before."""
    if listener in _listeners:
        _listeners.remove(listener)


def _forward(device: int, segment_bytes: int, limit_bytes: int, device_free_bytes: int) -> None:
    """What PyTorch calls."""
    report = OutOfMemory(time.time_ns(), device, segment_bytes, limit_bytes, device_free_bytes)
    for listener in tuple(_listeners):
        _tell(listener, report)


def _tell(listener: Listener, report: OutOfMemory) -> None:
    try:
        listener(report)
    except Exception:  # noqa: BLE001  an error here would replace the program's own
        sys.stderr.write("memscope: the out-of-memory moment could not be kept:\n")
        traceback.print_exc()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is PyTorch's out-of-memory error; it was a class of ``torch.cuda`` before 2.5."""
    return any(kind.__name__ in _NAMES and kind.__module__.startswith("torch") for kind in type(error).__mro__)


def add_oom_note(error: BaseException, path: str | Path, verdict: str = "") -> None:
    """Add one line to an error, below its own text: the verdict and where the trace is.

    The error's own text is never touched. Python 3.10 has no notes: nothing is added there.
    """
    add: Any = getattr(error, "add_note", None)
    said = " ".join(verdict.split())
    if add is not None and not has_note(error):
        add(f"{_NOTE}{f'{said}; ' if said else ''}the trace is in {path}")


def has_note(error: BaseException) -> bool:
    """Whether an error has the line that :func:`add_oom_note` adds."""
    return any(str(note).startswith(_NOTE) for note in getattr(error, "__notes__", ()))


def oom_path(base: str | Path, rank: int | None, pid: int, time_ns: int) -> Path:
    """Name of the file of an out-of-memory moment, beside ``base``, of its own for each rank, process and moment.

    ``train-rank3.memscope`` becomes ``train-oom-rank3-pid4711-20260102T030405.678Z.memscope``; the time is UTC.
    """
    base = Path(base)
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, timezone.utc)
    when = f"{moment:%Y%m%dT%H%M%S}.{time_ns // 1_000_000 % 1000:03d}Z"
    rank_text = "" if rank is None else f"-rank{rank}"
    return base.with_name(
        f"{base.stem.removesuffix(rank_text)}-oom{rank_text}-pid{pid}-{when}{base.suffix or '.memscope'}"
    )
