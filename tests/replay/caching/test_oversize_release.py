"""A split limit below the size of a large segment: parts of split segments are above it, and are no segments."""

import pytest

from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import MiB


@pytest.mark.parametrize("wanted_mib", [20, 70])
def test_a_part_of_a_split_segment_is_not_given_back_under_a_split_limit(wanted_mib):
    config = CachingAllocatorConfig.parse("max_split_size_mb:32,large_segment_size_mb:64")
    allocator = CachingAllocator(config, limits=Limits(80 * MiB))
    allocator.malloc(5 * MiB)  # a segment of 64 MiB, of which 59 MiB are left: more than the limit
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(wanted_mib * MiB)
    allocator.check()
    assert allocator.stats.reserved_bytes == 64 * MiB
    assert allocator.stats.n_device_frees == 0


def test_whole_segments_above_the_limit_are_given_back():
    config = CachingAllocatorConfig.parse("max_split_size_mb:32,large_segment_size_mb:64")
    allocator = CachingAllocator(config, limits=Limits(140 * MiB))
    allocator.malloc(5 * MiB)
    allocator.free(allocator.malloc(66 * MiB))
    allocator.malloc(20 * MiB)
    allocator.check()
    assert allocator.stats.n_device_frees == 1
