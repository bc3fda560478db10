"""The model of the driver's stream-ordered pool: against its twin, and by hand."""

import pytest
from hypothesis import given

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._async_pool import ASYNC_POOL
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, STEPS, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_models import NaiveAsyncPool

MiB = 1 << 20
STRICT = {"reuse_allow_opportunistic": 0, "reuse_allow_internal_dependencies": 0}


@examples(150)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    run_both(ASYNC_POOL, NaiveAsyncPool(capacity), steps)


@pytest.mark.parametrize(("seed", "capacity"), [(1, None), (2, 200 * MiB), (3, 100 * MiB)])
@pytest.mark.parametrize("shares", [True, False])
def test_serves_a_long_program_as_its_twin(seed, capacity, shares):
    twin = NaiveAsyncPool(capacity, chunk=6 * MiB, threshold=70 * MiB, shares=shares)
    allocator = run_both(
        ASYNC_POOL,
        twin,
        long_steps(seed),
        growth_chunk_bytes=6 * MiB,
        release_threshold_bytes=70 * MiB,
        **({} if shares else STRICT),
    )
    calls = allocator.driver_calls.counts
    assert calls["cuMemCreate"] == twin.n_created
    assert calls["cuMemRelease"] == twin.n_released


@examples(60)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin_where_streams_do_not_share(steps, capacity):
    run_both(ASYNC_POOL, NaiveAsyncPool(capacity, shares=False, remaps=False), steps, remaps_unused=0, **STRICT)


@examples(60)
@given(steps=STEPS)
def test_serves_as_its_twin_with_the_drivers_own_threshold(steps):
    run_both(
        ASYNC_POOL,
        NaiveAsyncPool(96 * MiB, chunk=4 * MiB, threshold=0),
        steps,
        growth_chunk_bytes=4 * MiB,
        release_threshold_bytes=0,
    )


def test_pool_grows_by_chunks_and_by_pages_where_no_chunk_is_left():
    allocator = ModelledAllocator(ASYNC_POOL, limits=Limits(70 * MiB))
    allocator.malloc(33 * MiB)
    assert layout(allocator) == [[33 * MiB, -31 * MiB]]
    allocator.malloc(31 * MiB)
    allocator.malloc(1)
    assert layout(allocator)[1] == [512, -(2 * MiB - 512)]
    assert allocator.driver_calls.counts["cuMemCreate"] == 3


def test_every_request_and_free_is_a_call():
    allocator = ModelledAllocator(ASYNC_POOL)
    for address in [allocator.malloc(1000) for _ in range(5)][:3]:
        allocator.free(address)
    assert allocator.driver_calls.counts == {
        "cudaMallocAsync": 5,
        "cudaFreeAsync": 3,
        "cuMemAddressReserve": 1,
        "cuMemCreate": 1,
        "cuMemMap": 1,
        "cuMemSetAccess": 1,
    }


def test_unused_growths_are_mapped_into_a_larger_one():
    allocator = ModelledAllocator(ASYNC_POOL)
    for address in [allocator.malloc(32 * MiB) for _ in range(3)]:
        allocator.free(address)
    allocator.malloc(80 * MiB)
    assert layout(allocator) == [[80 * MiB, -16 * MiB]]
    assert allocator.stats.peak_reserved_bytes == 96 * MiB
    calls = allocator.driver_calls.counts
    assert (calls["cuMemCreate"], calls["cuMemMap"], calls["cuMemUnmap"]) == (3, 6, 3)
    assert "cuMemRelease" not in calls


def test_no_more_is_mapped_again_than_the_request_needs():
    allocator = ModelledAllocator(ASYNC_POOL)
    for address in [allocator.malloc(32 * MiB) for _ in range(3)]:
        allocator.free(address)
    allocator.malloc(40 * MiB)
    assert layout(allocator) == [[-32 * MiB], [40 * MiB, -24 * MiB]]


def test_growths_stay_apart_where_nothing_is_remapped():
    allocator = ModelledAllocator(ASYNC_POOL, remaps_unused=0)
    for address in [allocator.malloc(32 * MiB) for _ in range(3)]:
        allocator.free(address)
    allocator.malloc(80 * MiB)
    assert allocator.stats.reserved_bytes == 192 * MiB


def test_another_stream_reuses_a_completed_free_unless_it_must_not():
    for parameters, is_shared in (({}, True), ({"reuse_allow_opportunistic": 0}, True), (STRICT, False)):
        allocator = ModelledAllocator(ASYNC_POOL, **parameters)
        address = allocator.malloc(MiB, stream=0)
        allocator.free(address)
        assert (allocator.malloc(MiB, stream=7) == address) == is_shared
        assert allocator.malloc(MiB, stream=0) != address or not is_shared


def test_waiting_for_the_device_lets_streams_share():
    allocator = ModelledAllocator(ASYNC_POOL, **STRICT)
    address, _ = allocator.malloc(MiB), allocator.malloc(MiB)
    allocator.free(address)
    allocator.empty_cache()
    assert allocator.malloc(MiB, stream=7) == address


def test_memory_above_the_threshold_goes_back_when_it_is_unused():
    allocator = ModelledAllocator(ASYNC_POOL, release_threshold_bytes=40 * MiB)
    addresses = [allocator.malloc(32 * MiB) for _ in range(3)]
    reserved = []
    for address in addresses:
        allocator.free(address)
        reserved.append(allocator.stats.reserved_bytes // MiB)
    assert reserved == [64, 32, 32]


def test_pending_frees_are_waited_for_before_it_fails():
    allocator = ModelledAllocator(ASYNC_POOL, limits=Limits(64 * MiB))
    allocator.free(allocator.malloc(40 * MiB), waits=True)
    allocator.malloc(50 * MiB)
    assert allocator.stats.n_retries == 1
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(20 * MiB)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alignment_bytes": 500},
        {"page_bytes": MiB},
        {"growth_chunk_bytes": 3 * MiB},
        {"release_threshold_bytes": -2},
        {"remaps_unused": 2},
    ],
    ids=str,
)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        ASYNC_POOL.new_allocator(**wrong)
