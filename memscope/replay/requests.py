"""What the program asked for, taken from a recording: without anything that the allocator decided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np

from memscope._core import caching
from memscope.device.limits import available_bytes, recorded_limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.reclaims import GivenBack, given_back
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.failures import reclaimed_rows, unused_pools_at
from memscope.replay.recording import Recording
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int8Array, Int32Array, Int64Array, frozen_array
from memscope.units import format_items


@dataclass(frozen=True, slots=True)
class Requests:
    """A device's requests, one slot for each of its events; every array is read-only.

    Attributes
    ----------
    op
        int8 (n,): what the program did at each event, by :class:`memscope._core.caching.Op`.
    row
        int32 (n,): the allocation that it is about; for ``EMPTY_POOL``, the pool.
    dropped_pool
        int32 (n,): pool whose owner is gone after an event, −1 for none.
    requested_bytes, pair
        int64 (rows + failed,): by allocation, then by request that failed; ``pair`` indexes ``pairs``.
    pairs
        Dense pool id and raw stream handle.
    start_rows, start_pending
        Allocations from before the first event, in order of address; bool, whether their free was waiting then.
    notes
        What was assumed, a sentence each.
    is_modelled
        Whether an assumption may change the outcome.
    fatal_event
        The request whose failure ended the recording: it is the last one here. None if there was none.
    """

    first_event: int
    op: Int8Array
    row: Int32Array
    dropped_pool: Int32Array
    requested_bytes: Int64Array
    pair: Int64Array
    pairs: list[tuple[int, int]]
    start_rows: Int64Array
    start_pending: BoolArray
    notes: tuple[str, ...]
    is_modelled: bool
    fatal_event: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "op", frozen_array(self.op, np.int8))
        for name in ("row", "dropped_pool"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int32))
        for name in ("requested_bytes", "pair", "start_rows"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))
        object.__setattr__(self, "start_pending", frozen_array(self.start_pending, np.bool_))

    def completing_frees(self) -> Requests:
        """The same, with every free complete when it is asked for."""
        op = np.array(self.op)
        op[op == caching.Op.FREE_LATER] = caching.Op.FREE
        op[op == caching.Op.COMPLETE] = caching.Op.NONE
        return replace(self, op=op, start_pending=np.zeros(len(self.start_pending), np.bool_))


@dataclass(frozen=True, slots=True)
class Reclaims:
    """Runs of segments, or parts of them, given back one after the other; every array is by run.

    Attributes
    ----------
    start, end
        int64 (m,): half-open ranges of events.
    given_bytes
        int64 (m,): bytes given back.
    is_retry
        bool (m,): the allocator's own doing, to serve the request that follows; else the program's ``empty_cache``.
    is_doubtful
        bool (m,): taken as a retry, but may have been the program's.
    is_garbage
        bool (m,): what ``garbage_collection_threshold`` has the allocator give back before it asks the driver.
    has_failed
        bool (m,): the request that follows was refused all the same.
    """

    start: Int64Array
    end: Int64Array
    given_bytes: Int64Array
    is_retry: BoolArray
    is_doubtful: BoolArray
    is_garbage: BoolArray
    has_failed: BoolArray


_kept: WeakKeyDictionary[DeviceLifetimes, Requests] = WeakKeyDictionary()
_kept_lock = Lock()


def requests_of(lifetimes: DeviceLifetimes) -> Requests:
    """The requests of a device: found once, and kept for as long as its lifetimes are."""
    with _kept_lock:
        requests = _kept.get(lifetimes)
    if requests is None:
        # Two threads may both come here: they find the same, and the first one's is kept.
        found = _find_requests(lifetimes)
        with _kept_lock:
            requests = _kept.setdefault(lifetimes, found)
    return requests


def _find_requests(lifetimes: DeviceLifetimes) -> Requests:
    recording = Recording(lifetimes)
    table = lifetimes.allocations
    notes: list[str] = []
    pool = table.pool_id.astype(np.int64)
    is_modelled = not lifetimes.trace.metadata.is_of_pytorch
    if is_modelled:
        notes.append("these are another allocator's requests: nothing tells that PyTorch would be asked for the same")
    if np.any(pool < 0) and np.any(lifetimes.trace.segments.pool_id > 0):
        notes.append("allocations whose pool was not recorded are taken to be in the default pool")
        is_modelled = True
    pool = np.where(pool < 0, 0, pool)
    pair = recording.dense_pairs(pool, np.maximum(table.stream_id, 0))
    op = _ops(recording)
    row = recording.row.astype(np.int32)
    row[op == caching.Op.NONE] = NONE_ID
    is_modelled |= _replay_cache_emptying(recording, op, row, notes)
    start_rows = np.flatnonzero(table.alloc_event == NONE_ID)
    start_rows = start_rows[np.argsort(table.address[start_rows], kind="stable")]
    if len(start_rows):
        made = format_items(len(start_rows), "allocation")
        notes.append(f"made first, in order of address: {made} from before the recording")
        is_modelled = True
    failed, fatal = lifetimes.oom_events, lifetimes.fatal_oom_event
    failed_pair = _repeat_failed(recording, op, row)
    n_survived = len(failed) - (fatal is not None)
    if n_survived:
        notes.append(
            f"tried, and given back at once where served: {format_items(n_survived, 'request')} that failed in the "
            "recording and did not end it"
        )
    if fatal is not None:
        notes.append("the request whose failure ended the recording is the last one served")
    dropped = _dropped_pools(recording, pool)
    if np.any(dropped >= 0):
        notes.append("a private pool is taken to be in use until its last allocation")
        is_modelled = True
    return Requests(
        first_event=recording.first_event,
        op=op,
        row=row,
        dropped_pool=dropped,
        requested_bytes=np.append(table.requested_bytes, lifetimes.trace.size_bytes[failed]),
        pair=np.append(pair, failed_pair),
        pairs=recording.pairs,
        start_rows=start_rows,
        start_pending=np.array(table.is_pending_at_start[start_rows]),
        notes=tuple(notes),
        is_modelled=is_modelled,
        fatal_event=fatal,
    )


def _repeat_failed(recording: Recording, op: Int8Array, row: Int32Array) -> Int64Array:
    """Make calls of the requests that failed, whose rows come after the allocations'; their pairs: int64 (failed,)."""
    lifetimes, trace = recording.lifetimes, recording.trace
    events = lifetimes.oom_events
    at = events - lifetimes.first_event
    op[at] = caching.Op.TRY
    row[at] = len(lifetimes.allocations) + np.arange(len(at))
    fatal = lifetimes.fatal_oom_event
    if fatal is not None:
        op[fatal - lifetimes.first_event] = caching.Op.MALLOC
        # These wait until the reclaim of the request, which completes them in a replay too.
        waiting = reclaimed_rows(lifetimes, fatal)
        op[lifetimes.allocations.free_event[waiting] - lifetimes.first_event] = caching.Op.NONE
    pool, stream_id = trace.pool_id[events].astype(np.int64), trace.stream_id[events]
    return recording.dense_pairs(np.maximum(pool, 0), np.maximum(stream_id, 0))


def _ops(recording: Recording) -> Int8Array:
    of_action = np.full(max(Action) + 1, caching.Op.NONE, np.int8)
    of_action[Action.ALLOC] = caching.Op.MALLOC
    if not recording.requests_recorded:
        of_action[Action.FREE_COMPLETED] = caching.Op.FREE
    elif not np.any((recording.action == Action.FREE_COMPLETED) & (recording.row >= 0)):
        of_action[Action.FREE_REQUESTED] = caching.Op.FREE
    else:
        of_action[Action.FREE_REQUESTED] = caching.Op.FREE_LATER
        of_action[Action.FREE_COMPLETED] = caching.Op.COMPLETE
    op: Int8Array = of_action[recording.action]
    op[recording.row < 0] = caching.Op.NONE
    return op


def _replay_cache_emptying(recording: Recording, op: Int8Array, row: Int32Array, notes: list[str]) -> bool:
    """Runs of segments given back that no request explains are the program's own doing; others the allocator's.

    Returns whether any of them could have been either.
    """
    runs = given_back(recording.lifetimes)
    if not len(runs.position):
        return False
    start, (is_retry, is_doubtful) = runs.start, _may_be_retry(recording.lifetimes, runs)
    pool = _pool_of_given(recording, runs.position)
    first_of_run = np.flatnonzero(runs.begins)
    lowest, highest = np.minimum.reduceat(pool, first_of_run), np.maximum.reduceat(pool, first_of_run)
    is_one_pool = (lowest == highest) & (lowest > 0)
    op[start[~is_retry]] = np.where(is_one_pool, caching.Op.EMPTY_POOL, caching.Op.EMPTY_CACHE)[~is_retry]
    row[start[~is_retry]] = np.where(is_one_pool, lowest, NONE_ID)[~is_retry]
    n_left_out = int(np.count_nonzero(is_retry))
    n_emptied = len(start) - n_left_out
    if n_emptied:
        calls = format_items(n_emptied, "call")
        notes.append(f"repeated: {calls} of empty_cache; those that gave nothing back left no trace")
    if n_left_out:
        reclaims = format_items(n_left_out, "reclaim")
        notes.append(f"taken as the allocator's, not the program's: {reclaims} just before a new segment")
    return bool(np.any(is_doubtful))


def find_reclaims(lifetimes: DeviceLifetimes) -> Reclaims:
    """Every run of memory given back by a device, and who gave it. Linear in the events."""
    first, runs = lifetimes.first_event, given_back(lifetimes)
    is_retry, is_doubtful = _may_be_retry(lifetimes, runs)
    is_garbage = is_retry & _collects(lifetimes, runs)
    failed = _failed_after(lifetimes, runs)
    return Reclaims(runs.start + first, runs.end + first, runs.given_bytes, is_retry, is_doubtful, is_garbage, failed)


def _failed_after(lifetimes: DeviceLifetimes, runs: GivenBack) -> BoolArray:
    """Whether a request is refused just after each run: bool (m,)."""
    is_last = runs.end == lifetimes.n_events
    next_event = lifetimes.first_event + runs.end - is_last
    failed: BoolArray = ~is_last & (lifetimes.trace.action[next_event] == Action.OOM)
    return failed


def _may_be_retry(lifetimes: DeviceLifetimes, runs: GivenBack) -> tuple[BoolArray, BoolArray]:
    """Whether the driver may have refused a request just before each run of memory given back.

    It could give out at least what was reserved at the highest: a request that stays below that was not refused, so
    that the reclaim was the program's; and so it was where what was given back would have served the request. What lies
    above the device's memory was refused. In between it can be either: that is the second answer.

    Where garbage is collected, a request above the threshold gives memory back before the driver is asked.
    """
    failed = _failed_after(lifetimes, runs)
    takes: BoolArray = np.array(runs.takes)
    reserved = lifetimes.usage.reserved_bytes
    if reserved is None or not np.any(takes):
        return takes, takes & ~failed
    collects = _collects(lifetimes, runs)
    takes &= failed | collects | ((runs.wanted_bytes > reserved.max()) & ~runs.had_room)
    most = available_bytes(lifetimes)
    is_certain = failed | collects
    if most is not None:
        is_certain |= runs.wanted_bytes > most
    return takes, takes & ~is_certain


def _collects(lifetimes: DeviceLifetimes, runs: GivenBack) -> BoolArray:
    """Whether a request that no block serves frees unused segments, with what was reserved before runs: bool (m,)."""
    config = CachingAllocatorConfig.from_trace(lifetimes.trace, lifetimes.device)
    cap = recorded_limits(lifetimes).cap_bytes(config.memory_fraction)
    reserved = lifetimes.usage.reserved_bytes
    if cap is None or reserved is None or config.gc_threshold_frac <= 0:
        return np.zeros(len(runs.start), np.bool_)
    found: BoolArray = runs.takes & (reserved[runs.start] > int(config.gc_threshold_frac * cap))
    return found


def _pool_of_given(recording: Recording, position: Int64Array) -> Int64Array:
    """Pool of each segment given back, −1 where it is not known: int64 (m,)."""
    trace, timeline = recording.trace, recording.lifetimes.timeline
    event = recording.first_event + position
    if trace.metadata.has_pool_ids:
        return trace.pool_id[event].astype(np.int64)
    if not len(timeline.event):
        return np.full(len(event), NONE_ID, np.int64)
    at = np.minimum(np.searchsorted(timeline.event, event), len(timeline.event) - 1)
    key = np.where(timeline.event[at] == event, timeline.key[at], NONE_ID)
    return np.where(key >= 0, timeline.key_pool_id[key], NONE_ID).astype(np.int64)


def _dropped_pools(recording: Recording, pool: Int64Array) -> Int32Array:
    """At the last allocation of each private pool: that pool. Those without any in the events stay in use."""
    dropped = np.full(recording.n_events, NONE_ID, np.int32)
    alloc = np.flatnonzero((recording.action == Action.ALLOC) & (recording.row >= 0))
    of_alloc = pool[recording.row[alloc]]
    private = of_alloc > 0
    if np.any(private):
        last = np.full(int(of_alloc.max()) + 1, NONE_ID, np.int64)
        np.maximum.at(last, of_alloc[private], alloc[private])
        used = np.flatnonzero(last >= 0)
        dropped[last[used]] = used
        fatal = recording.lifetimes.fatal_oom_event
        if fatal is not None:
            dropped[np.isin(dropped, unused_pools_at(recording.lifetimes, fatal))] = NONE_ID
    return dropped
