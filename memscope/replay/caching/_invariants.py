"""What must always hold inside a simulated allocator, checked from scratch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memscope._core import caching
from memscope.errors import InvariantError


class Blocks(NamedTuple):
    """Columns of blocks, as :class:`memscope._core.caching.BlockTable` has them."""

    id: npt.NDArray[np.int64]
    address: npt.NDArray[np.int64]
    size_bytes: npt.NDArray[np.int64]
    requested_bytes: npt.NDArray[np.int64]
    pool: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    prev: npt.NDArray[np.int64]
    next: npt.NDArray[np.int64]
    tie: npt.NDArray[np.int64]
    state: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, allocator: caching.BlockAllocator) -> Blocks:
        """Those of an allocator."""
        table = allocator.blocks()
        return cls(*(getattr(table, name) for name in cls._fields))


def check_allocator(
    allocator: caching.BlockAllocator,
    *,
    merges_neighbours: bool = True,
    mixes_pools: bool = False,
    sorts_by_address: bool = False,
) -> None:
    """Check blocks, free sets, pending list and counters against each other. Slow: for tests and after replays.

    ``merges_neighbours`` is false for allocators that keep adjacent free blocks apart, ``mixes_pools`` true for those
    whose segments hold blocks of several pools; free neighbours of two pools stay apart. ``sorts_by_address`` is true
    for those whose sets of free blocks are in the order of addresses, not of sizes.

    Raises
    ------
    InvariantError
        Naming what is broken.
    """
    blocks, segments = Blocks.of(allocator), allocator.segments()
    check_tiling(blocks, segments, merges_neighbours=merges_neighbours, mixes_pools=mixes_pools)
    for pool in range(len(allocator.pools)):
        free, unmapped = _ids(allocator.free_blocks(pool)), _ids(allocator.unmapped_blocks(pool))
        check_set(blocks, caching.BlockState.FREE, pool, free, sorts_by_address=sorts_by_address)
        check_set(blocks, caching.BlockState.UNMAPPED, pool, unmapped, sorts_by_address=True)
    if sorted(_ids(allocator.pending_blocks())) != blocks.id[blocks.state == caching.BlockState.PENDING].tolist():
        _fail("the pending list does not hold exactly the pending blocks")
    check_stats(blocks, allocator.stats)
    if 0 <= allocator.capacity_bytes < allocator.device_used_bytes:
        _fail("more memory was taken from the driver than it has")


def _fail(what: str) -> None:
    raise InvariantError(f"caching allocator: {what}")


def _ids(blocks: list[caching.Block]) -> list[int]:
    return [block.id for block in blocks]


def check_tiling(
    blocks: Blocks, segments: caching.SegmentTable, *, merges_neighbours: bool = True, mixes_pools: bool = False
) -> None:
    """Blocks tile their segments, segments do not overlap, and no two adjacent blocks should have been merged."""
    row_of_id = np.full(int(blocks.id.max(initial=-1)) + 1, -1)
    row_of_id[blocks.id] = np.arange(len(blocks.id))
    n_seen = 0
    for i in range(len(segments.id)):
        address, previous, block = int(segments.address[i]), -1, int(segments.first_block[i])
        while block != -1:
            row = row_of_id[block]
            if blocks.prev[row] != previous or blocks.segment[row] != segments.id[i]:
                _fail("a block's neighbours disagree")
            if blocks.address[row] != address or blocks.size_bytes[row] <= 0:
                _fail("blocks do not tile their segment")
            if not mixes_pools and blocks.pool[row] != segments.pool[i]:
                _fail("a block is in another pool than its segment")
            if merges_neighbours and previous != -1 and _should_merge(blocks, row_of_id[previous], row):
                _fail("two adjacent free blocks were not merged")
            address += int(blocks.size_bytes[row])
            previous, block = block, int(blocks.next[row])
            n_seen += 1
        if address != segments.address[i] + segments.size_bytes[i]:
            _fail("blocks do not cover their segment")
    if n_seen != len(blocks.id):
        _fail("a block is in no segment")
    by_address = np.argsort(segments.address)
    start, end = segments.address[by_address], (segments.address + segments.size_bytes)[by_address]
    if np.any(end[:-1] > start[1:]):
        _fail("two segments overlap")


def _should_merge(blocks: Blocks, row: int, other: int) -> bool:
    is_alike = blocks.state[row] == blocks.state[other] and blocks.pool[row] == blocks.pool[other]
    return bool(is_alike) and blocks.state[row] in (caching.BlockState.FREE, caching.BlockState.UNMAPPED)


def check_set(
    blocks: Blocks, state: caching.BlockState, pool: int, members: list[int], *, sorts_by_address: bool = False
) -> None:
    """A pool's set holds exactly its free, or unmapped, blocks in their order; ``members`` are ids."""
    held = np.flatnonzero((blocks.state == state) & (blocks.pool == pool))
    keys = [blocks.address[held]]
    if not sorts_by_address:
        keys += [blocks.tie[held], blocks.size_bytes[held]]
    if members != blocks.id[held][np.lexsort(keys)].tolist():
        _fail(f"the set of {state.name.lower()} blocks does not hold exactly those, in order")


def check_stats(blocks: Blocks, stats: caching.DeviceStats) -> None:
    """The counters are what the blocks add up to, and no peak is below its current value."""
    size, requested = blocks.size_bytes, blocks.requested_bytes
    is_active = (blocks.state == caching.BlockState.ALLOCATED) | (blocks.state == caching.BlockState.PENDING)
    expected = {
        "reserved": size[blocks.state != caching.BlockState.UNMAPPED].sum(),
        "active": size[is_active].sum(),
        "allocated": size[blocks.state == caching.BlockState.ALLOCATED].sum(),
        "requested": requested[is_active].sum(),
    }
    for what, n_bytes in expected.items():
        counted = getattr(stats, f"{what}_bytes")
        if counted != n_bytes:
            _fail(f"counts {counted} {what} bytes, holds {n_bytes}")
        if getattr(stats, f"peak_{what}_bytes") < counted:
            _fail(f"the peak of {what} bytes is below their current value")
