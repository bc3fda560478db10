"""What the program asked for, taken from a recording: without anything that the allocator decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope._kernels import caching_replay as kernel
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.recording import Recording
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array

_GIVES_BACK = (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)
_TAKES = (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP, Action.OOM)


@dataclass(frozen=True, slots=True)
class Requests:
    """A device's requests, one slot for each of its events.

    Attributes
    ----------
    op, row, dropped_pool
        int64 (n,): see :func:`memscope._kernels.caching_replay.replay_requests`.
    requested_bytes, pair
        int64 (rows,): by allocation; ``pair`` indexes ``pairs``.
    pairs
        Dense pool id and raw stream handle.
    start_rows, start_pending
        Allocations from before the first event, in order of address; bool, whether their free was waiting then.
    notes
        What was assumed, a sentence each.
    is_modelled
        Whether an assumption may change the outcome.
    """

    first_event: int
    op: Int64Array
    row: Int64Array
    dropped_pool: Int64Array
    requested_bytes: Int64Array
    pair: Int64Array
    pairs: list[tuple[int, int]]
    start_rows: Int64Array
    start_pending: np.ndarray[tuple[int], np.dtype[np.bool_]]
    notes: tuple[str, ...]
    is_modelled: bool


def requests_of(lifetimes: DeviceLifetimes) -> Requests:
    """Extract the requests of a device."""
    recording = Recording(lifetimes)
    table = lifetimes.allocations
    notes: list[str] = []
    pool = table.pool_id.astype(np.int64)
    is_modelled = False
    if np.any(pool < 0) and np.any(lifetimes.trace.segments.pool_id > 0):
        notes.append("allocations whose pool was not recorded are taken to be in the default pool")
        is_modelled = True
    pool = np.where(pool < 0, 0, pool)
    pair = recording.dense_pairs(pool, np.maximum(table.stream_id, 0))
    op = _ops(recording)
    row = np.where(np.isin(op, (kernel.OP_EMPTY_CACHE, kernel.OP_NONE)), NONE_ID, recording.row)
    _replay_cache_emptying(recording, op, row, notes)
    start_rows = np.flatnonzero(table.alloc_event == NONE_ID)
    start_rows = start_rows[np.argsort(table.address[start_rows], kind="stable")]
    if len(start_rows):
        notes.append(f"{len(start_rows):,} allocations from before the recording are made first, in order of address")
        is_modelled = True
    n_failed = int(np.count_nonzero(recording.action == Action.OOM))
    if n_failed:
        notes.append(f"{n_failed:,} requests that failed in the recording are not repeated")
    dropped = _dropped_pools(recording, pool)
    if np.any(dropped >= 0):
        notes.append("a private pool is taken to be in use until its last allocation")
        is_modelled = True
    return Requests(
        first_event=recording.first_event,
        op=op,
        row=row,
        dropped_pool=dropped,
        requested_bytes=np.array(table.requested_bytes),
        pair=pair,
        pairs=recording.pairs,
        start_rows=start_rows,
        start_pending=np.array(table.is_pending_at_start[start_rows]),
        notes=tuple(notes),
        is_modelled=is_modelled,
    )


def _ops(recording: Recording) -> Int64Array:
    action, row = recording.action, recording.row
    op = np.full(len(action), kernel.OP_NONE, np.int64)
    op[(action == Action.ALLOC) & (row >= 0)] = kernel.OP_MALLOC
    is_freed = (action == Action.FREE_REQUESTED) & (row >= 0)
    is_complete = (action == Action.FREE_COMPLETED) & (row >= 0)
    if not recording.requests_recorded:
        op[is_complete] = kernel.OP_FREE
        return op
    if not np.any(is_complete):
        op[is_freed] = kernel.OP_FREE
        return op
    op[is_freed] = kernel.OP_FREE_LATER
    op[is_complete] = kernel.OP_COMPLETE
    return op


def _replay_cache_emptying(recording: Recording, op: Int64Array, row: Int64Array, notes: list[str]) -> None:
    """Runs of segments given back that no request explains are the program's own doing; others the allocator's."""
    action = recording.action
    gives = np.isin(action, _GIVES_BACK)
    starts = np.flatnonzero(gives & ~np.concatenate([[False], gives[:-1]]))
    ends = np.flatnonzero(gives & ~np.concatenate([gives[1:], [False]])) + 1
    timeline = recording.lifetimes.timeline
    pool_of_event = dict(zip((timeline.event - recording.first_event).tolist(), timeline.key.tolist(), strict=True))
    n_emptied = n_left_out = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end < len(action) and action[end] in _TAKES and _may_be_retry(recording, start, end):
            n_left_out += 1
            continue
        pools = {_pool_of_freed(recording, pool_of_event, position) for position in range(start, end)}
        n_emptied += 1
        if 0 in pools or len(pools) > 1 or min(pools) < 0:
            op[start], row[start] = kernel.OP_EMPTY_CACHE, NONE_ID
        else:
            op[start], row[start] = kernel.OP_EMPTY_POOL, pools.pop()
    if n_emptied:
        notes.append(f"{n_emptied:,} calls of empty_cache are repeated; those that gave nothing back left no trace")
    if n_left_out:
        notes.append(
            f"{n_left_out:,} reclaims just before a new segment are taken as the allocator's, not the program's"
        )


def _may_be_retry(recording: Recording, start: int, end: int) -> bool:
    """Whether the driver may have refused a request just before a reclaim.

    It could give out at least what was reserved at the highest; a request that stays below that was not refused, so
    that the reclaim was the program's.
    """
    reserved = recording.lifetimes.usage.reserved_bytes
    if recording.action[end] == Action.OOM or reserved is None:
        return True
    return bool(reserved[start] + recording.size_bytes[end] > reserved.max())


def _pool_of_freed(recording: Recording, key_of_event: dict[int, int], position: int) -> int:
    trace = recording.trace
    if trace.metadata.has_pool_ids:
        return int(trace.pool_id[recording.first_event + position])
    key = key_of_event.get(position, NONE_ID)
    return int(recording.lifetimes.timeline.key_pool_id[key]) if key >= 0 else NONE_ID


def _dropped_pools(recording: Recording, pool: Int64Array) -> Int64Array:
    """At the last allocation of each private pool: that pool. Those without any in the events stay in use."""
    dropped = np.full(recording.n_events, NONE_ID, np.int64)
    allocs = np.flatnonzero((recording.action == Action.ALLOC) & (recording.row >= 0))
    of_alloc = pool[recording.row[allocs]]
    for private in np.unique(of_alloc[of_alloc > 0]):
        dropped[allocs[of_alloc == private][-1]] = private
    return dropped
