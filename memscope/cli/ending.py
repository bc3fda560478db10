"""Being told to end: a verb that is leaves nothing half done behind."""

from __future__ import annotations

import copy
import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from memscope.files import remove_unfinished


def ending_when_told(command: click.Command) -> click.Command:
    """The command, which SIGTERM and SIGHUP end as an error would: temporary files are removed, servers closed.

    A signal that is ignored stays so (``nohup``).
    """
    run = command.callback
    if run is None:
        return command

    @functools.wraps(run)
    def told(*args: Any, **options: Any) -> Any:
        with _ended_by_signals():
            return run(*args, **options)

    found = copy.copy(command)
    found.callback = told
    return found


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    usual = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in usual:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in usual:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Leave, with the exit code that a shell gives to what a signal ended; a second one ends it at once."""
    signal.signal(number, signal.SIG_DFL)
    if _is_importing(frame):
        # An error in the middle of a compiled module's being made aborts, with words of its own.
        remove_unfinished()
        os.kill(os.getpid(), number)
    raise SystemExit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
