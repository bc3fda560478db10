"""Being told to end: a verb that is leaves nothing half done behind."""

from __future__ import annotations

import copy
import functools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click


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


def _end(number: int, _frame: Any) -> NoReturn:
    """Leave, with the exit code that a shell gives to what a signal ended; a second one ends it at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)
