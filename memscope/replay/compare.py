"""The recording beside what other strategies would have done with its requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from memscope.device.limits import FULL_FRAC, NO_LIMITS, Limits, free_at_failure, limits_for
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.config import CachingAllocatorConfig, forbidden_options
from memscope.replay.result import ReplayResult
from memscope.replay.strategies import STRATEGIES, ReplayOptions, strategy_named
from memscope.replay.sweep import Refused, ReplayJob, SweepWorkers, attempt, run_sweep
from memscope.trace.schema import Action

NEGLIGIBLE_FRAC = 0.02
"""Savings below this share of the recorded peak are not worth a change of settings."""


DEFAULT_CONFS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:128",
    "max_split_size_mb:512",
    "roundup_power2_divisions:4",
)
"""Settings to compare where none are named; ``""`` is the default configuration."""

_UNDER_A_FRACTION = ("garbage_collection_threshold:0.8",)
"""Settings that do nothing unless a memory fraction is in force."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What the recording itself did, in the terms of a replay; None where it was not measured."""

    conf: str | None
    peak_reserved_bytes: int | None
    peak_active_bytes: int
    n_device_allocs: int
    n_device_frees: int
    n_ooms: int
    fatal_event: int | None = None
    """The request whose failure ended the recording; every replay serves it last."""
    has_requests: bool = True
    """Whether allocations were recorded; if not, what was live at the end is known, and not in what order it came."""
    free_at_failure: tuple[int, int] | None = None
    """Bytes not in use when it failed, and what PyTorch could have (:func:`memscope.device.limits.free_at_failure`)."""

    to_come_bytes: int = 0
    """What the program had still to make at least (:func:`memscope.device.to_come.state_to_come`)."""

    @property
    def is_full(self) -> bool:
        """Whether so little was free when the recording ended in a failure that no layout of it is worth a setting."""
        if self.free_at_failure is None:
            return False
        free_bytes, had_bytes = self.free_at_failure
        return free_bytes < max(FULL_FRAC * had_bytes, self.to_come_bytes)

    @property
    def efficiency_frac(self) -> float | None:
        """Peak active bytes over peak reserved bytes, each at its own moment."""
        return self.peak_active_bytes / self.peak_reserved_bytes if self.peak_reserved_bytes else None


VerdictKind = Literal[
    "not measured",
    "not recorded",
    "none replayed",
    "none fits",
    "full",
    "only another fits",
    "not reproduced",
    "serves more",
    "saves",
    "none helps",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a comparison; :func:`memscope.words.replay.verdict_words` says it.

    Attributes
    ----------
    kind
        ``not measured``: the recording does not tell what it reserved; ``not recorded``: it has no requests, only what
        was live at its end; ``none replayed``: no setting of PyTorch's allocator is among the replays; ``none fits``:
        all of them ran out of memory; ``full``: when the recording ended in a failure too little was free for a setting
        to be worth it; ``only another fits``: the recorded ones did, ``best`` did not; ``not
        reproduced``: on the recorded device, the recorded settings run out of memory in a replay where the recording
        did not, or serve what it did not: other replays prove nothing then; ``serves more``: requests that failed in
        the recording, which went on, are served with ``best`` and are not with the recorded ones.
    best
        The settings with the lowest peak, None where there are none.
    baseline_bytes, saved_bytes
        What savings are counted from, and what ``best`` is below it; None where nothing is to be compared.
    above_bound_bytes
        How far ``best`` is above what no allocator can beat; None where that was not asked for.
    recorded
        What the recording did, where that is the reason (``full``).
    n_served, n_failed
        How many more requests ``best`` serves, of those that failed in a replay under the recorded settings.
    """

    kind: VerdictKind
    best: ReplayResult | None = None
    baseline_bytes: int | None = None
    saved_bytes: int | None = None
    above_bound_bytes: int | None = None
    recorded: RecordedRun | None = None
    n_served: int = 0
    n_failed: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One device's recording and its replays, in the order asked for; ``refused`` are those that cannot be made."""

    device: int
    recorded: RecordedRun
    limits: Limits
    results: tuple[ReplayResult, ...]
    refused: tuple[Refused, ...] = ()

    def __post_init__(self) -> None:
        results = trusted(self.results, self.as_recorded, self.recorded, self.limits)
        object.__setattr__(self, "results", results)

    @property
    def ranked(self) -> tuple[ReplayResult, ...]:
        """The results by peak reserved bytes, lowest first; then those that ran out of memory, the latest first."""
        return tuple(
            sorted(self.results, key=lambda r: (0, r.peak_reserved_bytes) if r.oom is None else (1, -r.oom.event))
        )

    @property
    def best(self) -> ReplayResult | None:
        """The settings of PyTorch's own allocator to choose (:func:`preferred`); None if none ran to the end.

        Modelled strategies are left out: they cannot be switched on with a line.
        """
        return preferred([result for result in self.results if result.strategy == "caching"])

    def saved_bytes(self, result: ReplayResult) -> int | None:
        """Recorded peak of reserved bytes minus a replay's; None where either was not measured to the end.

        Where the recording ended in a failure its peak is without the request that failed, which replays serve: then
        it is counted from the replay under the recorded settings, if that one serves it.
        """
        recorded = self.recorded.peak_reserved_bytes
        if self.recorded.fatal_event is not None:
            recorded = None if self.replayed is None else self.replayed.peak_reserved_bytes
        if recorded is None or result.oom is not None:
            return None
        return recorded - result.peak_reserved_bytes

    @property
    def lower_bound(self) -> ReplayResult | None:
        """The replay that no allocator can beat, if it was asked for."""
        return next((result for result in self.results if result.exactness == "bound"), None)

    @property
    def as_recorded(self) -> ReplayResult | None:
        """The replay under the recorded settings, whatever came of it; None if it is not among the results."""
        recorded = _settings(self.recorded.conf)
        same = [r for r in self.results if r.strategy == "caching" and _settings(r.conf) == recorded]
        return same[0] if same and recorded is not None else None

    @property
    def replayed(self) -> ReplayResult | None:
        """The replay under the recorded settings, which others are measured against.

        None if it is not among the results, or did not run to its end.
        """
        found = self.as_recorded
        return None if found is None or found.oom is not None else found

    @property
    def verdict(self) -> Verdict:
        """What follows."""
        recorded, best = self.recorded.peak_reserved_bytes, self.best
        if recorded is None:
            return Verdict("not measured")
        if best is None:
            has_ours = any(result.strategy == "caching" for result in self.results)
            return Verdict("none fits" if has_ours else "none replayed")
        if not self.recorded.has_requests:
            return Verdict("not recorded")
        as_recorded = self.as_recorded
        if as_recorded is not None and not reproduces(as_recorded, self.recorded, self.limits):
            return Verdict("not reproduced", best)
        if self.recorded.is_full and self.limits.is_as_recorded:
            return Verdict("full", best, recorded=self.recorded)
        if as_recorded is None and self.recorded.fatal_event is not None and self.limits.is_as_recorded:
            return Verdict("only another fits", best)
        if as_recorded is not None and as_recorded.oom is not None:
            return Verdict("only another fits", best)
        if self.recorded.fatal_event is not None and as_recorded is not None:
            # What the recording reserved is without the request that it did not get.
            recorded = as_recorded.peak_reserved_bytes
        n_failed, n_refused = (0 if r is None else r.n_ooms or 0 for r in (as_recorded, best))
        if n_refused < n_failed and self.recorded.fatal_event is None:
            return Verdict("serves more", best, n_served=n_failed - n_refused, n_failed=n_failed)
        # A replay of the recorded settings can differ from the recording, in either direction, where the capacity or
        # the start was not recorded: only what is below both counts as saved.
        baseline = recorded if self.replayed is None else min(recorded, self.replayed.peak_reserved_bytes)
        saved = baseline - best.peak_reserved_bytes
        bound = self.lower_bound
        above = None if bound is None else max(best.peak_reserved_bytes - bound.peak_reserved_bytes, 0)
        kind: VerdictKind = "saves" if saved > NEGLIGIBLE_FRAC * baseline else "none helps"
        return Verdict(kind, best, baseline, saved, above)


_TIE_FRAC = 0.002
"""Peaks this close count as equal: the simpler setting wins."""
_UNLIMITED = 1 << 62
"""Farther than any event: a replay that comes to its end."""


def preference(result: ReplayResult) -> tuple[int, ...]:
    """Better is smaller: comes far, few refusals and retries, low peak, few options, few fitted numbers, cost.

    The one order of settings that every answer goes by.
    """
    cost_ns = 0 if result.driver_calls is None else result.driver_calls.modelled_cost_ns
    return (
        -_UNLIMITED if result.oom is None else -result.oom.event,
        result.n_ooms or 0,
        result.n_retries or 0,
        result.peak_reserved_bytes,
        *_complexity(result.conf or ""),
        cost_ns,
    )


def preferred(results: Sequence[ReplayResult]) -> ReplayResult | None:
    """The one to choose of replays under settings of PyTorch's allocator; None if none runs to its end.

    The simplest of those that serve as much as the best does, with as few retries and a peak within 0.2 % of its own.
    """
    ran = sorted((one for one in results if one.oom is None), key=preference)
    if not ran:
        return None
    first = ran[0]
    limit = first.peak_reserved_bytes * (1 + _TIE_FRAC)
    alike = [
        one
        for one in ran
        if one.n_ooms == first.n_ooms and one.n_retries == first.n_retries and one.peak_reserved_bytes <= limit
    ]
    return min(alike, key=lambda one: (*_complexity(one.conf or ""), *preference(one)))


def _complexity(conf: str) -> tuple[int, int]:
    """Number of options, and how many of them are numbers: those fit one run, and may not fit the next."""
    options = [option for option in conf.split(",") if option]
    return len(options), sum(not option.endswith((":True", ":False")) for option in options)


def trusted(
    results: Sequence[ReplayResult], as_recorded: ReplayResult | None, recorded: RecordedRun, limits: Limits
) -> tuple[ReplayResult, ...]:
    """The results, none of them called exact where the replay of the recorded settings did not do as the recording."""
    if as_recorded is None or _does_as(as_recorded, recorded, limits):
        return tuple(results)
    return tuple(replace(one, exactness="modelled") if one.exactness == "exact" else one for one in results)


def _does_as(as_recorded: ReplayResult, recorded: RecordedRun, limits: Limits) -> bool:
    if not limits.is_as_recorded or recorded.peak_reserved_bytes is None:
        return True
    if recorded.fatal_event is not None or as_recorded.oom is not None:
        # Up to the request that failed; the replay has that one too.
        return reproduces(as_recorded, recorded, limits)
    return as_recorded.peak_reserved_bytes == recorded.peak_reserved_bytes


def reproduces(as_recorded: ReplayResult, recorded: RecordedRun, limits: Limits) -> bool:
    """Whether a replay under the recorded settings ends as the recording did; on another device it need not."""
    if not limits.is_as_recorded:
        return True
    failed = None if as_recorded.oom is None else as_recorded.oom.event
    return failed == recorded.fatal_event


def _settings(conf: str | None) -> CachingAllocatorConfig | str | None:
    """What settings mean, however they are written; as they are written where the simulator does not cover them."""
    if conf is None:
        return None
    try:
        return CachingAllocatorConfig.parse(conf)
    except UsageError:
        return conf


def recorded_run(lifetimes: DeviceLifetimes, to_come_bytes: int = 0) -> RecordedRun:
    """What a device's recording did."""
    action = lifetimes.trace.action[lifetimes.first_event : lifetimes.end_event]
    usage = lifetimes.usage
    return RecordedRun(
        conf=lifetimes.trace.metadata.alloc_conf,
        peak_reserved_bytes=None if usage.reserved_bytes is None else int(usage.reserved_bytes.max()),
        peak_active_bytes=int(usage.active_bytes.max()),
        n_device_allocs=int(np.count_nonzero(np.isin(action, (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP)))),
        n_device_frees=int(np.count_nonzero(np.isin(action, (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)))),
        n_ooms=len(lifetimes.oom_events),
        fatal_event=lifetimes.fatal_oom_event,
        has_requests=bool(np.any(action == Action.ALLOC)),
        free_at_failure=free_at_failure(lifetimes),
        to_come_bytes=to_come_bytes,
    )


def compare(
    lifetimes: DeviceLifetimes,
    strategies: Sequence[str] = (),
    confs: Sequence[str] = (),
    *,
    limits: Limits = NO_LIMITS,
    keeps_usage: bool = True,
    to_come_bytes: int = 0,
    spread: SweepWorkers | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Replay a device's requests with some strategies, each that takes settings with each of the settings.

    Without strategies: all of the registry, or the caching allocator alone if settings are given. Without settings: the
    recorded ones and :data:`DEFAULT_CONFS`. Without a total in ``limits``: the recorded device's, where it is
    known; otherwise there is no limit. ``keeps_usage``: whether results say what was in use after each event, or only
    at their peaks. ``to_come_bytes``: what the program had still to make when it failed.

    Raises
    ------
    UsageError
        If a strategy or a setting is not known or not covered, or nothing was recorded.
    """
    limits = limits_for(lifetimes, limits)
    jobs = comparison_jobs(lifetimes, strategies, confs, limits=limits, keeps_usage=keeps_usage)
    results = run_sweep(jobs, spread, on_done=on_done)
    return Comparison(lifetimes.device, recorded_run(lifetimes, to_come_bytes), limits, tuple(results))


def compare_confs(lifetimes: DeviceLifetimes, to_come_bytes: int = 0) -> Comparison:
    """What a report shows unasked: the settings compared by default and the lower bound, without fragmentation.

    What the simulator does not cover is among those refused, not an error.
    """
    limits = limits_for(lifetimes)
    names = ("caching", "lower-bound")
    jobs = comparison_jobs(lifetimes, names, limits=limits, measures_fragmentation=False)
    found = [attempt(job) for job in jobs]
    return Comparison(
        lifetimes.device,
        recorded_run(lifetimes, to_come_bytes),
        limits,
        tuple(one for one in found if not isinstance(one, Refused)),
        tuple(one for one in found if isinstance(one, Refused)),
    )


def comparison_jobs(
    lifetimes: DeviceLifetimes,
    strategies: Sequence[str] = (),
    confs: Sequence[str] = (),
    *,
    limits: Limits,
    measures_fragmentation: bool = True,
    keeps_usage: bool = True,
) -> list[ReplayJob]:
    """The replays of :func:`compare`, in order.

    Raises
    ------
    UsageError
        If a strategy is not known, or settings are given and none of the strategies takes any.
    """
    names = tuple(strategies) or (("caching",) if confs else tuple(STRATEGIES))
    for name in names:
        strategy_named(name)
    if confs and not any(STRATEGIES[name].takes_conf for name in names):
        raise UsageError(f"strategy {names[0]} has no allocator settings")
    jobs = []
    for name in names:
        for conf in (confs or default_confs(lifetimes)) if STRATEGIES[name].takes_conf else (None,):
            options = ReplayOptions(conf, limits, measures_fragmentation, keeps_usage)
            jobs.append(ReplayJob(lifetimes, name, options))
    return jobs


def default_confs(lifetimes: DeviceLifetimes) -> tuple[str, ...]:
    """The recorded settings first, where the simulator covers them, then the others of :data:`DEFAULT_CONFS`."""
    metadata = lifetimes.trace.metadata
    has_fraction = metadata.memory_fraction.get(lifetimes.device, 1.0) < 1
    forbidden = forbidden_options(lifetimes.trace)
    confs = DEFAULT_CONFS + (_UNDER_A_FRACTION if has_fraction else ())
    confs = tuple(conf for conf in confs if conf.partition(":")[0] not in forbidden)
    recorded = metadata.alloc_conf
    return (recorded, *(conf for conf in confs if conf != recorded)) if recorded else confs
