"""The stitching model: against its twin, and each of its states by hand."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._stitching import STITCHING
from memscope.trace.schema import Action
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, Program, layout, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_virtual import NaiveStitching

MiB = 1 << 20
BASE = 0x7F0000000000
SIZES = st.one_of(st.integers(1, 5000), st.integers(1, 40 * MiB), st.integers(1, 12).map(lambda n: 2 * n * MiB))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 0, 7])),
        st.tuples(st.just("malloc"), SIZES, st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 1000), st.booleans()),
        st.tuples(st.just("free"), st.integers(0, 1000), st.just(False)),
        st.tuples(st.just("complete"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    min_size=20,
    max_size=60,
)


def make(total=None, **parameters):
    return ModelledAllocator(STITCHING, limits=Limits(total), **parameters)


def blocks_of(allocator, *sizes):
    """Allocate blocks, each beside one that stays in use, and free them."""
    for address in [allocator.malloc(size) for size in sizes]:
        allocator.free(address)


def check_against(allocator, twin):
    calls = allocator.driver_calls.counts
    assert calls.get("cuMemMap", 0) == twin.n_mapped
    assert calls.get("cuMemUnmap", 0) == twin.n_unmapped
    assert calls.get("cuMemAddressReserve", 0) == calls.get("cuMemSetAccess", 0) == twin.n_ranges
    assert calls.get("cuMemAddressFree", 0) == twin.n_dropped
    assert allocator.core.n_idle == len(twin.idle)
    assert allocator.core.n_links == sum(len(stitched.blocks) for stitched in _ranges(twin))
    state = allocator.state()
    large = state.segments.is_large
    assert state.segments.address[large].tolist() == sorted(block.address for block in twin.primitives)


def _ranges(twin):
    in_use = [given.source for given in [*twin.at.values(), *twin.pending] if hasattr(given.source, "source")]
    return [*twin.idle, *in_use]


@examples(120)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    twin = NaiveStitching(capacity)
    check_against(run_both(STITCHING, twin, steps), twin)


@examples(80)
@given(steps=STEPS, n_idle_most=st.integers(0, 3), limit=st.sampled_from([2 * MiB, 6 * MiB, 20 * MiB]))
def test_serves_as_its_twin_with_limits(steps, n_idle_most, limit):
    twin = NaiveStitching(96 * MiB, limit, n_idle_most)
    allocator = run_both(STITCHING, twin, steps, n_idle_most=n_idle_most, fragment_limit_bytes=limit)
    check_against(allocator, twin)


def long_steps(seed):
    """Few sizes that repeat among many that do not, so that ranges are reused as well as made."""
    rng = random.Random(seed)
    steps = []
    for _ in range(600):
        what = rng.choices(("malloc", "free", "complete", "empty"), (100, 96, 10, 1))[0]
        size = rng.choice((rng.randrange(1, 3000), rng.randrange(1, 50 * MiB), 2 * MiB * rng.randrange(1, 8)))
        value = size if what == "malloc" else rng.randrange(99)
        steps.append((what, value, rng.choice((0, 0, 7)) if what == "malloc" else rng.random() < 0.1))
    return steps


@pytest.mark.parametrize(("seed", "capacity"), [(1, None), (2, 300 * MiB), (3, 120 * MiB)])
def test_serves_a_long_program_as_its_twin(seed, capacity):
    twin = NaiveStitching(capacity, n_idle_most=5)
    allocator = run_both(STITCHING, twin, long_steps(seed), n_idle_most=5)
    check_against(allocator, twin)
    core = allocator.core
    assert min(core.n_stitches, core.n_splits, core.n_reuses, core.n_evictions) > 0
    assert (allocator.stats.n_retries > 0) == (capacity is not None)


@examples(40)
@given(steps=STEPS)
def test_gives_everything_back(steps):
    program = Program(STITCHING, 96 * MiB)
    for step in steps:
        program.do(step)
    program.finish()
    calls, core = program.allocator.driver_calls.counts, program.allocator.core
    assert calls.get("cuMemCreate") == calls.get("cuMemRelease")
    assert calls.get("cuMemMap") == calls.get("cuMemUnmap")
    assert calls.get("cudaMalloc") == calls.get("cudaFree")
    assert core.n_ranges == core.n_links == core.n_marked_blocks == 0


def test_free_block_of_the_exact_size_is_taken_before_a_stitched_range():
    allocator = make()
    blocks_of(allocator, 4 * MiB, 6 * MiB)
    stitched = allocator.malloc(10 * MiB)
    allocator.free(stitched)
    held = allocator.malloc(10 * MiB)
    plain = allocator.malloc(10 * MiB)
    assert held == stitched
    allocator.free(plain)
    allocator.free(held)
    assert allocator.malloc(10 * MiB) == plain


def test_larger_block_is_split_and_its_range_kept():
    allocator = make()
    blocks_of(allocator, 10 * MiB)
    part = allocator.malloc(4 * MiB)
    assert layout(allocator) == [[4 * MiB], [-6 * MiB]]
    allocator.free(part)
    before = allocator.driver_calls.counts
    assert before["cuMemMap"] == 5 + 2 + 3
    # The range of the whole is still mapped: its size is an exact match again.
    allocator.malloc(10 * MiB)
    assert allocator.driver_calls.counts == before
    assert layout(allocator) == [[4 * MiB], [6 * MiB]]


def test_smaller_blocks_are_stitched_largest_first_and_the_last_is_split():
    allocator = make()
    blocks_of(allocator, 4 * MiB, 8 * MiB, 6 * MiB)
    address = allocator.malloc(12 * MiB)
    # 8 MiB, then the best fit for the 4 MiB that are missing; 6 MiB stay whole.
    assert layout(allocator) == [[4 * MiB], [8 * MiB], [-6 * MiB]]
    allocator.free(address)
    allocator.malloc(16 * MiB)
    # 8 and 6 MiB, and 2 of the 4 MiB.
    assert layout(allocator) == [[2 * MiB], [-2 * MiB], [8 * MiB], [6 * MiB]]
    assert allocator.stats.reserved_bytes == 18 * MiB


def test_what_free_blocks_lack_is_created():
    allocator = make()
    blocks_of(allocator, 4 * MiB)
    allocator.drain_events()
    address = allocator.malloc(9 * MiB)
    assert allocator.stats.reserved_bytes == 10 * MiB
    assert allocator.driver_calls.counts == {
        "cuMemAddressReserve": 3,
        "cuMemCreate": 5,
        "cuMemMap": 2 + 3 + 5,
        "cuMemSetAccess": 3,
    }
    events = [(event.action, event.address - BASE, event.size_bytes) for event in allocator.drain_events()]
    assert events == [(Action.SEGMENT_ALLOC, 4 * MiB, 6 * MiB), (Action.ALLOC, 10 * MiB, 9 * MiB)]
    assert address == BASE + 10 * MiB


def test_requested_bytes_fill_all_parts_but_the_last():
    allocator = make()
    blocks_of(allocator, 4 * MiB)
    allocator.malloc(9 * MiB)
    assert allocator.state().blocks.requested_bytes.tolist() == [4 * MiB, 5 * MiB]
    assert allocator.stats.requested_bytes == 9 * MiB
    assert allocator.stats.allocated_bytes == 10 * MiB


def test_stitched_range_is_not_used_while_one_of_its_blocks_is():
    allocator = make()
    blocks_of(allocator, 4 * MiB, 6 * MiB)
    stitched = allocator.malloc(10 * MiB)
    allocator.free(stitched)
    allocator.malloc(6 * MiB)
    assert allocator.malloc(10 * MiB) != stitched
    assert allocator.stats.reserved_bytes == 4 * MiB + 6 * MiB + 6 * MiB


def test_split_of_a_block_reaches_the_ranges_over_it():
    allocator = make()
    blocks_of(allocator, 4 * MiB, 6 * MiB)
    stitched = allocator.malloc(10 * MiB)
    allocator.free(stitched)
    allocator.free(allocator.malloc(2 * MiB))
    assert layout(allocator) == [[-2 * MiB], [-2 * MiB], [-6 * MiB]]
    assert allocator.malloc(10 * MiB) == stitched
    assert layout(allocator) == [[2 * MiB], [2 * MiB], [6 * MiB]]


def test_blocks_of_another_stream_are_not_stitched():
    allocator = make()
    blocks_of(allocator, 4 * MiB)
    allocator.malloc(8 * MiB, stream=7)
    assert allocator.stats.reserved_bytes == 12 * MiB


def test_blocks_below_the_limit_are_not_stitched():
    allocator = make(fragment_limit_bytes=6 * MiB)
    blocks_of(allocator, 4 * MiB, 6 * MiB)
    allocator.malloc(14 * MiB)
    # 6 MiB and 8 new ones.
    assert allocator.stats.reserved_bytes == 18 * MiB


def test_range_used_longest_ago_is_evicted():
    allocator = make(n_idle_most=1)
    blocks_of(allocator, 4 * MiB, 6 * MiB)
    first = allocator.malloc(10 * MiB)
    blocks_of(allocator, 2 * MiB)
    second = allocator.malloc(20 * MiB)
    allocator.free(first)
    assert allocator.core.n_evictions == 0
    allocator.free(second)
    assert allocator.core.n_evictions == 1
    assert allocator.driver_calls.counts["cuMemUnmap"] == 5


def test_pending_allocation_of_several_blocks_stays_active_until_complete():
    allocator = make()
    blocks_of(allocator, 4 * MiB, 6 * MiB)
    address = allocator.malloc(10 * MiB)
    allocator.free(address, waits=True)
    allocator.check()
    assert (allocator.stats.allocated_bytes, allocator.stats.active_bytes) == (0, 10 * MiB)
    assert allocator.complete_free(address)
    assert allocator.stats.active_bytes == 0
    assert allocator.malloc(10 * MiB) == address


def test_unused_memory_of_other_streams_is_released_before_out_of_memory():
    allocator = make(total=64 * MiB)
    for stream in (0, 7):
        allocator.free(allocator.malloc(20 * MiB, stream=stream))
    allocator.malloc(50 * MiB)
    assert allocator.stats.reserved_bytes == 50 * MiB
    assert allocator.stats.n_retries == 1
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(16 * MiB)
    allocator.check()


def test_rows_grow_without_losing_anything():
    allocator = make()
    addresses = [allocator.malloc(2 * MiB) for _ in range(2100)]
    for address in addresses:
        allocator.free(address)
    whole = allocator.malloc(4200 * MiB)
    assert allocator.stats.reserved_bytes == 4200 * MiB
    assert allocator.core.n_links == 2100
    allocator.check()
    allocator.free(whole)
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 0


@pytest.mark.parametrize(
    "parameters",
    [
        {"chunk_bytes": MiB},
        {"chunk_bytes": 0},
        {"alignment_bytes": 3},
        {"n_idle_most": -1},
        {"fragment_limit_bytes": -1},
    ],
)
def test_impossible_parameters_are_refused(parameters):
    with pytest.raises(UsageError, match="stitching"):
        make(**parameters)
