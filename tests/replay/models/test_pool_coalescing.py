"""The pool model: against its twin, and by hand where RMM's rules show."""

import pytest
from hypothesis import given

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._pool_coalescing import POOL_COALESCING
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, STEPS, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_models import NaivePool

KiB, MiB = 1 << 10, 1 << 20


@examples(150)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    run_both(POOL_COALESCING, NaivePool(capacity), steps)


@pytest.mark.parametrize(("seed", "capacity"), [(1, None), (2, 200 * MiB), (3, 100 * MiB)])
def test_serves_a_long_program_as_its_twin(seed, capacity):
    run_both(POOL_COALESCING, NaivePool(capacity), long_steps(seed))


@examples(50)
@given(steps=STEPS)
def test_serves_as_its_twin_with_other_parameters(steps):
    run_both(
        POOL_COALESCING,
        NaivePool(96 * MiB, initial=10 * MiB, maximum=64 * MiB, returns=False),
        steps,
        initial_pool_bytes=10 * MiB,
        maximum_pool_bytes=64 * MiB,
        returns_memory=0,
    )


def test_pool_doubles_when_it_grows():
    allocator = ModelledAllocator(POOL_COALESCING)
    allocator.malloc(3 * MiB)  # nothing to double
    allocator.malloc(1 * MiB)  # 3 MiB more
    allocator.malloc(4 * MiB)  # 6 MiB more
    assert layout(allocator) == [[3 * MiB], [MiB, -2 * MiB], [4 * MiB, -2 * MiB]]


def test_pool_with_a_maximum_grows_by_half_of_what_remains():
    allocator = ModelledAllocator(POOL_COALESCING, maximum_pool_bytes=32 * MiB)
    allocator.malloc(1)
    assert layout(allocator) == [[256, -(16 * MiB - 256)]]
    allocator.malloc(16 * MiB)
    assert layout(allocator)[1] == [16 * MiB]
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(16 * MiB)


def test_growth_is_halved_while_the_driver_lacks_it():
    allocator = ModelledAllocator(POOL_COALESCING, limits=Limits(12 * MiB))
    allocator.malloc(8 * MiB)
    allocator.malloc(MiB)  # 8 MiB more are not there, 4 are
    assert layout(allocator) == [[8 * MiB], [MiB, -3 * MiB]]


def test_freed_block_serves_its_own_stream_first():
    allocator = ModelledAllocator(POOL_COALESCING, initial_pool_bytes=64 * MiB)
    one, _, other, _ = (allocator.malloc(MiB, stream=stream) for stream in (0, 0, 7, 7))
    allocator.free(one)
    allocator.free(other)
    assert allocator.malloc(MiB, stream=7) == other
    assert allocator.malloc(MiB, stream=7) == one  # stolen: its own list has no block


def test_neighbours_of_two_streams_join_only_when_a_request_needs_it():
    allocator = ModelledAllocator(POOL_COALESCING, initial_pool_bytes=2 * MiB)
    one = allocator.malloc(MiB, stream=0)
    other = allocator.malloc(MiB, stream=7)
    allocator.free(one)
    allocator.free(other)
    assert layout(allocator) == [[-MiB, -MiB]]
    assert allocator.malloc(2 * MiB, stream=7) == one
    assert allocator.stats.reserved_bytes == 2 * MiB


def test_emptied_cache_returns_unused_segments_of_two_streams():
    allocator = ModelledAllocator(POOL_COALESCING, initial_pool_bytes=2 * MiB)
    allocator.free(allocator.malloc(MiB, stream=0))
    other = allocator.malloc(MiB, stream=7)
    allocator.free(other, waits=True)
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 0


def test_pool_as_in_rmm_never_returns_memory():
    allocator = ModelledAllocator(POOL_COALESCING, limits=Limits(8 * MiB), returns_memory=0)
    small = allocator.malloc(4 * MiB)
    allocator.free(small)
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 4 * MiB
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(6 * MiB)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alignment_bytes": 100},
        {"initial_pool_bytes": 100},
        {"initial_pool_bytes": 512, "maximum_pool_bytes": 256},
        {"maximum_pool_bytes": -2},
    ],
    ids=str,
)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        POOL_COALESCING.new_allocator(**wrong)
