"""Work beside the pages: a thread for each piece, with progress, cancelled between its steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event, Lock, Thread
from typing import Literal
from weakref import WeakSet

from memscope.errors import MemscopeError, UsageError

_LOG = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "cancelled", "failed"]
Report = Callable[[int, int], None]
"""Called by the work after each step with the steps done and the steps there are; it raises once it is cancelled."""
Work = Callable[[Report], None]

MAX_ACTIVE = 16
"""Jobs that run or wait at a time."""
_PATIENCE_S = 0.1
"""How often a job that waits for its turn looks whether it was cancelled."""


class CancelledError(Exception):
    """Raised inside a job's work when it was cancelled."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes
    ----------
    n_done, n_all
        Steps; more may be found on the way.
    problem
        Why it failed, else empty.
    """

    state: State
    n_done: int = 0
    n_all: int = 0
    problem: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it will still change by itself."""
        return self.state in ("waiting", "running")


class Job:
    """A piece of work in a thread of its own.

    Parameters
    ----------
    work
        What is done; it calls the report it is given after each step.
    turn
        Held while the work runs: jobs that share one run one after the other.
    """

    def __init__(self, work: Work, turn: Lock) -> None:
        self._work = work
        self._turn = turn
        self._cancel = Event()
        self._guard = Lock()
        self._progress = Progress("waiting")
        self._thread = Thread(target=self._run, daemon=True)

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        with self._guard:
            return self._progress

    def start(self) -> None:
        """Begin, as soon as it is its turn."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to end after the step that it is at."""
        self._cancel.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to end, even if it has not yet."""
        return self._cancel.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _set(self, state: State, problem: str = "") -> None:
        with self._guard:
            self._progress = replace(self._progress, state=state, problem=problem)

    def _report(self, n_done: int, n_all: int) -> None:
        with self._guard:
            self._progress = replace(self._progress, n_done=n_done, n_all=n_all)
        if self._cancel.is_set() and n_done < n_all:
            raise CancelledError

    def _run(self) -> None:
        while not self._turn.acquire(timeout=_PATIENCE_S):
            if self._cancel.is_set():
                self._set("cancelled")
                return
        try:
            self._set("running")
            self._report(0, 1)
            self._work(self._report)
            self._set("done")
        except CancelledError:
            self._set("cancelled")
        except MemscopeError as error:
            self._set("failed", str(error))
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            _LOG.exception("a job failed")
            text = f"{type(error).__name__}: {error} — a defect in memscope; the terminal has the traceback"
            self._set("failed", text)
        finally:
            self._turn.release()


class Jobs:
    """Every job of a server, so that all of them can be ended."""

    def __init__(self) -> None:
        self._jobs: WeakSet[Job] = WeakSet()
        self._is_closed = False
        self._guard = Lock()

    def start(self, work: Work, turn: Lock) -> Job:
        """Begin some work, as soon as it is its turn.

        Raises
        ------
        UsageError
            If too much is under way, or the server ends.
        """
        job = Job(work, turn)
        with self._guard:
            if self._is_closed:
                raise UsageError("the dashboard is being closed")
            if sum(other.progress.is_active for other in self._jobs) >= MAX_ACTIVE:
                raise UsageError(f"{MAX_ACTIVE} pieces of work are under way already: wait for one, or cancel it")
            self._jobs.add(job)
        job.start()
        return job

    @property
    def n_active(self) -> int:
        """Jobs that run or wait."""
        with self._guard:
            return sum(job.progress.is_active for job in self._jobs)

    def cancel(self) -> list[Job]:
        """Cancel all; those that there were."""
        with self._guard:
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        return jobs

    def close(self, timeout_s: float) -> None:
        """Cancel all, take no more, and wait for their ends, so long for each."""
        with self._guard:
            self._is_closed = True
        for job in self.cancel():
            job.wait(timeout_s)
