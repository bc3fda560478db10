"""Random programs, and one way to run them through a model and its twin side by side."""

import random

from hypothesis import strategies as st

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.trace.schema import BlockState
from tests.replay.models.modelled_allocator import ModelledAllocator

MiB = 1 << 20

SIZES = st.one_of(
    st.integers(1, 5000),
    st.integers(1, 3 * MiB),
    st.sampled_from([256, 512, MiB, MiB + 1, 2 * MiB, 5 * MiB, 8 * MiB, 20 * MiB, 33 * MiB, 40 * MiB]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 0, 7])),
        st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 7])),
        st.tuples(st.just("free"), st.integers(0, 1000), st.booleans()),
        st.tuples(st.just("complete"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    max_size=40,
)
CAPACITIES = st.sampled_from([None, 16 * MiB, 48 * MiB, 96 * MiB])


def long_steps(seed, n_steps=400):
    """A program with many live blocks: more mallocs than frees, frees in any order, some waits, rare emptying."""
    rng = random.Random(seed)
    steps = []
    for _ in range(n_steps):
        what = rng.choices(("malloc", "free", "complete", "empty"), (55, 40, 8, 1))[0]
        size = rng.choice((rng.randrange(1, 5000), rng.randrange(1, 600_000), rng.randrange(1, 3 * MiB), 5 * MiB))
        value = size if what == "malloc" else rng.randrange(1000)
        steps.append((what, value, rng.choice((0, 0, 7)) if what == "malloc" else rng.random() < 0.2))
    return steps


def run_both(model, twin, steps, **parameters):
    """Every address, what is reserved and every retry must agree after every step; the state must be sound.

    Returns the allocator.
    """
    allocator = ModelledAllocator(model, limits=Limits(twin.capacity), **parameters)
    for what, value, more in steps:
        if what == "malloc":
            expected = twin.malloc(value, more)
            try:
                given = allocator.malloc(value, stream=more)
            except SimulatedOutOfMemoryError:
                given = None
            assert given == expected
        elif what == "free" and twin.at:
            address = sorted(twin.at)[value % len(twin.at)]
            twin.free(address, more)
            allocator.free(address, waits=more)
        elif what == "complete" and twin.pending:
            address = twin.pending[value % len(twin.pending)].address
            twin.complete(address)
            assert allocator.complete_free(address)
        elif what == "empty":
            twin.empty()
            allocator.empty_cache()
        allocator.check()
        assert allocator.stats.reserved_bytes == twin.reserved
        assert allocator.stats.n_retries == twin.n_retries
    return allocator


class Program:
    """Steps run by a model alone, its state checked after each."""

    def __init__(self, model, capacity, **parameters):
        self.allocator = ModelledAllocator(model, limits=Limits(capacity), **parameters)
        self.capacity = capacity
        self.live, self.pending = [], []

    def do(self, step):
        what, value, more = step
        allocator = self.allocator
        n_retries = allocator.stats.n_retries
        if what == "malloc":
            try:
                self.live.append(allocator.malloc(value, stream=more))
            except SimulatedOutOfMemoryError:
                assert self.capacity is not None
        elif what == "free" and self.live:
            address = self.live.pop(value % len(self.live))
            allocator.free(address, waits=more)
            if more:
                self.pending.append(address)
        elif what == "complete" and self.pending:
            assert allocator.complete_free(self.pending.pop(value % len(self.pending)))
        elif what == "empty":
            allocator.empty_cache()
        if what == "empty" or allocator.stats.n_retries > n_retries:
            self.pending = []
        assert len(set(self.live)) == len(self.live)
        allocator.check()
        assert self.capacity is None or allocator.stats.reserved_bytes <= self.capacity

    def finish(self):
        """Free everything: nothing may stay reserved."""
        for address in self.live:
            self.allocator.free(address)
            self.allocator.check()
        self.allocator.empty_cache()
        self.allocator.check()
        assert self.allocator.stats.reserved_bytes == 0


def layout(allocator):
    """Segments by address, each a list of its blocks' sizes by address: a free one is negative."""
    state = allocator.state()
    sizes = [[] for _ in state.segments.size_bytes]
    for segment, size, code in zip(state.blocks.segment_id, state.blocks.size_bytes, state.blocks.state, strict=True):
        sizes[segment].append(-int(size) if code == BlockState.INACTIVE else int(size))
    return sizes
