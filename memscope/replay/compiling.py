"""Compiling every kernel ahead of its first use, as when an image is built."""

from __future__ import annotations

from collections.abc import Callable

from memscope.device.limits import Limits
from memscope.fragmentation.series import fragmentation_series
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.allocator import CachingAllocator
from memscope.replay.config import DEFAULT_TIE_RULE
from memscope.replay.strategies import STRATEGIES, ReplayOptions, replay
from memscope.replay.verify.verify import verify
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.trace import Trace
from memscope.units import MiB

_SIZES = (700, 3 * MiB, 40_000, 30 * MiB, 1 * MiB, 12 * MiB)


def compile_kernels(on_done: Callable[[int, int], None] | None = None) -> None:
    """Run lifetimes, fragmentation, verification and every strategy on a few requests: all their kernels are compiled.

    Parameters
    ----------
    on_done
        Called after each part with the number done and the number of all.
    """
    trace = _some_requests()
    lifetimes = DeviceLifetimes(trace, 0)
    fragmentation_series(lifetimes)
    n_parts = len(STRATEGIES) + 1
    for n_done, name in enumerate(STRATEGIES, start=1):
        replay(lifetimes, name, ReplayOptions(limits=Limits(1 << 30), measures_fragmentation=True))
        if on_done is not None:
            on_done(n_done, n_parts)
    verify(trace)
    if on_done is not None:
        on_done(n_parts, n_parts)


def _some_requests() -> Trace:
    """A recording of a few requests, made by the simulator."""
    allocator = CachingAllocator(limits=Limits(1 << 30))
    live: list[int] = []
    for i in range(24):
        live.append(allocator.malloc(_SIZES[i % len(_SIZES)], stream=7 * (i % 5 == 0)))
        if i % 3 == 2:
            allocator.free(live.pop(i % len(live)))
    builder = TraceBuilder()
    for action, address, size_bytes, stream, pool in allocator.drain_events():
        builder.add_event(action, address=address, size_bytes=size_bytes, stream=stream, pool=pool)
    metadata = TraceMetadata(source="synthetic", alloc_conf="", tie_rule=DEFAULT_TIE_RULE, block_layout_recorded=False)
    return builder.build(metadata)
