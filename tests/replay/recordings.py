"""Traces made by driving the simulator, as a real recording would show them."""

import random

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import TieRule
from memscope.units import MiB

SIZES = (
    lambda r: int(r.uniform(1, 5000)),
    lambda r: int(r.uniform(1, 3 * MiB)),
    lambda r: int(r.uniform(MiB, 60 * MiB)),
    lambda r: r.choice([512, MiB, MiB + 1, 2 * MiB, 10 * MiB, 20 * MiB]),
)


def add_final_state(builder, allocator):
    """Add the segments and blocks that a simulated allocator has now."""
    state = allocator.state()
    for i in range(len(state.segments)):
        segment = builder.add_segment(
            address=int(state.segments.address[i]),
            size_bytes=int(state.segments.size_bytes[i]),
            is_large=bool(state.segments.is_large[i]),
            is_expandable=bool(state.segments.is_expandable[i]),
            stream=allocator.stream_handles[state.segments.stream_id[i]],
            pool=allocator.pools[state.segments.pool_id[i]],
        )
        for k in (state.blocks.segment_id == i).nonzero()[0]:
            builder.add_block(
                segment,
                address=int(state.blocks.address[k]),
                size_bytes=int(state.blocks.size_bytes[k]),
                requested_bytes=int(state.blocks.requested_bytes[k]),
                state=int(state.blocks.state[k]),
            )


class Recorder:
    """A program under record: requests go in, a trace comes out.

    ``start_recording`` may come late; what happened before is then only in the final state.
    """

    def __init__(self, conf="", *, total=80 << 30, tie_rule=TieRule.SEGMENT_AGE, has_pool_ids=True, knows_total=False):
        self.config = CachingAllocatorConfig.parse(conf)
        self.conf, self.total, self.tie_rule = conf, total, tie_rule
        self.has_pool_ids, self.knows_total = has_pool_ids, knows_total
        self.allocator = CachingAllocator(self.config, limits=Limits(total), tie_rule=tie_rule)
        self.events = []

    def start_recording(self):
        self.allocator.drain_events()

    def workload(self, seed, n_steps, *, streams=(0,), pools=((0, 0),), p_wait=0.0, p_empty=0.002, p_alloc=0.52):
        rng = random.Random(seed)
        live, waiting = [], []
        for _ in range(n_steps):
            x = rng.random()
            if x < p_alloc:
                for address in [a for a in waiting if rng.random() < 0.3]:
                    waiting.remove(address)
                    self.allocator.complete_free(address)
                try:
                    live.append(self.allocator.malloc(rng.choice(SIZES)(rng), rng.choice(streams), rng.choice(pools)))
                except SimulatedOutOfMemoryError:
                    waiting.clear()
            elif x < 1 - p_empty:
                if live:
                    address = live.pop(rng.randrange(len(live)))
                    waits = rng.random() < p_wait
                    self.allocator.free(address, waits=waits)
                    if waits:
                        waiting.append(address)
            else:
                self.allocator.empty_cache()
                waiting.clear()
        return live

    def trace(self, change=None):
        """The trace so far; ``change`` may alter the list of events (of mutable lists) before it is built."""
        builder = TraceBuilder()
        events = [list(event) for event in self.allocator.drain_events()]
        if change is not None:
            change(events)
        for action, address, size_bytes, stream, pool in events:
            builder.add_event(
                action,
                address=address,
                size_bytes=size_bytes,
                stream=stream,
                pool=pool if self.has_pool_ids else (0, 0),
            )
        add_final_state(builder, self.allocator)
        return builder.build(self.metadata())

    def metadata(self):
        config = self.config
        return TraceMetadata(
            source="synthetic",
            tie_rule=self.tie_rule,
            alloc_conf=self.conf,
            allocator_settings=config.to_settings(),
            device_total_bytes={0: self.total} if self.knows_total else {},
            has_pool_ids=self.has_pool_ids,
        )
