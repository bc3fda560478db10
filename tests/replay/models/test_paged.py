"""The paged model: against its twin, and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._paged import PAGED
from memscope.trace.schema import Action
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, SIZES, Program, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_virtual import NaivePaged

KiB, MiB = 1 << 10, 1 << 20
BASE = 0x7F0000000000
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
    return ModelledAllocator(PAGED, limits=Limits(total), **parameters)


def check_calls(allocator, twin):
    calls = allocator.driver_calls.counts
    assert calls.get("cuMemMap", 0) == twin.n_mapped
    assert calls.get("cuMemUnmap", 0) == twin.n_unmapped
    assert calls.get("cuMemAddressReserve", 0) == calls.get("cuMemSetAccess", 0) == twin.n_ranges
    assert calls.get("cuMemAddressFree", 0) == twin.n_dropped


@examples(80)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    twin = NaivePaged(capacity)
    check_calls(run_both(PAGED, twin, steps), twin)


@examples(80)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin_with_ranges_kept(steps, capacity):
    twin = NaivePaged(capacity, large_from=MiB, keeps=True)
    check_calls(run_both(PAGED, twin, steps, large_from_bytes=MiB, keeps_ranges=1), twin)


@pytest.mark.parametrize("capacity", [None, 48 * MiB])
def test_serves_a_long_program_as_its_twin_with_small_pages(capacity):
    twin = NaivePaged(capacity, page=64 * KiB)
    check_calls(run_both(PAGED, twin, long_steps(1), page_bytes=64 * KiB), twin)


@examples(40)
@given(steps=STEPS)
def test_gives_everything_back(steps):
    program = Program(PAGED, 64 * MiB, keeps_ranges=1)
    for step in steps:
        program.do(step)
    program.finish()
    calls = program.allocator.driver_calls.counts
    assert calls.get("cuMemCreate") == calls.get("cuMemRelease")
    assert calls.get("cuMemMap") == calls.get("cuMemUnmap")


def test_pages_of_any_freed_range_serve_a_larger_request():
    allocator = make()
    addresses = [allocator.malloc(4 * MiB) for _ in range(5)]
    for address in addresses[::2]:
        allocator.free(address)
    # 3 freed ranges of 2 pages: a request of 6 pages needs none from the driver, though no two are adjacent.
    allocator.malloc(12 * MiB)
    assert allocator.stats.reserved_bytes == 20 * MiB
    assert allocator.driver_calls.counts == {
        "cuMemAddressReserve": 6,
        "cuMemAddressFree": 3,
        "cuMemCreate": 10,
        "cuMemMap": 16,
        "cuMemSetAccess": 6,
        "cuMemUnmap": 6,
    }


def test_free_pages_are_one_segment_of_no_stream():
    allocator = make()
    for address in [allocator.malloc(3 * MiB), allocator.malloc(2 * MiB, stream=7)]:
        allocator.free(address)
    state = allocator.state()
    assert layout(allocator) == [[-6 * MiB]]
    assert state.segments.stream_id.tolist() == [-1]
    allocator.malloc(5 * MiB, stream=7)
    assert layout(allocator) == [[6 * MiB]]


def test_request_below_a_page_shares_a_slab_and_merges_when_freed():
    allocator = make()
    first, second = allocator.malloc(1 * MiB), allocator.malloc(700)
    assert (first, second) == (BASE, BASE + MiB)
    assert layout(allocator) == [[MiB, 1024, 1024 - MiB]]
    allocator.free(first)
    allocator.free(second)
    assert layout(allocator) == [[-2 * MiB]]


def test_page_of_an_empty_slab_serves_a_large_request():
    allocator = make()
    allocator.free(allocator.malloc(700))
    allocator.malloc(2 * MiB)
    assert allocator.stats.reserved_bytes == 2 * MiB


@pytest.mark.parametrize(("size", "given_bytes"), [(2 * MiB - 1, 2 * MiB), (2 * MiB, 2 * MiB), (2 * MiB + 1, 4 * MiB)])
def test_large_requests_take_whole_pages(size, given_bytes):
    allocator = make()
    allocator.malloc(size)
    assert allocator.stats.allocated_bytes == given_bytes
    assert allocator.stats.requested_bytes == size


def test_kept_range_serves_as_many_pages_without_any_call():
    allocator = make(keeps_ranges=1)
    address = allocator.malloc(5 * MiB)
    allocator.free(address)
    before = allocator.driver_calls.counts
    assert allocator.malloc(6 * MiB) == address
    assert allocator.driver_calls.counts == before
    assert "cuMemUnmap" not in before


def test_capacity_is_reached_to_the_page():
    allocator = make(total=64 * MiB)
    addresses = [allocator.malloc(2 * MiB) for _ in range(32)]
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(1)
    for address in addresses[::2]:
        allocator.free(address)
    allocator.malloc(32 * MiB)
    assert allocator.stats.reserved_bytes == 64 * MiB


def test_memory_that_waits_for_a_stream_is_waited_for():
    allocator = make(total=16 * MiB)
    address = allocator.malloc(10 * MiB)
    allocator.free(address, waits=True)
    allocator.malloc(12 * MiB)
    assert allocator.stats.n_retries == 1
    assert not allocator.complete_free(address)
    assert allocator.driver_calls.counts["cudaDeviceSynchronize"] == 1


def test_events_name_each_range():
    allocator = make()
    allocator.free(allocator.malloc(3 * MiB))
    events = [(event.action, event.address, event.size_bytes) for event in allocator.drain_events()]
    assert events == [
        (Action.SEGMENT_MAP, BASE, 4 * MiB),
        (Action.ALLOC, BASE, 3 * MiB),
        (Action.FREE_REQUESTED, BASE, 3 * MiB),
        (Action.FREE_COMPLETED, BASE, 3 * MiB),
        (Action.SEGMENT_UNMAP, BASE, 4 * MiB),
    ]


@pytest.mark.parametrize("parameters", [{"page_bytes": 0}, {"alignment_bytes": 3}, {"large_from_bytes": -1}])
def test_impossible_pages_are_refused(parameters):
    with pytest.raises(UsageError, match="paged"):
        make(**parameters)
