"""Settings and limits as the compiled allocator takes them."""

from __future__ import annotations

import pytest

from memscope._core import caching
from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.settings import add_pairs, new_allocator
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import GiB, MiB, TiB


def test_limits_are_taken_as_they_are() -> None:
    allocator = new_allocator(CachingAllocatorConfig(), Limits(10 * GiB, 3 * GiB, 0.5))
    assert (allocator.capacity_bytes, allocator.allowed_bytes) == (7 * GiB, 5 * GiB)
    allocator = new_allocator(CachingAllocatorConfig())
    assert (allocator.capacity_bytes, allocator.allowed_bytes) == (-1, caching.UNLIMITED)


def test_settings_that_need_a_device_are_refused_without_one() -> None:
    with pytest.raises(UsageError, match="total bytes"):
        new_allocator(CachingAllocatorConfig(memory_fraction=0.5))
    with pytest.raises(UsageError, match="total bytes"):
        new_allocator(CachingAllocatorConfig(throws_on_malloc_oom=True))
    with pytest.raises(UsageError, match="not simulated"):
        new_allocator(CachingAllocatorConfig(backend="cudaMallocAsync"))
    with pytest.raises(UsageError, match="not covered"):
        new_allocator(CachingAllocatorConfig(unmodelled=("expandable_segments_reserve_by_class",)))


def test_garbage_is_collected_above_a_share_of_the_cap() -> None:
    config = CachingAllocatorConfig(gc_threshold_frac=0.5, memory_fraction=0.5)
    assert new_allocator(config, Limits(8 * GiB)).garbage_collection_bytes == 2 * GiB
    # Without a fraction there is no cap, and nothing is collected.
    config = CachingAllocatorConfig(gc_threshold_frac=0.5)
    assert new_allocator(config, Limits(8 * GiB)).garbage_collection_bytes is None


@pytest.mark.parametrize(
    ("reserve", "total", "expected"),
    [
        (None, None, 16 * TiB),
        (None, 80 * GiB, 90 * GiB),
        (0.5, 80 * GiB, 40 * GiB),
        (40 * GiB, 80 * GiB, 40 * GiB),
        (200 * GiB, 80 * GiB, 90 * GiB),
        (1, 80 * GiB, 2 * MiB),
    ],
)
def test_reservations_are_as_large_as_they_are_set_or_nine_eighths_of_the_device(reserve, total, expected) -> None:
    config = CachingAllocatorConfig(reserve=reserve, is_expandable=True)
    assert new_allocator(config, Limits(total)).reservation_bytes == expected


def test_pools_give_memory_back_in_the_order_of_pytorch() -> None:
    allocator = new_allocator(CachingAllocatorConfig())
    add_pairs(allocator, [(1, 0), (0, -1), (0, 7)])
    assert [(pool.pool_id, pool.stream, pool.is_small) for pool in allocator.pools[:3]] == [
        (1, 0, True),
        (1, 0, False),
        (0, -1, True),
    ]
    # The default pool's large ones, its small ones, private small ones, private large ones; streams unsigned.
    assert allocator.release_order == [5, 3, 4, 2, 0, 1]
    assert [pool.is_releasable for pool in allocator.pools] == [False, False, True, True, True, True]
