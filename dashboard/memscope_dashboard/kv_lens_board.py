"""What a device's key/value cache would have cost without growing by copying: replayed once, kept with the trace."""

from __future__ import annotations

from threading import Lock, RLock

from memscope.kv_cache.alternatives import GrowthReplay, replay_without_copies
from memscope.kv_cache.lens import KvLens
from memscope_dashboard.jobs import Job, Jobs, Progress, Report

_DONE = Progress("done")


class KvLensBoard:
    """The replays with and without the copies.

    Parameters
    ----------
    lens
        The cache.
    jobs
        Where the replays run.
    """

    def __init__(self, lens: KvLens, jobs: Jobs) -> None:
        self._lens = lens
        self._jobs = jobs
        self._turn = Lock()
        self._guard = RLock()
        self._job: Job | None = None
        self._is_done = False
        self._replay: GrowthReplay | None = None

    @property
    def replay(self) -> GrowthReplay | None:
        """What the replays found; None before that, and where there was nothing to replay."""
        with self._guard:
            return self._replay

    def begin(self) -> Progress:
        """Begin the replays, unless they were begun or nothing grew; how far they are."""
        with self._guard:
            if self._is_done or not len(self._lens.growth):
                return _DONE
            if self._job is None or self._job.progress.state == "cancelled":
                self._job = self._jobs.start(self._work, self._turn)
            return self._job.progress

    def wait(self, timeout_s: float) -> Progress:
        """Wait a little for the end, so that short replays need no second question."""
        progress = self.begin()
        if progress.is_active and self._job is not None:
            self._job.wait(timeout_s)
        return self.begin()

    def close(self) -> None:
        """End what waits or runs."""
        with self._guard:
            if self._job is not None:
                self._job.cancel()

    def _work(self, report: Report) -> None:
        found = replay_without_copies(self._lens, report)
        with self._guard:
            self._replay, self._is_done = found, True
