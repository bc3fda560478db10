"""The binning model: against its twin, and by hand."""

import pytest
from hypothesis import given

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._binning import BINNING
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, STEPS, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_models import NaiveBinning

KiB, MiB = 1 << 10, 1 << 20
FEW = {"min_bin_exponent": 14, "max_bin_exponent": 20, "blocks_per_chunk": 3}


def few(capacity, **pool):
    return NaiveBinning(capacity, smallest=14, largest=20, per_chunk=3, **pool)


@examples(150)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    run_both(BINNING, few(capacity), steps, **FEW)


@pytest.mark.parametrize(("seed", "capacity"), [(1, None), (2, 200 * MiB), (3, 100 * MiB)])
def test_serves_a_long_program_as_its_twin(seed, capacity):
    run_both(BINNING, few(capacity), long_steps(seed), **FEW)


@examples(40)
@given(steps=STEPS)
def test_serves_as_its_twin_with_other_parameters(steps):
    run_both(BINNING, few(64 * MiB, returns=False), steps, returns_memory=0, **FEW)


@examples(20)
@given(steps=STEPS)
def test_serves_as_its_twin_by_default(steps):
    run_both(BINNING, NaiveBinning(2048 * MiB), steps)


def test_request_takes_a_block_of_the_smallest_bin_that_holds_it():
    allocator = ModelledAllocator(BINNING)
    allocator.malloc(1)
    assert layout(allocator) == [[256 * KiB, -127 * 256 * KiB]]  # the bin's chunk, all that the pool has
    allocator.malloc(256 * KiB)
    assert layout(allocator) == [[256 * KiB, 256 * KiB, -126 * 256 * KiB]]
    allocator.malloc(256 * KiB + 1)  # another bin: 64 MiB more
    assert layout(allocator)[1] == [512 * KiB, -127 * 512 * KiB]


def test_blocks_of_a_bin_are_never_joined():
    allocator = ModelledAllocator(BINNING)
    one, other = allocator.malloc(MiB), allocator.malloc(MiB)
    allocator.free(one)
    allocator.free(other)
    assert layout(allocator) == [[-MiB, -MiB, -126 * MiB]]
    assert allocator.malloc(MiB, stream=7) == one  # any stream is served from the bin


def test_larger_requests_come_from_the_pool_at_their_size():
    allocator = ModelledAllocator(BINNING)
    allocator.malloc(4 * MiB + 1)
    assert layout(allocator) == [[4 * MiB + 256]]


def test_unused_chunks_are_returned_before_it_fails():
    allocator = ModelledAllocator(BINNING, limits=Limits(128 * MiB))
    allocator.free(allocator.malloc(512 * KiB))  # a chunk of 64 MiB
    allocator.malloc(100 * MiB)
    assert allocator.stats.n_retries == 1
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(1)  # its chunk would be 32 MiB


def test_chunk_in_use_stays_when_the_cache_is_emptied():
    allocator = ModelledAllocator(BINNING)
    kept = allocator.malloc(512 * KiB)
    allocator.free(allocator.malloc(MiB))
    allocator.empty_cache()
    assert layout(allocator) == [[512 * KiB, -127 * 512 * KiB]]
    allocator.free(kept)
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_bin_exponent": 20, "max_bin_exponent": 19},
        {"min_bin_exponent": 8, "max_bin_exponent": 40},
        {"min_bin_exponent": 7},
        {"blocks_per_chunk": 0},
    ],
    ids=str,
)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        BINNING.new_allocator(**wrong)
