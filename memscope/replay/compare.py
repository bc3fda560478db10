"""The recording beside what other strategies would have done with its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.engine import ReplayResult
from memscope.replay.strategies import STRATEGIES, ReplayOptions, replay
from memscope.trace.schema import Action
from memscope.units import format_bytes, format_fraction

NEGLIGIBLE_FRAC = 0.02
"""Savings below this share of the recorded peak are not worth a change of settings."""


DEFAULT_CONFS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:128",
    "max_split_size_mb:512",
    "roundup_power2_divisions:4",
    "garbage_collection_threshold:0.8",
)
"""Settings to compare where none are named; ``""`` is the default configuration."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What the recording itself did, in the terms of a replay; None where it was not measured."""

    conf: str | None
    peak_reserved_bytes: int | None
    peak_active_bytes: int
    n_device_allocs: int
    n_device_frees: int
    n_ooms: int

    @property
    def efficiency_frac(self) -> float | None:
        """Peak active bytes over peak reserved bytes, each at its own moment."""
        return self.peak_active_bytes / self.peak_reserved_bytes if self.peak_reserved_bytes else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One device's recording and its replays, in the order asked for."""

    device: int
    recorded: RecordedRun
    results: tuple[ReplayResult, ...]

    @property
    def best(self) -> ReplayResult | None:
        """The replay of a real allocator with the lowest peak that ran to its end; None if there is none."""
        ran = [result for result in self.results if result.exactness != "bound" and result.oom is None]
        return min(ran, key=lambda result: result.peak_reserved_bytes, default=None)

    @property
    def lower_bound(self) -> ReplayResult | None:
        """The replay that no allocator can beat, if it was asked for."""
        return next((result for result in self.results if result.exactness == "bound"), None)

    @property
    def replayed(self) -> ReplayResult | None:
        """The replay under the recorded settings, which others are measured against; None if it is not among them."""
        same = [r for r in self.results if r.strategy == "caching" and r.conf == self.recorded.conf and r.oom is None]
        return same[0] if same else None

    def verdict(self) -> str:
        """What follows, in one sentence."""
        recorded, best = self.recorded.peak_reserved_bytes, self.best
        if recorded is None:
            return "the recorded peak of reserved memory was not measured, so nothing can be compared with it"
        if best is None:
            return "every replay ran out of memory"
        # A replay of the recorded settings can differ from the recording, in either direction, where the capacity or
        # the start was not recorded: only what is below both counts as saved.
        baseline = recorded if self.replayed is None else min(recorded, self.replayed.peak_reserved_bytes)
        saved = baseline - best.peak_reserved_bytes
        if saved > NEGLIGIBLE_FRAC * baseline:
            how = best.conf or "the default settings"
            return f"{how} would reserve {format_bytes(saved)} less ({format_fraction(saved / baseline)})"
        bound = self.lower_bound
        if bound is not None:
            rest = best.peak_reserved_bytes - bound.peak_reserved_bytes
            return (
                f"none of these settings helps much: reserved memory is within {format_bytes(max(rest, 0))} "
                "of what the requests themselves need"
            )
        return "none of these settings helps"


def recorded_run(lifetimes: DeviceLifetimes) -> RecordedRun:
    """What a device's recording did."""
    action = lifetimes.trace.action[lifetimes.first_event : lifetimes.end_event]
    usage = lifetimes.usage
    return RecordedRun(
        conf=lifetimes.trace.metadata.alloc_conf,
        peak_reserved_bytes=None if usage.reserved_bytes is None else int(usage.reserved_bytes.max()),
        peak_active_bytes=int(usage.active_bytes.max()),
        n_device_allocs=int(np.count_nonzero(np.isin(action, (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP)))),
        n_device_frees=int(np.count_nonzero(np.isin(action, (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)))),
        n_ooms=int(np.count_nonzero(action == Action.OOM)),
    )


def compare(
    lifetimes: DeviceLifetimes,
    strategies: Sequence[str] = (),
    confs: Sequence[str] = (),
    *,
    total_bytes: int | None = None,
) -> Comparison:
    """Replay a device's requests with some strategies, each that takes settings with each of the settings.

    Without strategies: all of the registry. Without settings: the recorded ones and :data:`DEFAULT_CONFS`. Without
    ``total_bytes``: the recorded device's, where it is known; otherwise there is no limit.

    Raises
    ------
    UsageError
        If a strategy or a setting is not known or not covered, or nothing was recorded.
    """
    capacity = recorded_capacity(lifetimes) if total_bytes is None else (total_bytes, 0)
    results = [
        replay(lifetimes, name, ReplayOptions(conf=conf, total_bytes=capacity[0], reserved_by_others_bytes=capacity[1]))
        for name in strategies or tuple(STRATEGIES)
        for conf in _confs_for(name, confs or default_confs(lifetimes))
    ]
    return Comparison(lifetimes.device, recorded_run(lifetimes), tuple(results))


def default_confs(lifetimes: DeviceLifetimes) -> tuple[str, ...]:
    """The recorded settings first, where the simulator covers them, then the others of :data:`DEFAULT_CONFS`."""
    recorded = lifetimes.trace.metadata.alloc_conf
    if not recorded:
        return DEFAULT_CONFS
    return (recorded, *(conf for conf in DEFAULT_CONFS if conf != recorded))


def recorded_capacity(lifetimes: DeviceLifetimes) -> tuple[int | None, int]:
    """The recorded device's total bytes (None where not known), and those known not to be the allocator's."""
    metadata = lifetimes.trace.metadata
    total_bytes = metadata.device_total_bytes.get(lifetimes.device)
    others_bytes = metadata.extra.get("context_bytes_modelled")
    return total_bytes, others_bytes if total_bytes is not None and isinstance(others_bytes, int) else 0


def _confs_for(name: str, confs: Sequence[str]) -> Sequence[str | None]:
    return confs if name in STRATEGIES and STRATEGIES[name].takes_conf else (None,)
