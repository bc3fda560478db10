"""The best settings of PyTorch's allocator for a recording, found by replaying it under many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memscope.advise.confs import grid, harmful_combinations, neighbours, torch_release, variable_name
from memscope.device.limits import NO_LIMITS, Limits, limits_for
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.compare import (
    NEGLIGIBLE_FRAC,
    RecordedRun,
    preference,
    preferred,
    recorded_run,
    reproduces,
    trusted,
)
from memscope.replay.config import CachingAllocatorConfig, forbidden_options
from memscope.replay.result import ReplayResult
from memscope.replay.strategies import ReplayOptions, replay
from memscope.replay.sweep import ReplayJob, SweepWorkers, run_sweep
from memscope.units import format_fraction

NEAR_BOUND_FRAC = 0.05
"""Reserved memory this close to the lower bound leaves nothing that a setting could save."""
_N_ROUNDS = 4
MAX_SEARCHED_EVENTS = 300_000
"""Above this many events nothing is searched unasked: each setting costs a replay of them all."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a search found for one device.

    Attributes
    ----------
    recorded
        What the recording did.
    limits
        What the replays could have of the device.
    baseline
        The replay under the recorded settings: gains are counted from it, so that an error of the replay is not taken
        for a gain. None if the recorded settings cannot be replayed.
    best
        The best replay found; None if every one ran out of memory.
    lower_bound
        What no allocator can beat.
    results
        Every replay, best first; their usage is cut down to the moment of the peak.
    variable
        Environment variable that the recording's PyTorch reads.
    warnings
        What speaks against the recorded settings, and what weakens the prediction.
    cached_before_bytes
        What was reserved and not in use before the first event; None where that was not measured.
    """

    device: int
    recorded: RecordedRun
    limits: Limits
    baseline: ReplayResult | None
    best: ReplayResult | None
    lower_bound: ReplayResult
    results: tuple[ReplayResult, ...]
    variable: str
    warnings: tuple[str, ...]
    cached_before_bytes: int | None = None

    @property
    def error_bytes(self) -> int:
        """How far the replay of the recorded settings is off the recorded peak; 0 where that is not known."""
        recorded = self.recorded.peak_reserved_bytes
        if recorded is None or self.baseline is None or self.baseline.oom is not None:
            return 0
        if self.recorded.fatal_event is not None:
            return 0  # the replay has a request more
        return abs(self.baseline.peak_reserved_bytes - recorded)

    @property
    def is_wasted_before(self) -> bool:
        """Whether what the replay does not account for is mostly memory that was cached before the recording began."""
        recorded = self.recorded.peak_reserved_bytes
        if recorded is None or self.cached_before_bytes is None or self.baseline is None:
            return False
        missing = recorded - self.baseline.peak_reserved_bytes
        return missing > NEGLIGIBLE_FRAC * recorded and 2 * self.cached_before_bytes >= missing

    @property
    def baseline_bytes(self) -> int | None:
        """Peak reserved bytes that gains are counted from; None where nothing is known of it.

        A recording that ended in a failure has none of its own: what it reserved is without the request that failed.
        """
        if self.baseline is not None and self.baseline.oom is None:
            return self.baseline.peak_reserved_bytes
        return None if self.recorded.fatal_event is not None else self.recorded.peak_reserved_bytes

    @property
    def reproduces(self) -> bool:
        """Whether a replay of the recorded settings ends as the recording did: if not, others prove nothing."""
        return self.baseline is None or reproduces(self.baseline, self.recorded, self.limits)

    @property
    def n_more_served(self) -> int:
        """How many requests the best setting serves of those that fail under the recorded ones and end nothing."""
        if self.best is None or self.baseline is None or self.recorded.fatal_event is not None:
            return 0
        return max((self.baseline.n_ooms or 0) - (self.best.n_ooms or 0), 0)

    @property
    def gain_bytes(self) -> int | None:
        """What the best setting saves; None where there is nothing to compare."""
        if self.best is None or self.baseline_bytes is None:
            return None
        return self.baseline_bytes - self.best.peak_reserved_bytes

    @property
    def recommended_conf(self) -> str | None:
        """Settings to use, in the form of the environment variable; None where a change is not worth it."""
        if self.best is None or self.best.conf is None:
            return None
        if not self.reproduces or not self.recorded.has_requests:
            return None
        if self.recorded.fatal_event is not None and self.limits.is_as_recorded:
            return None if self.recorded.is_full else self.best.conf
        if self.baseline is not None and self.baseline.oom is not None:
            return self.best.conf
        if self.n_more_served:
            return self.best.conf
        baseline, gain = self.baseline_bytes, self.gain_bytes
        # A gain within the replay's own error is none.
        if baseline is None or gain is None or gain < max(NEGLIGIBLE_FRAC * baseline, self.error_bytes):
            return None
        return self.best.conf

    @property
    def line(self) -> str | None:
        """The line to set, None where a change is not worth it."""
        conf = self.recommended_conf
        if conf is None:
            return None
        return f"{self.variable}={conf}" if conf else f"unset {self.variable}"

    @property
    def above_bound_frac(self) -> float | None:
        """How far the baseline's peak is above the lower bound, as a share of that bound."""
        if self.baseline_bytes is None or not self.lower_bound.peak_reserved_bytes:
            return None
        return self.baseline_bytes / self.lower_bound.peak_reserved_bytes - 1


def tune(
    lifetimes: DeviceLifetimes,
    *,
    limits: Limits = NO_LIMITS,
    to_come_bytes: int = 0,
    spread: SweepWorkers | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> Tuning:
    """Search PyTorch's own options: a grid, then steps from the best until none helps.

    The best is :func:`memscope.replay.compare.preferred` of all of them.

    Parameters
    ----------
    limits
        What PyTorch can have of the device; as recorded where nothing is given.
    to_come_bytes
        What the program had still to make when it failed (:func:`memscope.device.to_come.state_to_come`).

    Raises
    ------
    UsageError
        If nothing was recorded, an option cannot be used, or the recording is of another allocator than PyTorch's.
    """
    metadata = lifetimes.trace.metadata
    if not metadata.is_of_pytorch:
        raise UsageError(
            f"{metadata.source_file}: no setting of PyTorch's allocator was in force in a log of RMM, so that none can "
            "be tuned; memscope replay compares allocators for its requests"
        )
    limits = limits_for(lifetimes, limits)
    release = torch_release(metadata)
    usage, forbidden = lifetimes.usage, forbidden_options(lifetimes.trace)
    bound = replay(lifetimes, "lower-bound", ReplayOptions())
    recorded, baseline = recorded_run(lifetimes, to_come_bytes), _baseline(lifetimes, limits)
    results: dict[str, ReplayResult] = {}
    can_collect_garbage = limits.memory_fraction is not None and limits.memory_fraction < 1
    todo: Sequence[str] = grid(release, can_collect_garbage=can_collect_garbage, forbidden=forbidden)
    for _ in range(_N_ROUNDS):
        n_before = len(results)
        jobs = [ReplayJob(lifetimes, "caching", ReplayOptions(conf, limits, keeps_usage=False)) for conf in todo]

        def count(n_done: int, n_all: int, n_before: int = n_before) -> None:
            if on_done is not None:
                on_done(n_before + n_done, n_before + n_all)

        done = run_sweep(jobs, spread, on_done=count)
        results.update(zip(todo, trusted(done, baseline, recorded, limits), strict=True))
        best_conf = min(results, key=lambda conf: preference(results[conf]))
        if results[best_conf].oom is not None:
            break
        todo = [conf for conf in neighbours(best_conf, release) if conf not in results]
        if not todo:
            break
    ranked = tuple(sorted(results.values(), key=preference))
    return Tuning(
        device=lifetimes.device,
        recorded=recorded,
        limits=limits,
        baseline=baseline if baseline is None else trusted([baseline], baseline, recorded, limits)[0],
        best=preferred(ranked),
        lower_bound=bound,
        results=ranked,
        variable=variable_name(metadata),
        warnings=(*_warnings(lifetimes, baseline), *(f"not tried: {why}" for why in forbidden.values())),
        cached_before_bytes=(
            None if usage.reserved_bytes is None else int(usage.reserved_bytes[0] - usage.active_bytes[0])
        ),
    )


def confs_in_order(lifetimes: DeviceLifetimes) -> tuple[str, ...]:
    """Every setting worth a try, the one that a search recommends first.

    Of recordings of more than ``MAX_SEARCHED_EVENTS`` events nothing is searched: switches, then single numbers.

    Raises
    ------
    UsageError
        As :func:`tune` does.
    """
    if lifetimes.n_events <= MAX_SEARCHED_EVENTS:
        found = tune(lifetimes)
        confs = [result.conf or "" for result in (found.best, *found.results) if result is not None]
        return tuple(dict.fromkeys(confs))
    fraction = limits_for(lifetimes).memory_fraction
    single = grid(
        torch_release(lifetimes.trace.metadata),
        can_collect_garbage=fraction is not None and fraction < 1,
        forbidden=forbidden_options(lifetimes.trace),
    )
    ordered = sorted(single, key=lambda conf: (conf.count(":"), not conf.endswith(":True")))
    return tuple(conf for conf in ordered if conf.count(":") <= 1)


def _baseline(lifetimes: DeviceLifetimes, limits: Limits) -> ReplayResult | None:
    try:
        return replay(lifetimes, "caching", ReplayOptions(limits=limits))
    except UsageError:
        return None


def _warnings(lifetimes: DeviceLifetimes, baseline: ReplayResult | None) -> tuple[str, ...]:
    found = list(harmful_combinations(CachingAllocatorConfig.from_trace(lifetimes.trace, lifetimes.device)))
    found = [f"as recorded: {text}" for text in found]
    recorded = None if lifetimes.fatal_oom_event is not None else recorded_run(lifetimes).peak_reserved_bytes
    if baseline is None:
        found.append(
            "the recorded settings cannot be replayed, so that the prediction could not be checked against them"
        )
    elif baseline.oom is None and recorded is not None and baseline.peak_reserved_bytes != recorded:
        error = baseline.peak_reserved_bytes / recorded - 1 if recorded else 0.0
        found.append(
            f"replayed under the recorded settings the peak is {format_fraction(abs(error))} "
            f"{'above' if error > 0 else 'below'} the recorded one: take predictions with that error"
        )
    return tuple(found)
