"""The smallest sets of live blocks that would have made room, found in the state at the failed request.

Each is a proposal: the allocator's own rules decide, in a replay.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from memscope.oom.request import FailedRequest, handle_bytes
from memscope.oom.room import Room
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import BlockState
from memscope.trace.tables import BoolArray, Int64Array

_N_WINDOWS = 3
"""Proposals taken from windows of the request's own segments: rules of split limits refuse some."""


def proposals(
    room: Room, request: FailedRequest, config: CachingAllocatorConfig, lacking_bytes: int
) -> tuple[Int64Array, ...]:
    """Sets of rows to free, those of the fewest bytes first.

    Parameters
    ----------
    lacking_bytes
        What the driver would have had to have more, for what was asked of it.

    Returns
    -------
    tuple of int64 (n,)
        Rows of the device's allocations.
    """
    live = room.state.blocks.state == BlockState.ACTIVE_ALLOCATED
    found = [*_windows(room, request, live), *_segments(room, live, lacking_bytes)]
    found += _mapped(room, live, config, lacking_bytes)
    of_block = room.state.allocation_ids
    sizes = room.state.blocks.size_bytes
    sets = {tuple(sorted(of_block[chosen].tolist())): int(sizes[chosen].sum()) for chosen in found if len(chosen)}
    ordered = sorted(sets, key=lambda rows: (sets[rows], len(rows)))
    return tuple(np.array(rows, np.int64) for rows in ordered if min(rows) >= 0)


def _windows(room: Room, request: FailedRequest, live: BoolArray) -> Iterator[Int64Array]:
    """Neighbouring blocks of one segment that would together hold the request, by the bytes to be freed."""
    blocks = room.state.blocks
    own = room.is_own[blocks.segment_id]
    stuck = blocks.state == BlockState.ACTIVE_PENDING_FREE
    n = len(blocks)
    if not n:
        return
    total = np.concatenate([[0], np.cumsum(blocks.size_bytes)])
    cost = np.concatenate([[0], np.cumsum(np.where(live, blocks.size_bytes, 0))])
    n_stuck = np.concatenate([[0], np.cumsum(stuck)])
    end = np.searchsorted(total, total[:-1] + request.rounded_bytes)
    inside = own & (end <= n)
    inside[inside] = blocks.segment_id[end[inside] - 1] == blocks.segment_id[inside]
    start = np.flatnonzero(inside)
    start = start[n_stuck[end[start]] == n_stuck[start]]
    order = np.argsort(cost[end[start]] - cost[start], kind="stable")
    for first in start[order[:_N_WINDOWS]].tolist():
        window = np.arange(first, end[first])
        yield window[live[window]]


def _segments(room: Room, live: BoolArray, lacking_bytes: int) -> Iterator[Int64Array]:
    """Whole segments to empty, so that a reclaim gives them back: the cheapest one, and the cheapest together."""
    state = room.state
    segments, blocks = state.segments, state.blocks
    n = len(segments)
    held = np.zeros(n, np.int64)
    np.add.at(held, blocks.segment_id[live], blocks.size_bytes[live])
    stuck = np.zeros(n, np.int64)
    np.add.at(stuck, blocks.segment_id[blocks.state == BlockState.ACTIVE_PENDING_FREE], 1)
    can_go = np.flatnonzero((segments.pool_id <= 0) & ~segments.is_expandable & (held > 0) & (stuck == 0))
    enough = can_go[segments.size_bytes[can_go] >= lacking_bytes]
    if len(enough):
        best = int(enough[np.argmin(held[enough])])
        yield np.flatnonzero(live & (blocks.segment_id == best))
    by_cost = can_go[np.argsort(held[can_go] / segments.size_bytes[can_go], kind="stable")]
    gained = np.cumsum(segments.size_bytes[by_cost])
    n_needed = int(np.searchsorted(gained, lacking_bytes)) + 1
    if n_needed <= len(by_cost):
        chosen = np.isin(blocks.segment_id, by_cost[:n_needed])
        yield np.flatnonzero(live & chosen)


def _mapped(room: Room, live: BoolArray, config: CachingAllocatorConfig, lacking_bytes: int) -> Iterator[Int64Array]:
    """Blocks of expandable segments whose handles would be unmapped: the smallest one, and the best together."""
    state = room.state
    segments, blocks = state.segments, state.blocks
    segment = blocks.segment_id
    rows = np.flatnonzero(live & segments.is_expandable[segment] & (segments.pool_id[segment] <= 0))
    if not len(rows):
        return
    free = blocks.state == BlockState.INACTIVE
    before = np.maximum(rows - 1, 0)
    after = np.minimum(rows + 1, len(blocks) - 1)
    joins_left = (before != rows) & free[before] & (segment[before] == segment[rows])
    joins_right = (after != rows) & free[after] & (segment[after] == segment[rows])
    begin = np.where(joins_left, blocks.address[before], blocks.address[rows]) - segments.address[segment[rows]]
    finish = blocks.address[rows] + blocks.size_bytes[rows] - segments.address[segment[rows]]
    finish = finish + np.where(joins_right, blocks.size_bytes[after], 0)
    large, small = handle_bytes(True, config), handle_bytes(False, config)
    unit = np.where(segments.is_large[segment[rows]], large, small)
    gain = np.maximum(finish // unit - -(-begin // unit), 0) * unit
    enough = rows[gain >= lacking_bytes]
    if len(enough):
        yield enough[[int(np.argmin(blocks.size_bytes[enough]))]]
    order = np.argsort(blocks.size_bytes[rows] / np.maximum(gain, 1), kind="stable")
    n_needed = int(np.searchsorted(np.cumsum(gain[order]), lacking_bytes)) + 1
    if n_needed <= len(order):
        yield rows[order[:n_needed]]
