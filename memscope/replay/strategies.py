"""The registry of replay strategies: each serves a recording's requests in its own way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from memscope.errors import FieldError, UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching, replay_lower_bound
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.models.modelled import Model, replay_modelled
from memscope.replay.models.registry import MODELS
from memscope.replay.models.virtual_models import PAGED, STITCHING
from memscope.replay.planned.plan import replay_planned
from memscope.replay.result import Exactness, ReplayResult
from memscope.trace.schema import TieRule


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a replay may change.

    Attributes
    ----------
    conf
        Allocator settings as in ``PYTORCH_ALLOC_CONF``; None for the recorded ones.
    total_bytes
        Memory of the device, None for no limit.
    reserved_by_others_bytes
        The part of it that contexts, libraries and other processes hold.
    memory_fraction
        Share of the device that PyTorch may use; None for what the settings, or else the recording, say.
    measures_fragmentation
        Whether to measure the state at the peak of reserved memory; it costs a second replay.
    """

    conf: str | None = None
    total_bytes: int | None = None
    reserved_by_others_bytes: int = 0
    memory_fraction: float | None = None
    measures_fragmentation: bool = False


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
    recorded_rule = lifetimes.trace.metadata.tie_rule
    rule = TieRule.SEGMENT_AGE if recorded_rule is None else recorded_rule
    config = None if options.conf is None else CachingAllocatorConfig.parse(options.conf, tie_rule=rule)
    if config is not None and config.backend != "native":
        text = "backend:{backend} is not the caching allocator: replay with {strategy} async-pool"
        raise FieldError(text, {"strategy": "the strategy"}, backend=config.backend)
    fraction = options.memory_fraction
    if fraction is None and config is not None and config.memory_fraction == 1.0 and options.total_bytes is not None:
        # A fraction set by a call of the program stays in force whatever the settings are.
        fraction = lifetimes.trace.metadata.memory_fraction.get(lifetimes.device)
    if fraction is not None:
        config = CachingAllocatorConfig.from_trace(lifetimes.trace, lifetimes.device) if config is None else config
        config = dataclasses.replace(config, memory_fraction=fraction)
    return replay_caching(
        lifetimes,
        config,
        total_bytes=options.total_bytes,
        reserved_by_others_bytes=options.reserved_by_others_bytes,
        measures_fragmentation=options.measures_fragmentation,
    )


def _capacity(options: ReplayOptions) -> int | None:
    total = options.total_bytes
    return None if total is None else max(total - options.reserved_by_others_bytes, 0)


def _lower_bound(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
    return replay_lower_bound(lifetimes, total_bytes=_capacity(options))


def _planned(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
    return replay_planned(
        lifetimes, total_bytes=_capacity(options), measures_fragmentation=options.measures_fragmentation
    )


def _modelled(model: Model) -> Strategy:
    def run(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
        return replay_modelled(
            lifetimes,
            model,
            total_bytes=options.total_bytes,
            reserved_by_others_bytes=options.reserved_by_others_bytes,
            measures_fragmentation=options.measures_fragmentation,
        )

    return Strategy(model.name, model.summary, "modelled", takes_conf=False, run=run)


MODELLED: tuple[Model, ...] = (*MODELS, PAGED, STITCHING)
"""Every modelled allocator."""

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("caching", "PyTorch's caching allocator under any of its settings", "exact", True, _caching),
        *map(_modelled, MODELLED),
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
    if given.memory_fraction is not None:
        if not 0 < given.memory_fraction <= 1:
            raise UsageError(f"a memory fraction of {given.memory_fraction:g} is not between 0 and 1")
        if given.total_bytes is None:
            raise UsageError("a memory fraction needs the device's total bytes: give a capacity")
    return chosen.run(lifetimes, given)


def strategy_named(name: str) -> Strategy:
    """A strategy of the registry.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if name not in STRATEGIES:
        raise UsageError(f"there is no replay strategy {name!r}: choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
