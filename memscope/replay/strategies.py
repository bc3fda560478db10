"""The registry of replay strategies: each serves a recording's requests in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.engine import Exactness, ReplayResult, replay_caching, replay_lower_bound


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a replay may change. ``conf`` None means the recorded settings; ``total_bytes`` None means no limit."""

    conf: str | None = None
    total_bytes: int | None = None
    reserved_by_others_bytes: int = 0


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
    config = None if options.conf is None else CachingAllocatorConfig.parse(options.conf)
    return replay_caching(
        lifetimes,
        config,
        total_bytes=options.total_bytes,
        reserved_by_others_bytes=options.reserved_by_others_bytes,
    )


def _lower_bound(lifetimes: DeviceLifetimes, options: ReplayOptions) -> ReplayResult:
    total = options.total_bytes
    return replay_lower_bound(
        lifetimes, total_bytes=None if total is None else max(total - options.reserved_by_others_bytes, 0)
    )


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("caching", "PyTorch's caching allocator under any of its settings", "exact", True, _caching),
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
    chosen = STRATEGIES.get(strategy)
    if chosen is None:
        raise UsageError(f"there is no replay strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}")
    given = ReplayOptions() if options is None else options
    if given.conf is not None and not chosen.takes_conf:
        raise UsageError(f"strategy {strategy} has no allocator settings")
    return chosen.run(lifetimes, given)
