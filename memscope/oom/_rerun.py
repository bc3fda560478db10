"""Replaying a recording up to its failed request, and the request itself, with one thing changed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from memscope._core import caching
from memscope.device.limits import Limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.oom._causes import Situation
from memscope.oom.room import Room
from memscope.replay.caching.engine import Calls, Serving
from memscope.replay.caching.settings import add_pairs, new_allocator
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.failures import unused_pools_at
from memscope.replay.recording import Recording
from memscope.replay.requests import Requests, requests_of
from memscope.trace import schema
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, MarkTable, OwnerTable, SampleTable, frozen_array
from memscope.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Change:
    """What is different in a replay; the defaults are the recording as it was.

    Attributes
    ----------
    conf
        Allocator settings from the start, None for the recorded ones.
    freed_rows
        Allocations freed just before the failed request.
    scale_frac, scaled_rows
        Requests made smaller from the start, by this share.
    more_bytes
        Memory that the device has more, from the start.
    cap_bytes
        Cap on reserved memory at the failed request, in place of the one in force then; None leaves that.
    completes_frees
        Whether every free completes when it is asked for.
    uses_pools
        Whether private pools are used at all; without, their requests go to the default pool.
    """

    conf: str | None = None
    freed_rows: Int64Array | None = None
    scale_frac: float = 0.0
    scaled_rows: Int64Array | None = None
    more_bytes: int = 0
    cap_bytes: int | None = None
    completes_frees: bool = False
    uses_pools: bool = True


@dataclass(frozen=True, slots=True)
class RerunOutcome:
    """What became of the failed request in a replay.

    ``failed_event`` is where it ended early, None if the replay came as far as the request; ``reserved_bytes`` is what
    was reserved after it.
    """

    is_served: bool
    failed_event: int | None
    reserved_bytes: int


_TRIED = np.array([caching.Op.MALLOC, caching.Op.FREE], np.int8)


class Reach(NamedTuple):
    """How far a replay comes that goes on after the failed request.

    ``n_events`` are those that the recording has after it; ``failed_event`` is the first of them that asks for memory
    and does not get it, None if none does.
    """

    n_events: int
    failed_event: int | None


class Rerun:
    """A device's requests up to one failed request, ready to be served again.

    Parameters
    ----------
    situation
        The device, the request that failed, what PyTorch could have had, the state then, and the recorded settings.

    Raises
    ------
    UsageError
        When serving, if the simulator does not cover the settings.
    """

    def __init__(self, situation: Situation) -> None:
        self._s = situation
        self._requests = _until(situation)
        self._tie_rule = recorded_tie_rule(situation.device.trace.metadata)

    @property
    def is_modelled(self) -> bool:
        """Whether assumptions about the recording may change the outcome."""
        return self._requests.is_modelled

    @property
    def notes(self) -> tuple[str, ...]:
        """Those assumptions, a sentence each."""
        return self._requests.notes

    @property
    def request_row(self) -> int:
        """The failed request among the requests."""
        return len(self._requests.requested_bytes) - 1

    def serve(self, change: Change | None = None) -> RerunOutcome:
        """Serve everything up to the failed request, and then the request, under a change. Linear in the events."""
        change = Change() if change is None else change
        serving, failed_event = self._begun(change)
        if failed_event is not None:
            return RerunOutcome(False, failed_event, serving.reserved_bytes)
        capacity, _ = self._capacities(self._settings(change))
        if change.cap_bytes is None:
            serving.limit(capacity + change.more_bytes)
        else:
            serving.limit(self._driver_bytes(), change.cap_bytes)
        last = serving.serve(_last_calls(change.freed_rows, self.request_row))
        return RerunOutcome(last.failed_call is None, None, serving.reserved_bytes)

    def reach(self, conf: str) -> Reach:
        """Serve everything under other settings, and go on after the failed request to the recording's end.

        The request is given back at once: what follows in the recording is what the program did without it. Requests
        that failed later are tried as well.
        """
        lifetimes, first = self._s.device.lifetimes, self._requests.first_event
        n_events = lifetimes.last_event - self._s.request.event
        serving, failed_event = self._begun(Change(conf=conf))
        if failed_event is not None:
            return Reach(n_events, failed_event)
        reserved = lifetimes.usage.reserved_bytes
        assert reserved is not None
        capacity, _ = self._capacities(self._settings(Change(conf=conf)))
        serving.limit(max(capacity, int(reserved.max())))  # the device had at least what was reserved later
        events, recorded = lifetimes.oom_events, requests_of(lifetimes)
        later = [*events[events >= self._s.request.event].tolist(), lifetimes.end_event]
        for event, stop in pairwise(later):
            tried = np.full(2, recorded.row[event - first], np.int64)
            if serving.serve(Calls.without_drops(_TRIED, tried), keeps_peak_only=True).failed_call is not None:
                return Reach(n_events, event)
            failed_call = serving.serve(Calls.of_events(recorded, event + 1, stop), keeps_peak_only=True).failed_call
            if failed_call is not None:
                return Reach(n_events, event + 1 + failed_call)
        return Reach(n_events, None)

    def _begun(self, change: Change) -> tuple[Serving, int | None]:
        """Everything before the failed request, served under a change; the event at which that ended early, or None."""
        requests, config = self._changed(change), self._settings(change)
        capacity, total = self._capacities(config)
        allocator = new_allocator(config, Limits(total), tie_rule=self._tie_rule)
        add_pairs(allocator, requests.pairs)
        serving = Serving(allocator, requests)
        serving.limit(max(capacity, self._peak_bytes()) + change.more_bytes)
        if serving.serve(Calls.before_the_first_event(requests), keeps_peak_only=True).failed_call is not None:
            return serving, NONE_ID
        failed_call = serving.serve(Calls.of_events(requests), keeps_peak_only=True).failed_call
        return serving, None if failed_call is None else requests.first_event + failed_call

    def _peak_bytes(self) -> int:
        """The most that was reserved by the time of the request: the device had it then, whatever it had later."""
        usage = self._s.device.lifetimes.usage
        assert usage.reserved_bytes is not None
        return int(usage.reserved_bytes[: usage.index_of(self._s.request.event) + 1].max())

    def _driver_bytes(self) -> int:
        """What the driver could have given PyTorch in all at the request."""
        free = self._s.limit.device_free_bytes
        if free is not None:
            return self._s.room.state.reserved_bytes + free
        total = self._s.limit.total_bytes
        return self._s.limit.low_bytes if total is None or not self._s.limit.refused_by_cap else total

    def _capacities(self, config: CachingAllocatorConfig) -> tuple[int, int]:
        """What the driver can give out at the request, and the device total that a fraction is of."""
        limit, driver = self._s.limit, self._driver_bytes()
        if limit.total_bytes is not None:
            capped = limit.low_bytes if limit.refused_by_cap and limit.cap_bytes is None else driver
            return capped, limit.total_bytes
        if config.memory_fraction < 1:
            # The least device of which this fraction is what was seen to be granted.
            total = int(np.ceil(limit.low_bytes / config.memory_fraction))
            return max(driver, total), total
        return (limit.low_bytes, max(driver, limit.low_bytes)) if limit.refused_by_cap else (driver, driver)

    def _settings(self, change: Change) -> CachingAllocatorConfig:
        if change.conf is None:
            config = self._s.config
        else:
            config = CachingAllocatorConfig.parse(change.conf, tie_rule=self._tie_rule)
            if config.memory_fraction == 1.0:
                config = dataclasses.replace(config, memory_fraction=self._s.config.memory_fraction)
        return dataclasses.replace(config, throws_on_malloc_oom=False)

    def _changed(self, change: Change) -> Requests:
        requests = self._requests
        if change.scaled_rows is not None:
            sizes = np.array(requests.requested_bytes)
            kept = sizes[change.scaled_rows].astype(np.float64) * (1 - change.scale_frac)
            sizes[change.scaled_rows] = np.maximum(kept.astype(np.int64), 1)
            requests = dataclasses.replace(requests, requested_bytes=sizes)
        if change.completes_frees:
            requests = requests.completing_frees()
        if not change.uses_pools:
            pairs = [(0, stream) for _, stream in requests.pairs]
            distinct = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
            to = np.array([distinct[pair] for pair in pairs], np.int64)
            requests = dataclasses.replace(requests, pairs=list(distinct), pair=to[requests.pair])
        return requests


def _last_calls(freed_rows: Int64Array | None, request_row: int) -> Calls:
    """The end of a replay: rows freed, then the failed request."""
    freed = np.empty(0, np.int64) if freed_rows is None else freed_rows
    op = np.append(np.full(len(freed), caching.Op.FREE, np.int8), np.int8(caching.Op.MALLOC))
    return Calls.without_drops(op, np.append(freed, request_row))


def _until(situation: Situation) -> Requests:
    """The requests before an ``oom`` event, and the one that failed as a last row.

    Requests that failed earlier made the allocator give everything back: their reclaims are repeated. Private pools
    whose unused segments outlived the last reclaim were in use.
    """
    lifetimes, request, room = situation.device.lifetimes, situation.request, situation.room
    requests = requests_of(lifetimes)
    n = request.event - lifetimes.first_event
    op, dropped = np.array(requests.op[:n]), np.array(requests.dropped_pool[:n])
    row = np.array(requests.row[:n])
    earlier = lifetimes.oom_events - lifetimes.first_event
    earlier = earlier[earlier < n]
    op[earlier] = caching.Op.EMPTY_CACHE
    row[earlier] = NONE_ID
    # These wait until the reclaim of the failed request, which completes them in a replay too.
    op[lifetimes.allocations.free_event[room.reclaimed_rows] - lifetimes.first_event] = caching.Op.NONE
    dropped[np.isin(dropped, unused_pools_at(lifetimes, request.event))] = NONE_ID
    pair = (max(request.pool_id, 0), request.stream)
    pairs = list(requests.pairs) if pair in requests.pairs else [*requests.pairs, pair]
    return dataclasses.replace(
        requests,
        op=op,
        row=row,
        dropped_pool=dropped,
        requested_bytes=np.append(requests.requested_bytes, request.rounded_bytes),
        pair=np.append(requests.pair, pairs.index(pair)),
        pairs=pairs,
    )


class Restart:
    """An allocator that stands where the recorded one stood when a request failed.

    Parameters
    ----------
    situation
        The device, the request that failed, what PyTorch could have had, the state then, and the recorded settings.

    Raises
    ------
    UsageError
        If the simulator does not cover the settings.
    """

    def __init__(self, situation: Situation) -> None:
        self._s = situation
        self._config = dataclasses.replace(situation.config, throws_on_malloc_oom=False, memory_fraction=1.0)
        frozen = _frozen_trace(situation.device.trace, situation.room)
        self._start = Recording(DeviceLifetimes(frozen, situation.device.index))
        self._tie_rule = recorded_tie_rule(situation.device.trace.metadata)

    def serve(self, change: Change) -> RerunOutcome:
        """Serve the request under a change of blocks, of memory or of the cap; other changes are not for this."""
        free = self._s.limit.device_free_bytes
        driver = self._s.limit.low_bytes if free is None else self._s.room.state.reserved_bytes + free
        capacity = (self._s.limit.low_bytes if change.cap_bytes is None else driver) + change.more_bytes
        total = max(capacity, self._s.room.state.reserved_bytes)
        if self._s.limit.total_bytes is not None:
            total = max(total, self._s.limit.total_bytes)
        allocator = new_allocator(self._config, Limits(total), tie_rule=self._tie_rule)
        pair = (max(self._s.request.pool_id, 0), self._s.request.stream)
        if pair not in self._start.pairs:
            self._start.pairs.append(pair)
        self._start.start(allocator)
        for pool in allocator.pools:
            pool.is_releasable = pool.pool_id == 0
        calls = _last_calls(self._rows(change.freed_rows), len(self._start.lifetimes.allocations))
        serving = Serving(allocator, self._requests(calls, pair))
        serving.limit(capacity, change.cap_bytes)
        return RerunOutcome(serving.serve(calls).failed_call is None, None, serving.reserved_bytes)

    def _rows(self, rows: Int64Array | None) -> Int64Array:
        """Rows of the state's own table for rows of the device's, by where they lie."""
        if rows is None or not len(rows):
            return np.empty(0, np.int64)
        state, table = self._s.room.state, self._start.lifetimes.allocations
        address = state.blocks.address[np.isin(state.allocation_ids, rows)]
        found: Int64Array = np.flatnonzero(np.isin(table.address, address))
        return found

    def _requests(self, calls: Calls, pair: tuple[int, int]) -> Requests:
        """The rows that stand, and the failed request as a last one."""
        table = self._start.lifetimes.allocations
        n_rows = len(table)
        pairs = self._start.pairs
        return Requests(
            first_event=0,
            op=calls.op,
            row=calls.row,
            dropped_pool=calls.dropped_pool,
            requested_bytes=np.append(table.requested_bytes, self._s.request.rounded_bytes),
            pair=np.append(np.zeros(n_rows, np.int64), pairs.index(pair)),
            pairs=pairs,
            start_rows=frozen_array([], np.int64),
            start_pending=frozen_array([], np.bool_),
            notes=(),
            is_modelled=False,
        )


def _frozen_trace(trace: Trace, room: Room) -> Trace:
    """A trace of no events whose final state is the one at the failure."""
    none: dict[str, Any] = {name: np.empty(0, dtype) for name, dtype in schema.EVENT_COLUMNS.items()}
    return dataclasses.replace(
        trace,
        **none,
        segments=room.state.segments,
        blocks=room.state.blocks,
        samples=SampleTable.empty(),
        marks=MarkTable.empty(),
        owners=OwnerTable.empty(),
    )
