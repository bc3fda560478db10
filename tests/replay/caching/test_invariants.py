"""Each kind of damage to an allocator's arrays is found and named."""

import pytest

from memscope._kernels import caching as kernel
from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import request_free
from memscope.errors import InvariantError
from memscope.replay.caching._invariants import check_arrays
from memscope.replay.caching.arrays import new_arrays, with_lanes
from memscope.replay.config import CachingAllocatorConfig

MiB = 1 << 20


def arrays_with_two_blocks():
    """A segment of 2 MiB with a block in use, a freed one, and the rest."""
    arrays = with_lanes(new_arrays(CachingAllocatorConfig()), [(0, 0)], is_private_releasable=False)
    blocks = [int(kernel.malloc(arrays, 0, size)) for size in (1000, 2000, 3000)]
    request_free(arrays, blocks[1], False)
    check_arrays(arrays)
    return arrays, blocks


def test_a_counter_that_does_not_match_the_blocks_is_found():
    arrays, _ = arrays_with_two_blocks()
    arrays.counters[at.C_ACTIVE] += 512
    with pytest.raises(InvariantError, match="active bytes"):
        check_arrays(arrays)


def test_blocks_that_do_not_tile_their_segment_are_found():
    arrays, blocks = arrays_with_two_blocks()
    arrays.blocks[blocks[0], at.B_SIZE] -= 512
    with pytest.raises(InvariantError, match="caching allocator"):
        check_arrays(arrays)


def test_a_block_in_use_that_is_still_offered_is_found():
    arrays, blocks = arrays_with_two_blocks()
    arrays.blocks[blocks[1], at.B_STATE] = at.ALLOCATED
    with pytest.raises(InvariantError, match="caching allocator"):
        check_arrays(arrays)
