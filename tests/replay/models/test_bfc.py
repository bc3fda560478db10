"""The BFC model: against its twin, and by hand where TensorFlow's rules show."""

import pytest
from hypothesis import given

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._bfc import BFC
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, STEPS, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_models import NaiveBfc

MiB = 1 << 20


@examples(120)
@given(steps=STEPS, capacity=CAPACITIES)
def test_serves_as_its_twin(steps, capacity):
    run_both(BFC, NaiveBfc(capacity), steps)


@pytest.mark.parametrize(("seed", "capacity"), [(1, None), (2, 200 * MiB), (3, 100 * MiB)])
def test_serves_a_long_program_as_its_twin(seed, capacity):
    run_both(BFC, NaiveBfc(capacity), long_steps(seed))


@examples(40)
@given(steps=STEPS)
def test_serves_as_its_twin_with_other_parameters(steps):
    allocator = run_both(
        BFC,
        NaiveBfc(24 * MiB, first=1 * MiB, slack=3 * MiB, collects=False),
        steps,
        first_region_bytes=1 * MiB,
        max_internal_fragmentation_bytes=3 * MiB,
        collects_regions=0,
    )
    assert allocator.driver_calls.counts.get("cudaMalloc", 0) == allocator.stats.n_device_allocs


def test_regions_double_and_serve_by_best_fit():
    allocator = ModelledAllocator(BFC)
    first = allocator.malloc(1 * MiB)
    allocator.malloc(1 * MiB)  # fills the first region of 2 MiB
    allocator.malloc(256)  # a second region, of 4 MiB
    assert layout(allocator) == [[MiB, MiB], [256, -(4 * MiB - 256)]]
    allocator.free(first)
    assert allocator.malloc(MiB - 256) == first  # the smaller of the two that fit, and given whole: see below
    assert layout(allocator)[0] == [MiB, MiB]


def test_block_less_than_twice_the_size_is_given_whole():
    allocator = ModelledAllocator(BFC)
    allocator.malloc(2 * MiB - 512 * 1024 - 256)  # of a region of 2 MiB
    assert layout(allocator) == [[2 * MiB]]
    assert allocator.stats.allocated_bytes == 2 * MiB
    assert allocator.stats.requested_bytes == 2 * MiB - 512 * 1024 - 256


def test_request_beyond_the_next_region_raises_its_size_by_doubling():
    allocator = ModelledAllocator(BFC)
    allocator.malloc(9 * MiB)  # 2, 4, 8, 16; less than half would be left, so all of it
    assert layout(allocator) == [[16 * MiB]]
    allocator.malloc(1)  # a raised size is not doubled again
    assert layout(allocator)[1] == [256, -(16 * MiB - 256)]


def test_memory_of_one_stream_is_reused_by_another():
    allocator = ModelledAllocator(BFC)
    address = allocator.malloc(MiB, stream=0)
    allocator.free(address)
    assert allocator.malloc(MiB, stream=9) == address


def test_unused_regions_are_collected_before_it_fails():
    allocator = ModelledAllocator(BFC, limits=Limits(16 * MiB))
    small = [allocator.malloc(2 * MiB), allocator.malloc(4 * MiB)]
    for address in small:
        allocator.free(address)
    # 10 MiB are left, the two regions are of 2 and 4 MiB: 12 MiB fit only without them.
    allocator.malloc(12 * MiB)
    assert allocator.stats.n_retries == 1
    assert allocator.stats.n_device_frees == 2
    assert allocator.stats.reserved_bytes == 16 * MiB
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(5 * MiB)
    assert allocator.stats.n_ooms == 1


def test_region_shrinks_by_tenths_to_what_the_driver_has():
    # 5 MiB: the driver deals in 2 MiB, so it has two granules, though 5 MiB look free.
    allocator = ModelledAllocator(BFC, limits=Limits(5 * MiB))
    allocator.malloc(3 * MiB)  # 4 MiB fit
    assert allocator.stats.reserved_bytes == 4 * MiB
    other = ModelledAllocator(BFC, limits=Limits(5 * MiB), first_region_bytes=8 * MiB)
    other.malloc(3 * MiB)  # min(8, 5) MiB fails; then nine tenths of 5, fails; of 4.5: 4.05, fails; 3.645 fits
    assert 3 * MiB < other.stats.reserved_bytes < 4 * MiB
    assert other.stats.reserved_bytes % 256 == 0


def test_emptied_cache_starts_again_with_a_small_region():
    allocator = ModelledAllocator(BFC)
    for _ in range(6):
        allocator.free(allocator.malloc(MiB))
        allocator.empty_cache()
        assert allocator.stats.reserved_bytes == 0
    assert allocator.stats.peak_reserved_bytes == 2 * MiB


@pytest.mark.parametrize(
    "wrong", [{"alignment_bytes": 100}, {"first_region_bytes": 0}, {"collects_regions": 2}], ids=str
)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        BFC.new_allocator(**wrong)
