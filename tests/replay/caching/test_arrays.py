"""The arrays that the caching kernels work on."""

from __future__ import annotations

import pytest

from memscope._kernels import caching_layout as at
from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.arrays import grow, new_arrays
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import GiB


def test_the_arrays_of_the_engine_take_the_limits_as_they_are() -> None:
    row = new_arrays(CachingAllocatorConfig(), Limits(10 * GiB, 3 * GiB, 0.5)).config
    assert (row[at.CFG_CAPACITY], row[at.CFG_LIMIT]) == (7 * GiB, 5 * GiB)
    row = new_arrays(CachingAllocatorConfig()).config
    assert (row[at.CFG_CAPACITY], row[at.CFG_LIMIT]) == (-1, -1)


def test_settings_that_need_a_device_are_refused_without_one() -> None:
    with pytest.raises(UsageError, match="total bytes"):
        new_arrays(CachingAllocatorConfig(memory_fraction=0.5))
    with pytest.raises(UsageError, match="total bytes"):
        new_arrays(CachingAllocatorConfig(throws_on_malloc_oom=True))
    with pytest.raises(UsageError, match="not simulated"):
        new_arrays(CachingAllocatorConfig(backend="cudaMallocAsync"))


def test_garbage_is_collected_above_a_share_of_the_cap() -> None:
    config = CachingAllocatorConfig(gc_threshold_frac=0.5, memory_fraction=0.5)
    assert new_arrays(config, Limits(8 * GiB)).config[at.CFG_GC_BYTES] == 2 * GiB
    assert new_arrays(CachingAllocatorConfig(gc_threshold_frac=0.5), Limits(8 * GiB)).config[at.CFG_GC_BYTES] == -1


def test_grown_arrays_keep_their_rows() -> None:
    arrays = new_arrays(CachingAllocatorConfig())
    arrays.blocks[:] = 7
    more = grow(arrays, n_more_blocks=5000)
    assert len(more.blocks) > len(arrays.blocks) + 5000
    assert (more.blocks[: len(arrays.blocks)] == 7).all()
