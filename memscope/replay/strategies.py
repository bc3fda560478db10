"""The registry of replay strategies: each serves a recording's requests in its own way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from memscope.device.limits import GIVEN, NO_LIMITS, Limits, recorded_limits
from memscope.errors import FieldError, UnknownNameError, UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching, replay_lower_bound
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.models.model import Model
from memscope.replay.models.modelled import replay_modelled
from memscope.replay.models.registry import MODELS
from memscope.replay.planned.plan import replay_planned
from memscope.replay.result import Exactness, ReplayResult


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a replay may change.

    Attributes
    ----------
    conf
        Allocator settings as in ``PYTORCH_ALLOC_CONF``; None for the recorded ones.
    limits
        What the allocator can have of the device.
    measures_fragmentation
        Whether to measure the state at the peak of reserved memory; it costs a second replay.
    keeps_usage
        Whether the result says what was in use after each event, or only at the peak: 32 bytes an event.
    """

    conf: str | None = None
    limits: Limits = NO_LIMITS
    measures_fragmentation: bool = False
    keeps_usage: bool = True


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to serve requests.

    Attributes
    ----------
    summary
        One line for lists.
    exactness
        The best that its results can be.
    takes_conf
        Whether ``conf`` means anything to it.
    """

    name: str
    summary: str
    exactness: Exactness
    takes_conf: bool
    run: Callable[[DeviceLifetimes, ReplayOptions], ReplayResult]


def _caching(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
    metadata, limits = lifetimes.trace.metadata, options.limits
    _check_fraction(limits)
    config = None
    if options.conf is not None:
        config = CachingAllocatorConfig.parse(options.conf, tie_rule=recorded_tie_rule(metadata))
        if config.backend != "native":
            raise FieldError(
                "backend:{backend} is not the caching allocator: replay with {strategy} async-pool",
                {"strategy": "the strategy"},
                backend=config.backend,
            )
        if config.memory_fraction != 1.0 and limits.fraction_source != GIVEN:
            # Settings that name a fraction have it; one that the recorded program set stays in force under any others.
            limits = dataclasses.replace(limits, memory_fraction=None)
        elif config.memory_fraction == 1.0 and limits.memory_fraction is None and limits.total_bytes is not None:
            recorded = recorded_limits(lifetimes)
            limits = dataclasses.replace(
                limits, memory_fraction=recorded.memory_fraction, fraction_source=recorded.fraction_source
            )
    return replay_caching(
        lifetimes,
        config,
        limits,
        measures_fragmentation=options.measures_fragmentation,
        keeps_usage=options.keeps_usage,
    )


def _check_fraction(limits: Limits) -> None:
    if limits.memory_fraction is not None:
        if not 0 < limits.memory_fraction <= 1:
            raise UsageError(f"a memory fraction of {limits.memory_fraction:g} is not between 0 and 1")
        if limits.total_bytes is None:
            raise UsageError("a memory fraction needs the device's total bytes: give a capacity")


def _lower_bound(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
    return replay_lower_bound(lifetimes, options.limits)


def _planned(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
    return replay_planned(lifetimes, options.limits, measures_fragmentation=options.measures_fragmentation)


def _modelled(model: Model) -> Strategy:
    def run(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
        return replay_modelled(
            lifetimes,
            model,
            options.limits,
            measures_fragmentation=options.measures_fragmentation,
            keeps_usage=options.keeps_usage,
        )

    return Strategy(model.name, model.summary, "modelled", takes_conf=False, run=run)


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("caching", "PyTorch's caching allocator under any of its settings", "exact", True, _caching),
        *map(_modelled, MODELS),
        Strategy("planned", "a static plan made knowing every lifetime in advance", "modelled", False, _planned),
        Strategy("lower-bound", "requested bytes in use: what no allocator can beat", "bound", False, _lower_bound),
    )
}


def replay(lifetimes: DeviceLifetimes, strategy: str = "caching", options: ReplayOptions | None = None) -> ReplayResult:
    """Serve a device's recorded requests with a strategy of the registry.

    Raises
    ------
    UsageError
        If there is no such strategy, or it does not take these options.
    """
    chosen = strategy_named(strategy)
    given = ReplayOptions() if options is None else options
    if given.conf is not None and not chosen.takes_conf:
        raise UsageError(f"strategy {strategy} has no allocator settings")
    result = chosen.run(lifetimes, given)
    return result if given.keeps_usage else result.at_peak()


def strategy_named(name: str) -> Strategy:
    """A strategy of the registry.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if name not in STRATEGIES:
        raise UnknownNameError(f"there is no replay strategy {name!r}", name, STRATEGIES)
    return STRATEGIES[name]
