"""What must always hold inside a caching allocator's arrays, checked from scratch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from memscope._kernels import caching_layout as at
from memscope.errors import InvariantError


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
