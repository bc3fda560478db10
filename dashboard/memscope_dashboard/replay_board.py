"""What was replayed for one device of a trace, kept with the trace: each replay once, whoever asks for it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock, RLock

import numpy as np

from memscope.advise.tune import Tuning, tune
from memscope.device.device import Device
from memscope.device.limits import Limits, limits_for
from memscope.device.to_come import state_to_come
from memscope.figures.replay import ReplayCurve, reduced_curve, result_curve
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.compare import Comparison, RecordedRun, comparison_jobs, default_confs
from memscope.replay.compare import recorded_run as run_of_recording
from memscope.replay.result import ReplayResult
from memscope.replay.strategies import STRATEGIES
from memscope.replay.sweep import Refused, ReplayJob, attempt
from memscope.replay.verify.verify import DeviceVerification, verify_device
from memscope_dashboard.jobs import Job, Jobs, Progress, Report

_IDLE = Progress("done")


@dataclass(frozen=True, slots=True)
class ReplayAsked:
    """What the controls ask for.

    Attributes
    ----------
    strategies
        Names in the registry; all of it if empty.
    confs
        Settings beside those that are compared by default.
    capacity_bytes
        Memory of the device; None for the recorded one's.
    """

    strategies: tuple[str, ...] = ()
    confs: tuple[str, ...] = ()
    capacity_bytes: int | None = None

    @property
    def takes_confs(self) -> bool:
        """Whether settings mean anything to one of the strategies."""
        return any(STRATEGIES[name].takes_conf for name in self.strategies or STRATEGIES)


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """What came of one replay.

    Attributes
    ----------
    conf
        As it was asked for; None for a strategy without settings.
    result
        Without its series, of which ``curve`` keeps what can be drawn; None if it was ``refused``.
    """

    strategy: str
    conf: str | None
    result: ReplayResult | None
    curve: ReplayCurve | None
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class BoardState:
    """The board at a moment, for what was asked.

    Attributes
    ----------
    outcomes
        Of the replays that are done, in the order asked for; None for the others.
    verification
        None as long as it is not known.
    tuning
        None unless a search for this capacity has come to its end.
    """

    limits: Limits
    outcomes: tuple[ReplayOutcome | None, ...]
    comparing: Progress
    verifying: Progress
    verification: DeviceVerification | None
    searching: Progress
    tuning: Tuning | None

    @property
    def n_done(self) -> int:
        """Replays that are done."""
        return sum(outcome is not None for outcome in self.outcomes)

    @property
    def done(self) -> tuple[ReplayOutcome, ...]:
        """The replays that are done, in the order asked for."""
        return tuple(outcome for outcome in self.outcomes if outcome is not None)

    @property
    def is_active(self) -> bool:
        """Whether it will still change by itself."""
        return any(progress.is_active for progress in (self.comparing, self.verifying, self.searching))


_Key = tuple[str, str | None, Limits]


def _key(job: ReplayJob) -> _Key:
    options = job.options
    return (job.strategy, options.conf, options.limits)


class ReplayBoard:
    """The replays of a device, made in the background one after the other.

    Parameters
    ----------
    device
        The device.
    jobs
        Where its work is started.
    """

    def __init__(self, device: Device, jobs: Jobs) -> None:
        self.device = device
        self._jobs = jobs
        self._turn = Lock()
        self._guard = RLock()
        self._outcomes: dict[_Key, ReplayOutcome] = {}
        self._tunings: dict[int | None, Tuning] = {}
        self._verification: DeviceVerification | None = None
        self._verify_job: Job | None = None
        self._compare_job: Job | None = None
        self._compared: ReplayAsked | None = None
        self._tune_job: Job | None = None
        self._tuned: int | None = None

    @cached_property
    def recorded(self) -> RecordedRun:
        """What the recording did."""
        return run_of_recording(self.device.lifetimes)

    @cached_property
    def recorded_curve(self) -> ReplayCurve | None:
        """The recording's own curve, None where reserved bytes were not recorded."""
        return reduced_curve(self.device.usage)

    def replays(self, asked: ReplayAsked) -> list[ReplayJob]:
        """The replays that are asked for, each once."""
        limits = limits_for(self.device.lifetimes, Limits(asked.capacity_bytes))
        confs = dict.fromkeys([*default_confs(self.device.lifetimes), *asked.confs]) if asked.takes_confs else ()
        names = asked.strategies or tuple(STRATEGIES)
        return comparison_jobs(self.device.lifetimes, names, tuple(confs), limits=limits)

    @property
    def is_comparing(self) -> bool:
        """Whether a comparison goes on or waits."""
        with self._guard:
            return self._progress(self._compare_job).is_active

    def compare(self, asked: ReplayAsked, *, again: bool = False) -> None:
        """See to it that what is asked for is replayed; other replays that are still to come are dropped.

        A comparison that was cancelled or failed is only taken up if ``again`` says so.
        """
        with self._guard:
            if self._verify_job is None:
                self._verify_job = self._jobs.start(self._verify, self._turn)
            missing = [job for job in self.replays(asked) if _key(job) not in self._outcomes]
            if asked == self._compared and not again:
                return
            if self._compare_job is not None:
                self._compare_job.cancel()
            self._compared = asked
            self._compare_job = None
            if missing:
                self._compare_job = self._jobs.start(lambda report: self._compare(missing, report), self._turn)

    def search(self, capacity_bytes: int | None) -> None:
        """Look for the best settings, unless that is known or on its way."""
        with self._guard:
            is_same = self._tune_job is not None and self._tuned == capacity_bytes
            if capacity_bytes in self._tunings or (is_same and self._progress(self._tune_job).is_active):
                return
            if self._tune_job is not None:
                self._tune_job.cancel()
            self._tuned = capacity_bytes
            self._tune_job = self._jobs.start(lambda report: self._tune(capacity_bytes, report), self._turn)

    def cancel(self) -> None:
        """Drop the replays that are still to come."""
        with self._guard:
            for job in (self._compare_job, self._tune_job):
                if job is not None:
                    job.cancel()

    def close(self) -> None:
        """The trace is not kept any longer: end its work."""
        self.cancel()
        if self._verify_job is not None:
            self._verify_job.cancel()

    def state(self, asked: ReplayAsked) -> BoardState:
        """What is known of what was asked for."""
        jobs = self.replays(asked)
        with self._guard:
            is_tuned = self._tuned == asked.capacity_bytes
            return BoardState(
                limits=limits_for(self.device.lifetimes, Limits(asked.capacity_bytes)),
                outcomes=tuple(self._outcomes.get(_key(job)) for job in jobs),
                comparing=self._progress(self._compare_job),
                verifying=self._progress(self._verify_job),
                verification=self._verification,
                searching=self._progress(self._tune_job) if is_tuned else _IDLE,
                tuning=self._tunings.get(asked.capacity_bytes),
            )

    def comparison(self, state: BoardState) -> Comparison:
        """The replays that are done, beside the recording."""
        results = tuple(outcome.result for outcome in state.done if outcome.result is not None)
        refused = tuple(outcome.refused for outcome in state.done if outcome.refused is not None)
        return Comparison(self.device.index, self.recorded, state.limits, results, refused)

    @staticmethod
    def _progress(job: Job | None) -> Progress:
        return _IDLE if job is None else job.progress

    def _verify(self, report: Report) -> None:
        del report  # one step: it cannot be cancelled on the way
        found = verify_device(self.device.lifetimes)
        with self._guard:
            self._verification = found

    def _compare(self, jobs: Sequence[ReplayJob], report: Report) -> None:
        report(0, len(jobs))
        for n_done, job in enumerate(jobs, 1):
            if _key(job) not in self._outcomes:
                outcome = _outcome(job)
                with self._guard:
                    self._outcomes[_key(job)] = outcome
            report(n_done, len(jobs))

    def _tune(self, capacity_bytes: int | None, report: Report) -> None:
        found = tune(
            self.device.lifetimes,
            limits=Limits(capacity_bytes),
            to_come_bytes=state_to_come(self.device),
            on_done=report,
        )
        kept = dataclasses.replace(
            found,
            baseline=None if found.baseline is None else _without_series(found.baseline),
            best=None if found.best is None else _without_series(found.best),
            lower_bound=_without_series(found.lower_bound),
            results=tuple(map(_without_series, found.results)),
        )
        with self._guard:
            self._tunings[capacity_bytes] = kept


def _outcome(job: ReplayJob) -> ReplayOutcome:
    conf = job.options.conf
    result = attempt(job)
    if isinstance(result, Refused):
        return ReplayOutcome(job.strategy, conf, None, None, result)
    return ReplayOutcome(job.strategy, conf, _without_series(result), result_curve(result))


def _without_series(result: ReplayResult) -> ReplayResult:
    """A result whose series is empty: dozens of whole ones of a long run would fill the memory."""
    none = np.empty(0, np.int64)
    return dataclasses.replace(result, usage=UsageSeries(result.usage.first_event, none, none, none, none))
