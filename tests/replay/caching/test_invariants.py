"""Each kind of damage to an allocator's blocks is found and named."""

from types import SimpleNamespace

import pytest

from memscope._core import caching
from memscope.errors import InvariantError
from memscope.replay.caching._invariants import Blocks, check_allocator, check_set, check_stats, check_tiling
from memscope.replay.caching.settings import add_pairs, new_allocator
from memscope.replay.config import CachingAllocatorConfig


def allocator_with_two_blocks():
    """A segment of 2 MiB with a block in use, a freed one, another in use, and the rest."""
    allocator = new_allocator(CachingAllocatorConfig())
    add_pairs(allocator, [(0, 0)])
    blocks = [allocator.malloc(0, size) for size in (1000, 2000, 3000)]
    allocator.free(blocks[1])
    check_allocator(allocator)
    return allocator, [block.id for block in blocks]


def changed(allocator, column, block, value):
    """The blocks of an allocator with one value of one of them replaced."""
    blocks = Blocks.of(allocator)
    values = getattr(blocks, column).copy()
    values[blocks.id == block] = value
    return blocks._replace(**{column: values})


def test_counter_that_does_not_match_the_blocks_is_found():
    allocator, ids = allocator_with_two_blocks()
    stats = allocator.stats
    check_stats(Blocks.of(allocator), stats)
    with pytest.raises(InvariantError, match="active bytes"):
        check_stats(changed(allocator, "state", ids[0], caching.BlockState.FREE), stats)
    with pytest.raises(InvariantError, match="requested bytes"):
        check_stats(changed(allocator, "requested_bytes", ids[0], 1001), stats)


def test_peak_below_its_current_value_is_found():
    allocator, _ = allocator_with_two_blocks()
    names = [
        f"{peak}{what}_bytes" for peak in ("", "peak_") for what in ("reserved", "active", "allocated", "requested")
    ]
    stats = SimpleNamespace(**{name: getattr(allocator.stats, name) for name in names})
    stats.peak_active_bytes = stats.active_bytes - 1
    with pytest.raises(InvariantError, match="peak of active bytes"):
        check_stats(Blocks.of(allocator), stats)


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("size_bytes", 512, "do not tile"),
        ("address", 512, "do not tile"),
        ("prev", 3, "neighbours disagree"),
        ("segment", 1, "neighbours disagree"),
        ("pool", 1, "another pool"),
        ("next", -1, "do not cover"),
        ("state", caching.BlockState.FREE, "not merged"),
    ],
)
def test_blocks_that_do_not_tile_their_segment_are_found(column, value, what):
    allocator, ids = allocator_with_two_blocks()
    segments = allocator.segments()
    check_tiling(Blocks.of(allocator), segments)
    with pytest.raises(InvariantError, match=what):
        check_tiling(changed(allocator, column, ids[2], value), segments)


def test_block_in_use_that_is_still_offered_is_found():
    allocator, ids = allocator_with_two_blocks()
    offered = [block.id for block in allocator.free_blocks(0)]
    check_set(Blocks.of(allocator), caching.BlockState.FREE, 0, offered)
    with pytest.raises(InvariantError, match="free blocks"):
        check_set(
            changed(allocator, "state", ids[1], caching.BlockState.ALLOCATED), caching.BlockState.FREE, 0, offered
        )


def test_free_blocks_out_of_order_are_found():
    allocator, ids = allocator_with_two_blocks()
    offered = [block.id for block in allocator.free_blocks(0)]
    assert offered[0] == ids[1]
    with pytest.raises(InvariantError, match="in order"):
        check_set(Blocks.of(allocator), caching.BlockState.FREE, 0, offered[::-1])
