"""What must always hold inside a caching allocator's arrays, checked from scratch."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memscope._core import caching
from memscope._kernels import caching_layout as at
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


def check_arrays(arrays: at.CachingArrays, *, merges_neighbours: bool = True, mixes_lanes: bool = False) -> None:
    """Check blocks, free sets, pending list and counters against each other. Slow: for tests and after replays.

    ``merges_neighbours`` is false for allocators that keep adjacent free blocks apart, ``mixes_lanes`` true for those
    whose segments hold blocks of several lanes; free neighbours of two lanes stay apart.

    Raises
    ------
    InvariantError
        Naming what is broken.
    """
    live = _check_segments(arrays, merges_neighbours, mixes_lanes)
    _check_sets(arrays, live)
    _check_counters(arrays, live)
    _check_pending(arrays, live)


def _fail(what: str) -> None:
    raise InvariantError(f"caching allocator: {what}")


def _check_segments(arrays: at.CachingArrays, merges_neighbours: bool, mixes_lanes: bool) -> list[int]:
    """Blocks tile their segments, and no two adjacent ones should have been merged."""
    blocks = arrays.blocks
    live: list[int] = []
    extents = []
    for row in np.flatnonzero(arrays.segments[:, at.S_IS_LIVE] == 1):
        segment = arrays.segments[row]
        address, previous = int(segment[at.S_ADDRESS]), at.NONE
        extents.append((address, address + int(segment[at.S_SIZE])))
        block = int(segment[at.S_HEAD])
        while block != at.NONE:
            if blocks[block, at.B_PREV] != previous or blocks[block, at.B_SEGMENT] != row:
                _fail("a block's neighbours disagree")
            if blocks[block, at.B_ADDRESS] != address or blocks[block, at.B_SIZE] <= 0:
                _fail("blocks do not tile their segment")
            if not mixes_lanes and blocks[block, at.B_LANE] != segment[at.S_LANE]:
                _fail("a block is in another lane than its segment")
            state = int(blocks[block, at.B_STATE])
            is_alike = previous != at.NONE and bool(
                np.all(blocks[previous, [at.B_STATE, at.B_LANE]] == blocks[block, [at.B_STATE, at.B_LANE]])
            )
            if merges_neighbours and is_alike and state in (at.FREE, at.UNMAPPED):
                _fail("two adjacent free blocks were not merged")
            live.append(block)
            address += int(blocks[block, at.B_SIZE])
            previous, block = block, int(blocks[block, at.B_NEXT])
        if address != extents[-1][1]:
            _fail("blocks do not cover their segment")
    extents.sort()
    if any(end > start for (_, end), (start, _) in pairwise(extents)):
        _fail("two segments overlap")
    return live


def _check_sets(arrays: at.CachingArrays, live: list[int]) -> None:
    """The sets hold exactly the free and the unmapped blocks, in order."""
    blocks = arrays.blocks
    for column, state in ((at.L_FREE_ROOT, at.FREE), (at.L_UNMAPPED_ROOT, at.UNMAPPED)):
        members: set[int] = set()
        for lane in range(len(arrays.lanes)):
            ordered = _in_order(blocks, int(arrays.lanes[lane, column]))
            keys = [tuple(blocks[b, [at.B_SIZE, at.B_TIE, at.B_ADDRESS]].tolist()) for b in ordered]
            if state == at.UNMAPPED:
                keys = [key[2:] for key in keys]
            if keys != sorted(set(keys)):
                _fail("a free set is out of order")
            if any(blocks[b, at.B_LANE] != lane for b in ordered):
                _fail("a free set holds a block of another lane")
            members.update(ordered)
        if members != {b for b in live if blocks[b, at.B_STATE] == state}:
            _fail("the free sets do not hold exactly the free blocks")


def _in_order(blocks: at.Int64Matrix, root: int) -> list[int]:
    ordered: list[int] = []
    path: list[int] = []
    node = root
    while path or node != at.NONE:
        while node != at.NONE:
            path.append(node)
            node = int(blocks[node, at.B_LEFT])
        node = path.pop()
        ordered.append(node)
        node = int(blocks[node, at.B_RIGHT])
    return ordered


def _check_counters(arrays: at.CachingArrays, live: list[int]) -> None:
    counters, rows = arrays.counters, arrays.blocks[live]
    state, size = rows[:, at.B_STATE], rows[:, at.B_SIZE]
    active = (state == at.ALLOCATED) | (state == at.PENDING)
    expected = {
        "blocks": (at.C_N_BLOCKS, len(live)),
        "reserved bytes": (at.C_RESERVED, size[state != at.UNMAPPED].sum()),
        "active bytes": (at.C_ACTIVE, size[active].sum()),
        "allocated bytes": (at.C_ALLOCATED, size[state == at.ALLOCATED].sum()),
        "requested bytes": (at.C_REQUESTED, rows[active, at.B_REQUESTED].sum()),
        "segments": (at.C_N_SEGMENTS, np.count_nonzero(arrays.segments[:, at.S_IS_LIVE] == 1)),
    }
    for what, (counter, value) in expected.items():
        if counters[counter] != value:
            _fail(f"counts {counters[counter]} {what}, holds {value}")
    for current, peak in (
        (at.C_RESERVED, at.C_PEAK_RESERVED),
        (at.C_ACTIVE, at.C_PEAK_ACTIVE),
        (at.C_ALLOCATED, at.C_PEAK_ALLOCATED),
        (at.C_REQUESTED, at.C_PEAK_REQUESTED),
    ):
        if counters[peak] < counters[current]:
            _fail("a peak is below its current value")
    capacity = int(arrays.config[at.CFG_CAPACITY])
    if 0 <= capacity < counters[at.C_DEVICE_USED]:
        _fail("more memory was taken from the driver than it has")


def _check_pending(arrays: at.CachingArrays, live: list[int]) -> None:
    listed = []
    block = int(arrays.counters[at.C_PENDING_HEAD])
    while block != at.NONE:
        listed.append(block)
        block = int(arrays.blocks[block, at.B_PENDING_NEXT])
    if sorted(listed) != sorted(b for b in live if arrays.blocks[b, at.B_STATE] == at.PENDING):
        _fail("the pending list does not hold exactly the pending blocks")


def check_allocator(
    allocator: caching.BlockAllocator, *, merges_neighbours: bool = True, mixes_pools: bool = False
) -> None:
    """Check blocks, free sets, pending list and counters against each other. Slow: for tests and after replays.

    ``merges_neighbours`` is false for allocators that keep adjacent free blocks apart, ``mixes_pools`` true for those
    whose segments hold blocks of several pools; free neighbours of two pools stay apart.

    Raises
    ------
    InvariantError
        Naming what is broken.
    """
    blocks, segments = Blocks.of(allocator), allocator.segments()
    check_tiling(blocks, segments, merges_neighbours=merges_neighbours, mixes_pools=mixes_pools)
    for pool in range(len(allocator.pools)):
        check_set(blocks, caching.BlockState.FREE, pool, _ids(allocator.free_blocks(pool)))
        check_set(blocks, caching.BlockState.UNMAPPED, pool, _ids(allocator.unmapped_blocks(pool)))
    if sorted(_ids(allocator.pending_blocks())) != blocks.id[blocks.state == caching.BlockState.PENDING].tolist():
        _fail("the pending list does not hold exactly the pending blocks")
    check_stats(blocks, allocator.stats)
    if 0 <= allocator.capacity_bytes < allocator.device_used_bytes:
        _fail("more memory was taken from the driver than it has")


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


def check_set(blocks: Blocks, state: caching.BlockState, pool: int, members: list[int]) -> None:
    """A pool's set holds exactly its free, or unmapped, blocks in their order; ``members`` are ids."""
    held = np.flatnonzero((blocks.state == state) & (blocks.pool == pool))
    keys = [blocks.address[held]]
    if state == caching.BlockState.FREE:
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
