"""Traces made by driving the naive allocator, with memory anywhere in the address space."""

import random

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, TieRule
from memscope.units import GiB, MiB
from tests.replay.caching.naive_caching import NaiveCachingAllocator, OutOfMemoryError

_STATES = {
    "allocated": BlockState.ACTIVE_ALLOCATED,
    "pending": BlockState.ACTIVE_PENDING_FREE,
    "free": BlockState.INACTIVE,
}
_SIZES = (
    lambda r: int(r.uniform(1, 5000)),
    lambda r: int(r.uniform(1, 3 * MiB)),
    lambda r: int(r.uniform(MiB, 60 * MiB)),
    lambda r: r.choice([MiB, MiB + 1, 10 * MiB, 20 * MiB, 40 * MiB]),
)


class WithWholePools(NaiveCachingAllocator):
    """As PyTorch's, with pools that hand out whole blocks (``no_split=True``)."""

    def __init__(self, *, whole_pools=(), **settings):
        super().__init__(**settings)
        self.whole_pools = whole_pools

    def malloc(self, size, stream=0, pool=0):
        if pool not in self.whole_pools:
            return super().malloc(size, stream, pool)
        rounded = self.rounded(size)
        block = self.find(pool, stream, rounded) or self.miss(pool, stream, rounded, collects=False)
        block.state, block.requested = "allocated", size
        self.log("alloc", block.address, size, block.owner)
        return block.address


class NaiveRecorder:
    """A program under record; what happened before :meth:`start_recording` is only in the final state.

    ``seed`` places segments and reservations at random, each 64 GiB apart from the others; without one they ascend.
    Without ``has_pool_ids`` the events do not say their pools, only the final segments do: as before torch 2.12.
    """

    def __init__(self, conf="", *, seed=None, tie_rule=TieRule.SEGMENT_AGE, has_pool_ids=True, **settings):
        self.conf, self.tie_rule, self.has_pool_ids = conf, tie_rule, has_pool_ids
        self.naive = WithWholePools(tie=tie_rule.name.lower(), **settings)
        self.places = None
        if seed is not None:
            self.places = list(range(1, 3000))
            random.Random(seed).shuffle(self.places)

    def start_recording(self):
        self.naive.events.clear()

    def malloc(self, size, stream=0, pool=0):
        """The address, None if there is no memory."""
        if self.places is not None:
            self.naive.next_address = 0x7A0000000000 + self.places.pop() * 64 * GiB
        try:
            return self.naive.malloc(size, stream, pool)
        except OutOfMemoryError:
            return None

    def workload(self, seed, n_steps, *, streams=(0,), pools=(0,), p_wait=0.0, p_empty=0.005):
        rng = random.Random(seed)
        live, waiting = [], []
        for _ in range(n_steps):
            x = rng.random()
            if x < p_empty:
                self.naive.empty_cache()
            elif x < 0.52 or not live:
                waiting = [block for block in waiting if block in self.naive.waiting]
                for block in [block for block in waiting if rng.random() < 0.3]:
                    waiting.remove(block)
                    self.naive.waiting.remove(block)
                    self.naive.complete(block)
                address = self.malloc(rng.choice(_SIZES)(rng), rng.choice(streams), rng.choice(pools))
                if address is not None:
                    live.append(address)
            else:
                address = live.pop(rng.randrange(len(live)))
                block = self.naive.at(address, "allocated")
                waits = rng.random() < p_wait
                self.naive.free(address, waits=waits)
                if waits:
                    waiting.append(block)

    def trace(self):
        builder = TraceBuilder()
        for action, address, size_bytes, stream, pool in self.naive.events:
            builder.add_event(
                Action[action.upper()],
                address=address,
                size_bytes=size_bytes,
                stream=stream,
                pool=(0, pool) if self.has_pool_ids else (0, 0),
            )
        for owner, blocks in sorted(self._runs(), key=lambda run: run[1][0].address):
            segment = builder.add_segment(
                address=blocks[0].address,
                size_bytes=sum(block.size for block in blocks),
                is_large=owner.is_large,
                is_expandable=owner.is_expandable,
                stream=owner.stream,
                pool=(0, owner.pool),
            )
            for block in blocks:
                builder.add_block(
                    segment,
                    address=block.address,
                    size_bytes=block.size,
                    requested_bytes=0 if block.state == "free" else block.requested,
                    state=_STATES[block.state],
                )
        return builder.build(self.metadata())

    def _runs(self):
        """Each contiguous mapped run of each segment."""
        for segment in self.naive.segments:
            run = []
            for block in [*segment.blocks, None]:
                if block is not None and block.state != "unmapped":
                    run.append(block)
                elif run:
                    yield segment, run
                    run = []

    def metadata(self):
        naive = self.naive
        return TraceMetadata(
            source="synthetic",
            tie_rule=self.tie_rule,
            alloc_conf=self.conf,
            allocator_settings={
                "max_split_size": naive.max_split or -1,
                "garbage_collection_threshold": naive.gc,
                "expandable_segments": naive.expandable,
                "roundup_power2_divisions": {str(1 << i): n for i, n in enumerate(naive.divisions)},
            },
            has_pool_ids=self.has_pool_ids,
        )
