"""The online allocator: worked cases, its slow twin, and its invariants after every step."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import Action, BlockState, TieRule
from memscope.units import GiB, MiB
from tests.properties import examples
from tests.replay.caching.naive_caching import NaiveCachingAllocator, OutOfMemoryError

BASE = 0x7F0000000000


def make(conf="", total=80 * GiB, tie_rule=TieRule.SEGMENT_AGE):
    return CachingAllocator(CachingAllocatorConfig.parse(conf), limits=Limits(total), tie_rule=tie_rule)


def actions(allocator):
    return [(event.action, event.address - BASE, event.size_bytes) for event in allocator.drain_events()]


def test_first_large_request_takes_a_20_mib_segment_and_splits_it():
    allocator = make()
    assert allocator.malloc(3 * MiB) == BASE
    assert actions(allocator) == [(Action.SEGMENT_ALLOC, 0, 20 * MiB), (Action.ALLOC, 0, 3 * MiB)]
    state = allocator.state()
    assert state.blocks.size_bytes.tolist() == [3 * MiB, 17 * MiB]
    assert state.blocks.state.tolist() == [BlockState.ACTIVE_ALLOCATED, BlockState.INACTIVE]


def test_rest_of_exactly_1_mib_is_not_split_off():
    allocator = make()
    allocator.free(allocator.malloc(3 * MiB))
    assert allocator.malloc(19 * MiB) == BASE
    state = allocator.state()
    assert state.blocks.size_bytes.tolist() == [20 * MiB]
    assert state.blocks.requested_bytes.tolist() == [19 * MiB]


def test_remainder_of_17_mib_serves_16_mib_whole():
    allocator = make()
    allocator.malloc(3 * MiB)
    assert allocator.malloc(16 * MiB) == BASE + 3 * MiB
    assert allocator.stats.allocated_bytes == 20 * MiB
    assert allocator.stats.requested_bytes == 19 * MiB


@pytest.mark.parametrize(
    ("requested", "segment", "is_large"),
    [(MiB, 2 * MiB, False), (MiB + 1, 20 * MiB, True), (10 * MiB - 511, 10 * MiB, True), (10485248, 20 * MiB, True)],
)
def test_boundaries_of_size_classes(requested, segment, is_large):
    allocator = make()
    allocator.malloc(requested)
    table = allocator.state().segments
    assert table.size_bytes.tolist() == [segment]
    assert table.is_large.tolist() == [is_large]


def test_large_segment_size_covers_requests_below_10_mib_only():
    allocator = make("large_segment_size_mb:64")
    allocator.malloc(3 * MiB)
    assert allocator.stats.reserved_bytes == 64 * MiB


def test_expandable_segments_follow_the_worked_sequence():
    # 80 GiB device: 1.125 x 80 GiB is a whole number of 20 MiB handles, so the small reservation follows at 90 GiB.
    allocator = make("expandable_segments:True")
    first = allocator.malloc(3 * MiB)
    assert actions(allocator)[0] == (Action.SEGMENT_MAP, 0, 20 * MiB)
    small = allocator.malloc(1000)
    assert actions(allocator)[0][2] == 2 * MiB
    second = allocator.malloc(45 * MiB)
    assert second == first + 3 * MiB
    assert actions(allocator)[0] == (Action.SEGMENT_MAP, 20 * MiB, 40 * MiB)
    third = allocator.malloc(2 * MiB - 512)
    assert third == first + 48 * MiB
    assert [event[0] for event in actions(allocator)] == [Action.ALLOC]
    allocator.free(first)
    allocator.free(second)
    allocator.drain_events()
    allocator.empty_cache()
    assert actions(allocator) == [(Action.SEGMENT_UNMAP, 0, 40 * MiB)]
    assert allocator.state().segments.address.tolist()[0] == first + 40 * MiB
    assert allocator.malloc(70 * MiB) == first + 50 * MiB - 512
    assert actions(allocator)[0] == (Action.SEGMENT_MAP, 60 * MiB, 60 * MiB)
    assert small == BASE + 96636764160
    allocator.check()


def test_free_of_a_split_block_merges_both_neighbours():
    allocator = make()
    addresses = [allocator.malloc(4 * MiB) for _ in range(5)]
    for i in (0, 2, 1):
        allocator.free(addresses[i])
    assert allocator.state().blocks.size_bytes.tolist() == [12 * MiB, 4 * MiB, 4 * MiB]
    allocator.check()


def test_reuse_never_crosses_streams_or_pools():
    allocator = make()
    allocator.free(allocator.malloc(1000))
    assert allocator.malloc(1000, stream=7) != BASE
    assert allocator.malloc(1000, pool=(0, 1)) != BASE
    assert allocator.malloc(1000) == BASE
    assert allocator.stats.n_device_allocs == 3


def test_retry_frees_large_segments_before_small_ones_and_counts_once():
    allocator = make(total=40 * MiB)
    allocator.free(allocator.malloc(1000))
    allocator.free(allocator.malloc(12 * MiB))
    allocator.drain_events()
    allocator.malloc(30 * MiB)
    assert [event[0] for event in actions(allocator)] == [
        Action.SEGMENT_FREE,
        Action.SEGMENT_FREE,
        Action.SEGMENT_ALLOC,
        Action.ALLOC,
    ]
    assert allocator.stats.n_retries == 1
    assert allocator.stats.n_device_frees == 2


def test_out_of_memory_says_what_was_asked_and_what_was_free():
    allocator = make(total=40 * MiB)
    allocator.malloc(12 * MiB)
    allocator.drain_events()
    with pytest.raises(SimulatedOutOfMemoryError) as caught:
        allocator.malloc(30 * MiB + 1)
    assert (caught.value.requested_bytes, caught.value.rounded_bytes) == (30 * MiB + 1, 30 * MiB + 512)
    assert caught.value.free_bytes == 28 * MiB
    assert [event[0] for event in actions(allocator)] == [Action.OOM]
    allocator.malloc(20 * MiB)
    allocator.check()


def test_waiting_free_is_reused_only_after_completion():
    allocator = make()
    address = allocator.malloc(1000)
    allocator.free(address, waits=True)
    assert allocator.stats.active_bytes == 1024
    assert allocator.stats.allocated_bytes == 0
    other = allocator.malloc(1000)
    assert other != address
    assert allocator.complete_free(address)
    assert allocator.malloc(1000) == address


def test_reclaim_waits_for_pending_frees():
    allocator = make(total=40 * MiB)
    address = allocator.malloc(30 * MiB)
    allocator.free(address, waits=True)
    allocator.malloc(34 * MiB)
    assert not allocator.complete_free(address)
    allocator.check()


def test_private_pool_gives_memory_back_only_after_its_release():
    allocator = make()
    allocator.free(allocator.malloc(1000, pool=(0, 1)))
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 2 * MiB
    allocator.release_pool((0, 1))
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 0


def test_throw_on_malloc_oom_rejects_without_a_reclaim():
    # 70 MiB cached would be freed for 60 MiB more, but 70 + 60 is over the device's 100 MiB at once.
    allocator = make("throw_on_cudamalloc_oom:True", total=100 * MiB)
    allocator.free(allocator.malloc(70 * MiB))
    allocator.drain_events()
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(80 * MiB)
    assert actions(allocator) == []
    assert allocator.stats.reserved_bytes == 70 * MiB


def test_zero_bytes_leave_no_trace():
    allocator = make()
    assert allocator.malloc(0) == 0
    allocator.free(0)
    assert allocator.drain_events() == []


def test_misuse_is_refused():
    allocator = make()
    with pytest.raises(UsageError, match="nothing is allocated"):
        allocator.free(BASE)
    with pytest.raises(UsageError, match="-1 bytes"):
        allocator.malloc(-1)
    address = allocator.malloc(10)
    allocator.free(address)
    with pytest.raises(UsageError):
        allocator.free(address)


@pytest.mark.parametrize("conf", ["backend:cudaMallocAsync", "expandable_segments_reserve_by_class:[a:1]"])
def test_settings_that_are_not_covered_are_refused(conf):
    with pytest.raises(UsageError, match="simulat"):
        make(conf)


def test_fraction_without_a_device_size_is_refused():
    with pytest.raises(UsageError, match="total"):
        make("per_process_memory_fraction:0.5", total=None)


def test_arrays_grow_without_losing_anything():
    allocator = make()
    addresses = [allocator.malloc(512) for _ in range(3000)]
    assert len(set(addresses)) == 3000
    allocator.check()
    for address in addresses[::2]:
        allocator.free(address)
    allocator.check()
    assert allocator.stats.active_bytes == 1500 * 512


@pytest.mark.parametrize(
    ("tie_rule", "expected"), [(TieRule.ADDRESS, 0), (TieRule.BLOCK_AGE, 1), (TieRule.SEGMENT_AGE, 0)]
)
def test_tie_rule_decides_between_equal_segments(tie_rule, expected):
    # Both 12 MiB segments are free. The first is split into 8 MiB (a new object) and a rest (the old object), and the
    # front is freed last, so that its young object survives the merge: by block age the second segment is older now.
    allocator = make(tie_rule=tie_rule)
    wholes = [allocator.malloc(12 * MiB) for _ in range(2)]
    for whole in wholes:
        allocator.free(whole)
    assert [allocator.malloc(8 * MiB), allocator.malloc(4 * MiB)] == [wholes[0], wholes[0] + 8 * MiB]
    allocator.free(wholes[0] + 8 * MiB)
    allocator.free(wholes[0])
    assert allocator.malloc(12 * MiB) == wholes[expected]


OPTION_SETS = [
    {},
    {"max_split": 32 * MiB},
    {"max_split": 32 * MiB, "non_split_rounding": 40 * MiB},
    {"gc": 0.5, "fraction": 0.8},
    {"gc": 0.4, "fraction": 0.6, "max_split": 24 * MiB},
    {"expandable": True},
    {"expandable": True, "gc": 0.5, "fraction": 0.7},
    {"expandable": True, "max_split": 30 * MiB},
    {"divisions": (4,) * 16},
    {"divisions": (2, 2, 2, 0, 8, *(16,) * 11)},
    {"large_segment": 64 * MiB},
    {"large_segment": 32 * MiB, "expandable": True},
]
OPTIONS = st.sampled_from(OPTION_SETS)
TIES = st.sampled_from(["address", "block_age", "segment_age"])
SIZES = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 3 * MiB),
    st.integers(MiB, 90 * MiB),
    st.sampled_from([512, MiB, MiB + 1, 2 * MiB, 10 * MiB, 20 * MiB, 32 * MiB, 19 * MiB]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 0, 7]), st.sampled_from([0, 0, 0, 1])),
        st.tuples(st.just("free"), st.integers(0, 1 << 16), st.booleans(), st.just(0)),
        st.tuples(st.just("complete"), st.integers(0, 1 << 16), st.just(0), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0), st.just(0)),
    ),
    min_size=5,
    max_size=120,
)


def config_of(options):
    return CachingAllocatorConfig(
        max_split_bytes=options.get("max_split"),
        max_non_split_rounding_bytes=options.get("non_split_rounding", 20 * MiB),
        roundup_divisions=options.get("divisions", (0,) * 16),
        gc_threshold_frac=options.get("gc", 0.0),
        is_expandable=options.get("expandable", False),
        large_segment_bytes=options.get("large_segment", 20 * MiB),
        memory_fraction=options.get("fraction", 1.0),
    )


class Both:
    """Drives the allocator and its twin alike and compares what they did."""

    def __init__(self, options, tie, total):
        self.naive = NaiveCachingAllocator(total=total, tie=tie, **options)
        self.fast = CachingAllocator(config_of(options), limits=Limits(total), tie_rule=TieRule[tie.upper()])
        self.fast.malloc(1, pool=(0, 1))
        self.fast.release_pool((0, 1))
        self.naive.malloc(1, pool=1)
        self.live, self.waiting = [], []

    def malloc(self, size, stream, pool):
        try:
            expected = self.naive.malloc(size, stream, pool)
        except OutOfMemoryError:
            expected = None
        try:
            got = self.fast.malloc(size, stream, (0, pool))
        except SimulatedOutOfMemoryError:
            got = None
        assert got == expected
        if got is not None:
            self.live.append(got)
        self.waiting = [block.address for block in self.naive.waiting]

    def free(self, i, waits, _):
        if self.live:
            address = self.live.pop(i % len(self.live))
            self.naive.free(address, waits)
            self.fast.free(address, waits=waits)
            if waits:
                self.waiting.append(address)

    def complete(self, i, *_):
        if self.waiting:
            address = self.waiting.pop(i % len(self.waiting))
            self.naive.complete_free(address)
            assert self.fast.complete_free(address)

    def empty(self, *_):
        self.naive.empty_cache()
        self.fast.empty_cache()
        self.waiting = []

    def compare(self):
        got = [(e.action.name.lower(), e.address, e.size_bytes, e.stream, e.pool[1]) for e in self.fast.drain_events()]
        assert got == self.naive.events
        stats = self.fast.stats
        assert stats.reserved_bytes == self.naive.reserved
        assert stats.active_bytes == self.naive.bytes_in("allocated", "pending")
        assert stats.allocated_bytes == self.naive.bytes_in("allocated")
        assert stats.n_retries == self.naive.n_retries
        blocks = sorted((b for b in self.naive.all_blocks() if b.state != "unmapped"), key=lambda b: b.address)
        state = self.fast.state()
        state.check()
        assert state.blocks.address.tolist() == [b.address for b in blocks]
        assert state.blocks.size_bytes.tolist() == [b.size for b in blocks]


@examples(150)
@given(options=OPTIONS, tie=TIES, total=st.sampled_from([None, 200 * MiB, 400 * MiB, 80 * GiB]), steps=STEPS)
def test_allocator_does_what_its_slow_twin_does(options, tie, total, steps):
    if total is None:
        options = {name: value for name, value in options.items() if name not in ("fraction", "gc")}
    both = Both(options, tie, total)
    for name, *arguments in steps:
        getattr(both, name)(*arguments)
    both.compare()
    both.fast.check()


@pytest.mark.parametrize("seed", range(12))
def test_long_runs_agree_with_the_slow_twin(seed):
    rng = random.Random(seed)
    both = Both(OPTION_SETS[seed], ("address", "block_age", "segment_age")[seed % 3], rng.choice([300 * MiB, 2 * GiB]))
    for _ in range(500):
        x = rng.random()
        if x < 0.52:
            size = rng.choice(
                [rng.randrange(1, 5000), rng.randrange(1, 3 * MiB), rng.randrange(MiB, 90 * MiB), 10 * MiB]
            )
            both.malloc(size, rng.choice([0, 0, 7]), rng.choice([0, 0, 0, 1]))
        elif x < 0.9:
            both.free(rng.randrange(1 << 16), rng.random() < 0.15, 0)
        elif x < 0.99:
            both.complete(rng.randrange(1 << 16))
        else:
            both.empty()
    both.compare()
    both.fast.check()


class AllocatorMachine(RuleBasedStateMachine):
    """Any sequence of calls keeps every invariant."""

    def __init__(self):
        super().__init__()
        self.allocator = make("expandable_segments:True", total=300 * MiB)
        self.live, self.waiting = [], []
        self.n_ooms = 0

    @rule(size=SIZES, stream=st.sampled_from([0, 3]))
    def malloc(self, size, stream):
        before = self.allocator.stats.n_retries
        try:
            self.live.append(self.allocator.malloc(size, stream))
        except SimulatedOutOfMemoryError:
            self.n_ooms += 1
        if self.allocator.stats.n_retries > before:
            self.waiting.clear()

    @precondition(lambda self: self.live)
    @rule(i=st.integers(0, 1 << 16), waits=st.booleans())
    def free(self, i, waits):
        address = self.live.pop(i % len(self.live))
        self.allocator.free(address, waits=waits)
        if waits:
            self.waiting.append(address)

    @precondition(lambda self: self.waiting)
    @rule(i=st.integers(0, 1 << 16))
    def complete(self, i):
        assert self.allocator.complete_free(self.waiting.pop(i % len(self.waiting)))

    @rule()
    def empty_cache(self):
        self.allocator.empty_cache()
        self.waiting.clear()

    @invariant()
    def everything_holds(self):
        self.allocator.check()
        state = self.allocator.state()
        state.check()
        assert state.reserved_bytes == self.allocator.stats.reserved_bytes
        active = state.blocks.address[state.blocks.state != BlockState.INACTIVE].tolist()
        assert self.allocator.stats.n_ooms == self.n_ooms
        assert sorted(active) == sorted(self.live + self.waiting)


AllocatorMachine.TestCase.settings = examples(25, stateful_step_count=40)
TestAllocatorMachine = AllocatorMachine.TestCase
