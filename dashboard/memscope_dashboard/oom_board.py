"""Verdicts on the failed requests of one device, kept with its trace: at once without, later with what would help."""

from __future__ import annotations

from threading import Lock, RLock

from memscope.analysis import Opinions
from memscope.oom.verdict import OomVerdict
from memscope_dashboard.jobs import Job, Jobs, Progress, Report

_DONE = Progress("done")


class OomBoard:
    """What is known of each failed request of a device.

    Parameters
    ----------
    opinions
        What is thought of the device.
    jobs
        Where searches run, one at a time.
    """

    def __init__(self, opinions: Opinions, jobs: Jobs) -> None:
        self._opinions = opinions
        self._jobs = jobs
        self._turn = Lock()
        self._guard = RLock()
        self._searched: dict[int, OomVerdict] = {}
        self._running: dict[int, Job] = {}
        self.events = tuple(int(event) for event in opinions.device.oom_events)

    def verdict(self, event: int) -> OomVerdict:
        """Why a request failed; with what would have helped if that was searched already.

        Raises
        ------
        UsageError
            If no request of the device failed at this event.
        """
        with self._guard:
            if event in self._searched:
                return self._searched[event]
            return self._opinions.oom(event, searches=False)

    def search(self, event: int) -> Progress:
        """Begin the search for what would have helped, unless it was begun; how far it is.

        Searches that wait for their turn make way for this one.
        """
        with self._guard:
            if event in self._searched:
                return _DONE
            job = self._running.get(event)
            if job is None or job.progress.state == "cancelled":
                for other in self._running.values():
                    other.cancel()
                job = self._running[event] = self._jobs.start(lambda report: self._work(event, report), self._turn)
            return job.progress

    def wait(self, event: int, timeout_s: float) -> Progress:
        """Wait a little for the end of a search, so that a short one needs no second question."""
        progress = self.search(event)
        job = self._running.get(event)
        if progress.is_active and job is not None:
            job.wait(timeout_s)
        return self.search(event)

    def close(self) -> None:
        """End what waits or runs."""
        with self._guard:
            for job in self._running.values():
                job.cancel()

    def _work(self, event: int, report: Report) -> None:
        found = self._opinions.oom(event)
        with self._guard:
            self._searched[event] = found
        report(1, 1)
