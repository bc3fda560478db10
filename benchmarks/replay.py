"""Replay speed: events per second of the compiled allocator, against the slow Python twin of the tests, in one run.

Run from the repository root: ``python -m benchmarks.replay [--events 1000000]``.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import TypeVar

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.engine import replay_caching
from memscope.replay.verify import verify
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, TieRule
from memscope.trace.trace import Trace
from tests.replay.naive_caching import NaiveCachingAllocator

MiB = 1 << 20
T = TypeVar("T")


def requests(n_events: int, n_live: int = 1000) -> list[tuple[str, int]]:
    """A program of about that many events: allocations by id, then frees of random live ones; an event pair a free."""
    rng = random.Random(1)
    steps: list[tuple[str, int]] = []
    live: list[int] = []
    n_made = n_recorded = 0
    while n_recorded < n_events:
        if len(live) < n_live and (len(live) < n_live // 2 or rng.random() < 0.5):
            live.append(n_made)
            n_made += 1
            steps.append(("malloc", int(rng.choice((rng.uniform(1, 5000), rng.uniform(1, 3 * MiB), 12 * MiB)))))
            n_recorded += 1
        else:
            steps.append(("free", live.pop(rng.randrange(len(live)))))
            n_recorded += 2
    return steps


def run_twin(steps: list[tuple[str, int]]) -> tuple[NaiveCachingAllocator, float]:
    """The twin after the steps, and the seconds that they took."""
    twin = NaiveCachingAllocator()
    addresses: list[int] = []
    start = time.perf_counter()
    for what, value in steps:
        if what == "malloc":
            addresses.append(twin.malloc(value))
        else:
            twin.free(addresses[value])
    return twin, time.perf_counter() - start


def trace_of(steps: list[tuple[str, int]]) -> Trace:
    """The steps as a trace without addresses of its own: each allocation at a place that is used once."""
    builder = TraceBuilder()
    sizes: list[int] = []
    for what, value in steps:
        if what == "malloc":
            builder.add_event(Action.ALLOC, address=(len(sizes) + 1) << 32, size_bytes=value)
            sizes.append(value)
        else:
            for action in (Action.FREE_REQUESTED, Action.FREE_COMPLETED):
                builder.add_event(action, address=(value + 1) << 32, size_bytes=sizes[value])
    metadata = TraceMetadata(source="synthetic", block_layout_recorded=False, has_segment_events=False)
    return builder.build(metadata)


def recorded_trace(twin: NaiveCachingAllocator) -> Trace:
    """What the twin did, as a recording."""
    builder = TraceBuilder()
    for action, address, size, stream, _ in twin.events:
        builder.add_event(Action[action.upper()], address=address, size_bytes=size, stream=stream)
    for segment in sorted(twin.segments, key=lambda segment: segment.address):
        segment_id = builder.add_segment(address=segment.address, size_bytes=segment.size, is_large=segment.is_large)
        for block in segment.blocks:
            builder.add_block(
                segment_id,
                address=block.address,
                size_bytes=block.size,
                requested_bytes=block.requested,
                state=2 if block.state == "free" else 0,
            )
    metadata = TraceMetadata(source="synthetic", tie_rule=TieRule.SEGMENT_AGE, alloc_conf="", has_pool_ids=True)
    return builder.build(metadata)


def best_of(n: int, work: Callable[[], T]) -> tuple[float, T]:
    """Least seconds of n calls, and the last result."""
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--twin-events", type=int, default=20_000)
    options = parser.parse_args()

    few = requests(options.twin_events)
    twin, twin_s = run_twin(few)
    recorded = recorded_trace(twin)
    same = replay_caching(DeviceLifetimes(recorded, 0))
    assert same.usage.reserved_bytes is not None
    assert int(same.usage.reserved_bytes[-1]) == twin.reserved, "the twin and the kernel disagree"
    verify_s, result = best_of(3, lambda: verify(recorded))
    assert result.exact
    twin_rate = options.twin_events / twin_s

    lifetimes = DeviceLifetimes(trace_of(requests(options.events)), 0)
    n_events = lifetimes.n_events
    replay_s, _ = best_of(3, lambda: replay_caching(lifetimes))
    rate = n_events / replay_s
    print(f"slow Python twin   {twin_rate:12,.0f} events/s   {options.twin_events:,} events")
    print(f"compiled replay    {rate:12,.0f} events/s   {n_events:,} events in {replay_s:.2f} s")
    print(f"verify             {len(recorded) / verify_s:12,.0f} events/s   {len(recorded):,} events")
    print(f"ratio replay/twin  {rate / twin_rate:12,.0f}")


if __name__ == "__main__":
    main()
