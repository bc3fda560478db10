"""What the allocator's reclaim did before a request failed, as far as the events and the state after it tell."""

from __future__ import annotations

import numpy as np

from memscope._core import caching
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import BoolArray, Int64Array

_RECLAIMS = (Action.FREE_COMPLETED, Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)


def reclaimed_rows(lifetimes: DeviceLifetimes, event: int) -> Int64Array:
    """Rows whose delayed free completed, or may have completed, only in the reclaim of an ``oom`` event: int64."""
    trace, state = lifetimes.trace, lifetimes.state_at(event)
    size = int(trace.size_bytes[event])
    own = own_segments(
        state, int(trace.pool_id[event]), int(trace.stream_id[event]), is_large=size > caching.SMALL_BYTES
    )
    rows = completed_before(lifetimes, event)
    return rows[are_late(lifetimes, rows, state, own, size) | was_delayed(lifetimes, rows)]


def own_segments(state: AllocatorState, pool_id: int, stream_id: int, *, is_large: bool) -> BoolArray:
    """Segments of one pool (−1: the default), stream and size class: bool (segments,)."""
    segments = state.segments
    own: BoolArray = np.maximum(segments.pool_id, 0) == max(pool_id, 0)
    own &= (segments.stream_id == stream_id) & (segments.is_large == is_large)
    return own


def completed_before(lifetimes: DeviceLifetimes, event: int) -> Int64Array:
    """Rows whose free completed in the run of reclaim events just before an ``oom``: int64."""
    action = lifetimes.trace.action
    first = event
    while first > lifetimes.first_event and action[first - 1] in _RECLAIMS:
        first -= 1
    table = lifetimes.allocations
    rows: Int64Array = np.flatnonzero((table.free_event >= first) & (table.free_event < event))
    return rows


def was_delayed(lifetimes: DeviceLifetimes, rows: Int64Array) -> BoolArray:
    """Whether something came between the request and the completion of rows' frees: bool (rows,)."""
    table = lifetimes.allocations
    asked = table.free_requested_event[rows]
    delayed: BoolArray = table.is_pending_at_start[rows] | ((asked != NONE_ID) & (table.free_event[rows] - asked > 1))
    return delayed


def unused_pools_at(lifetimes: DeviceLifetimes, event: int) -> Int64Array:
    """Private pools of which a whole segment is unused after an ``oom``: a reclaim left it, so they were in use."""
    state = lifetimes.state_at(event)
    segment = state.blocks.segment_id
    is_whole = state.blocks.size_bytes == state.segments.size_bytes[segment]
    pools = np.unique(state.segments.pool_id[segment[(state.blocks.state == BlockState.INACTIVE) & is_whole]])
    return pools[pools > 0].astype(np.int64)


def are_late(
    lifetimes: DeviceLifetimes, rows: Int64Array, state: AllocatorState, is_own: BoolArray, rounded_bytes: int
) -> BoolArray:
    """Which completed rows lie in a block that is large enough now: bool (rows,).

    A free that nothing delays also ends just before; but then its block was there when the allocator looked.
    """
    table, blocks = lifetimes.allocations, state.blocks
    large = (blocks.state == BlockState.INACTIVE) & is_own[blocks.segment_id] & (blocks.size_bytes >= rounded_bytes)
    begin, end = blocks.address[large], (blocks.address + blocks.size_bytes)[large]
    if not len(begin):
        return np.zeros(len(rows), np.bool_)
    at = np.searchsorted(begin, table.address[rows], side="right") - 1
    inside: BoolArray = (at >= 0) & (table.address[rows] < end[np.maximum(at, 0)])
    return inside
