"""The buddy model: against its twin, and by hand."""

import pytest
from hypothesis import given

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._buddy import BUDDY
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, STEPS, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_models import NaiveBuddy

KiB, MiB = 1 << 10, 1 << 20


@examples(120)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    allocator = run_both(BUDDY, NaiveBuddy(capacity), steps)
    for segment in layout(allocator):
        assert all(abs(size) & (abs(size) - 1) == 0 for size in segment)


@pytest.mark.parametrize(("seed", "capacity"), [(1, None), (2, 200 * MiB), (3, 100 * MiB)])
def test_serves_a_long_program_as_its_twin(seed, capacity):
    run_both(BUDDY, NaiveBuddy(capacity), long_steps(seed))


@examples(40)
@given(steps=STEPS)
def test_serves_as_its_twin_with_other_parameters(steps):
    run_both(
        BUDDY, NaiveBuddy(64 * MiB, smallest=4096, chunk=2 * MiB), steps, min_block_bytes=4096, chunk_bytes=2 * MiB
    )


def test_request_halves_a_chunk_down_to_its_power_of_two():
    allocator = ModelledAllocator(BUDDY, chunk_bytes=16 * KiB)
    allocator.malloc(1500)
    assert layout(allocator) == [[2 * KiB, -2 * KiB, -4 * KiB, -8 * KiB]]
    assert allocator.stats.allocated_bytes == 2 * KiB


def test_blocks_join_only_with_their_own_half():
    allocator = ModelledAllocator(BUDDY, chunk_bytes=16 * KiB)
    a, b, c, d = (allocator.malloc(4 * KiB) for _ in range(4))
    allocator.free(b)
    allocator.free(c)  # neighbours of one size, but halves of different wholes
    assert layout(allocator) == [[4 * KiB, -4 * KiB, -4 * KiB, 4 * KiB]]
    allocator.free(a)
    assert layout(allocator) == [[-8 * KiB, -4 * KiB, 4 * KiB]]
    allocator.free(d)  # up to the whole
    assert layout(allocator) == [[-16 * KiB]]


def test_larger_request_gets_a_chunk_of_its_own_power_of_two():
    allocator = ModelledAllocator(BUDDY)
    allocator.malloc(33 * MiB)
    assert layout(allocator) == [[64 * MiB]]


def test_smallest_block_of_a_huge_chunk_needs_many_halvings():
    allocator = ModelledAllocator(BUDDY, chunk_bytes=1 << 40)
    address = allocator.malloc(1)
    assert [len(segment) for segment in layout(allocator)] == [32]  # 2^40 down to 2^9: 31 halvings
    allocator.free(address)
    assert layout(allocator) == [[-(1 << 40)]]


def test_chunk_is_halved_while_the_driver_lacks_it():
    allocator = ModelledAllocator(BUDDY, limits=Limits(20 * MiB))
    allocator.malloc(3 * MiB)
    assert layout(allocator) == [[4 * MiB, -4 * MiB, -8 * MiB]]


def test_pending_frees_and_unused_chunks_are_used_before_it_fails():
    allocator = ModelledAllocator(BUDDY, limits=Limits(64 * MiB))
    address = allocator.malloc(20 * MiB)
    allocator.free(address, waits=True)
    allocator.malloc(64 * MiB)
    assert allocator.stats.n_retries == 1
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(1)


def test_emptied_cache_gives_whole_chunks_back():
    allocator = ModelledAllocator(BUDDY)
    kept, dropped = allocator.malloc(20 * MiB), allocator.malloc(20 * MiB)
    allocator.free(dropped)
    allocator.empty_cache()
    assert layout(allocator) == [[32 * MiB]]
    allocator.free(kept)
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 0
    assert allocator.driver_calls.counts["cudaFree"] == 2


@pytest.mark.parametrize("wrong", [{"min_block_bytes": 500}, {"chunk_bytes": 256}], ids=str)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        BUDDY.new_allocator(**wrong)
