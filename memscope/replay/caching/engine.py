"""A recording's requests, replayed under other settings or on another device."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from memscope._core import caching
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.fragmentation.metrics import measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.caching.settings import AddressRule, add_pairs, new_allocator
from memscope.replay.caching.state import state_of
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.requests import Requests, requests_of
from memscope.replay.result import DriverCalls, ReplayOom, ReplayResult, UnusedBytes
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.trace.tables import Int8Array, Int32Array, Int64Array, frozen_array


def replay_caching(
    lifetimes: DeviceLifetimes,
    config: CachingAllocatorConfig | None = None,
    limits: Limits = NO_LIMITS,
    *,
    tie_rule: TieRule | None = None,
    address_rule: AddressRule | None = None,
    measures_fragmentation: bool = False,
    keeps_usage: bool = True,
    requests: Requests | None = None,
) -> ReplayResult:
    """Serve a device's recorded requests with PyTorch's caching allocator.

    Parameters
    ----------
    config
        Settings; the recorded ones if not given.
    limits
        What it can have of the device; no limit if not given.
    tie_rule
        The release's rule for equally good blocks; the recorded one if not given.
    measures_fragmentation
        Whether to serve them once more up to the peak, and measure the state there.
    keeps_usage
        Whether the result says what was in use after each event, or only at the peak.
    requests
        Other requests to serve in place of the recorded ones: those, changed.

    Raises
    ------
    UsageError
        If the settings are not covered by the simulator.
    """
    trace = lifetimes.trace
    recorded = CachingAllocatorConfig.from_trace(trace, lifetimes.device)
    # A fraction that the program set by a call is no setting: it stands with the limits.
    conf = (CachingAllocatorConfig.from_trace(trace) if config is None else config).to_conf()
    if config is None:
        config = recorded
        if limits.total_bytes is None:
            # Without a device there is nothing that a fraction could be of.
            config = dataclasses.replace(config, memory_fraction=1.0, throws_on_malloc_oom=False)
    if limits.memory_fraction is not None:
        config = dataclasses.replace(config, memory_fraction=limits.memory_fraction)
    rule = recorded_tie_rule(trace.metadata) if tie_rule is None else tie_rule
    follows = address_rule is None and not config.is_expandable and _alike(config, recorded)
    places = _recorded_places(lifetimes) if follows else None
    if requests is None:
        requests = requests_of(lifetimes)

    def run(n_events: int | None = None, *, keeps_usage: bool) -> _Run:
        allocator = new_allocator(config, limits, tie_rule=rule, address_rule=address_rule)
        if places is not None:
            allocator.place_as(*places)
        add_pairs(allocator, requests.pairs)
        return _run(Serving(allocator, requests), n_events, keeps_usage=keeps_usage)

    whole = run(keeps_usage=keeps_usage)
    fragmentation = None
    if measures_fragmentation:
        n_events = whole.n_events_to_peak
        at_peak = _state_after(lifetimes, requests, run(n_events, keeps_usage=False).allocator, n_events)
        fragmentation = measure_fragmentation(trace, at_peak)
    stats = whole.allocator.stats
    return ReplayResult(
        strategy="caching",
        device=lifetimes.device,
        conf=conf,
        exactness="modelled" if requests.is_modelled else "exact",
        usage=whole.usage,
        peak_reserved_bytes=stats.peak_reserved_bytes,
        peak_active_bytes=stats.peak_active_bytes,
        n_device_allocs=stats.n_device_allocs,
        n_device_frees=stats.n_device_frees,
        n_retries=stats.n_retries,
        n_ooms=stats.n_ooms,
        oom=whole.oom,
        notes=requests.notes,
        driver_calls=_driver_calls(stats),
        unused=whole.unused,
        fragmentation=fragmentation,
    )


def _alike(config: CachingAllocatorConfig, recorded: CachingAllocatorConfig) -> bool:
    """Whether two allocators choose alike, whatever they may take."""
    changes: dict[str, Any] = {"memory_fraction": 1.0, "throws_on_malloc_oom": False}
    return dataclasses.replace(config, **changes) == dataclasses.replace(recorded, **changes)


def _recorded_places(lifetimes: DeviceLifetimes) -> tuple[Int64Array, Int64Array] | None:
    """Sizes and addresses of the segments that a recording made, in order; None where they cannot be followed.

    Of free blocks of one size the one at the lowest address is taken, and where a driver puts segments is its own
    affair: with the recorded places a replay under the recorded settings goes on as the recording did.
    """
    trace = lifetimes.trace
    if np.any(lifetimes.allocations.alloc_event == NONE_ID):
        return None
    here = slice(lifetimes.first_event, lifetimes.end_event)
    is_made = trace.action[here] == Action.SEGMENT_ALLOC
    size, address = trace.size_bytes[here][is_made], trace.address[here][is_made]
    is_possible = (size > 0) & (address >= 0) & (address <= caching.HIGHEST_PLACE - size)
    return (size, address) if len(size) and np.all(is_possible) else None


def _driver_calls(stats: caching.DeviceStats) -> DriverCalls:
    """Each map call creates and maps handle by handle and sets access once; each unmap call waits for its stream."""
    return DriverCalls(
        {
            "cudaMalloc": stats.n_device_allocs - stats.n_map_calls,
            "cudaFree": stats.n_device_frees - stats.n_unmap_calls,
            "cuMemAddressReserve": stats.n_reservations,
            "cuMemAddressFree": stats.n_reservations_dropped,
            "cuMemCreate": stats.n_mapped_handles,
            "cuMemMap": stats.n_mapped_handles,
            "cuMemSetAccess": stats.n_map_calls,
            "cuMemUnmap": stats.n_unmapped_handles,
            "cuMemRelease": stats.n_unmapped_handles,
            "cudaStreamSynchronize": stats.n_unmap_calls,
        }
    )


def _state_after(
    lifetimes: DeviceLifetimes, requests: Requests, allocator: caching.BlockAllocator, n_events: int
) -> AllocatorState:
    handles = lifetimes.trace.stream_handles
    known = {handle: position for position, handle in enumerate(handles.tolist())}
    stream_ids = np.array([known[stream] for _, stream in requests.pairs], np.int32)
    pool_ids = np.array([pool for pool, _ in requests.pairs], np.int32)
    event = requests.first_event + n_events - 1 if n_events else NONE_ID
    return state_of(allocator, stream_ids, pool_ids, device=lifetimes.device, event=event)


class Calls(NamedTuple):
    """What a program asks of an allocator, in order.

    Attributes
    ----------
    op, row
        int8 and int32 (n,): the act (:class:`memscope._core.caching.Op`), and the row of the requests that it is about.
    dropped_pool
        int32 (n,): the pool whose owner is gone after it, −1 for none.
    """

    op: Int8Array
    row: Int32Array
    dropped_pool: Int32Array

    @classmethod
    def without_drops(cls, op: Int8Array, row: Int64Array) -> Calls:
        """Calls after which no pool is dropped."""
        none = np.full(len(op), NONE_ID)
        return cls(frozen_array(op, np.int8), frozen_array(row, np.int32), frozen_array(none, np.int32))

    @classmethod
    def before_the_first_event(cls, requests: Requests) -> Calls:
        """What makes that which stood before the first event: two calls for each allocation."""
        op = np.full((len(requests.start_rows), 2), caching.Op.NONE, np.int8)
        op[:, 0] = caching.Op.MALLOC
        op[requests.start_pending, 1] = caching.Op.FREE_LATER
        return cls.without_drops(op.reshape(-1), np.repeat(requests.start_rows, 2))

    @classmethod
    def of_events(cls, requests: Requests, first: int | None = None, end: int | None = None) -> Calls:
        """What was asked at the recording's events, or at those of ``[first, end)``."""
        start, stop = (None if event is None else event - requests.first_event for event in (first, end))
        within = slice(start, stop)
        return cls(requests.op[within], requests.row[within], requests.dropped_pool[within])


class Served(NamedTuple):
    """What came of some calls.

    Attributes
    ----------
    usage
        int64 (4, n + 1): allocated, active, requested and reserved bytes before the first and after each of the ``n``
        calls that were served or failed; int64 (4, 1), those of the peak, where no others are kept.
    peak_moment
        Which of these moments is the first with the most reserved bytes.
    failed_call
        Position of the call that could not be served; None if all were.
    """

    usage: Int64Array
    peak_moment: int
    unused: UnusedBytes
    failed_call: int | None

    @classmethod
    def of(cls, answer: tuple[Int64Array, int, int, int, int | None]) -> Served:
        """As the core answers."""
        usage, peak_moment, largest, mean, failed_call = answer
        return cls(usage, peak_moment, UnusedBytes(largest, mean), failed_call)


class Serving:
    """A caching allocator at work: it serves one program's calls, batch after batch.

    Parameters
    ----------
    allocator
        It is changed; it has the pools of ``requests.pairs``.
    requests
        Sizes, pools and streams of the rows that calls are about.
    """

    def __init__(self, allocator: caching.DeviceCachingAllocator, requests: Requests) -> None:
        self.allocator = allocator
        self.requests = requests

    @property
    def reserved_bytes(self) -> int:
        """What it has from the driver now."""
        return self.allocator.stats.reserved_bytes

    def limit(self, capacity_bytes: int, cap_bytes: int | None = None) -> None:
        """From now on the driver has so much in all, and PyTorch may reserve at most ``cap_bytes`` of it."""
        self.allocator.capacity_bytes = capacity_bytes
        if cap_bytes is not None:
            self.allocator.allowed_bytes = cap_bytes

    def serve(self, calls: Calls, *, keeps_peak_only: bool = False) -> Served:
        """Serve calls up to the first that fails. O(log n) in the free blocks for each."""
        sizes, pair = self.requests.requested_bytes, self.requests.pair
        return Served.of(self.allocator.serve(*calls, sizes, pair, keeps_peak_only))


class _Run(NamedTuple):
    """A recording's requests, served: the allocator at the end, what was in use, and the request that failed if any.

    ``n_events_to_peak``: until reserved memory is at its peak for the first time.
    """

    allocator: caching.DeviceCachingAllocator
    usage: UsageSeries
    n_events_to_peak: int
    unused: UnusedBytes | None
    oom: ReplayOom | None


def _run(serving: Serving, n_events: int | None = None, *, keeps_usage: bool) -> _Run:
    requests, allocator = serving.requests, serving.allocator
    before = Calls.before_the_first_event(requests)
    failed_call = serving.serve(before, keeps_peak_only=True).failed_call
    if failed_call is not None:
        oom = _oom(allocator, requests, int(before.row[failed_call]), NONE_ID)
        return _Run(allocator, UsageSeries(requests.first_event, *np.zeros((4, 1), np.int64)), 0, None, oom)
    calls = Calls.of_events(requests, end=None if n_events is None else requests.first_event + n_events)
    served = serving.serve(calls, keeps_peak_only=not keeps_usage)
    failed: ReplayOom | None = None
    if served.failed_call is not None:
        row = int(calls.row[served.failed_call])
        failed = _oom(allocator, requests, row, requests.first_event + served.failed_call)
    usage = UsageSeries(requests.first_event + (0 if keeps_usage else served.peak_moment), *served.usage)
    unused = served.unused if len(calls.op) else None
    return _Run(allocator, usage, served.peak_moment, unused, failed)


def _oom(allocator: caching.BlockAllocator, requests: Requests, row: int, event: int) -> ReplayOom:
    blocks, stats = allocator.blocks(), allocator.stats
    free = blocks.size_bytes[blocks.state == caching.BlockState.FREE]
    return ReplayOom(
        event=event,
        requested_bytes=int(requests.requested_bytes[row]),
        free_bytes=allocator.capacity_bytes - allocator.device_used_bytes,
        reserved_free_bytes=stats.reserved_bytes - stats.active_bytes,
        largest_free_block_bytes=int(free.max(initial=0)),
    )


def replay_lower_bound(lifetimes: DeviceLifetimes, limits: Limits = NO_LIMITS) -> ReplayResult:
    """The requested bytes in use at each event: no allocator that does not move memory can reserve less.

    Memory whose free waits for another stream counts as in use, and so does the request whose failure ended the
    recording (as PyTorch recorded it: rounded).

    Raises
    ------
    UsageError
        If no allocation was recorded.
    """
    fatal = lifetimes.fatal_oom_event
    if not len(lifetimes.allocations) and fatal is None:
        raise UsageError(f"device {lifetimes.device} has no allocations to replay")
    requested = lifetimes.usage.requested_bytes
    if fatal is not None:
        requested = np.array(requested)
        requested[lifetimes.usage.index_of(fatal) :] += lifetimes.trace.size_bytes[fatal]
    oom, left = None, limits.left_bytes
    over = np.flatnonzero(requested > left) if left is not None else np.empty(0, np.int64)
    if len(over) and left is not None:
        index = int(over[0])
        before = int(requested[index - 1]) if index else 0
        oom = ReplayOom(lifetimes.usage.event_at(index), int(requested[index]) - before, left - before)
        requested = requested[: index + 1]
    peak = int(requested.max())
    return ReplayResult(
        strategy="lower-bound",
        device=lifetimes.device,
        conf=None,
        exactness="bound",
        usage=UsageSeries(lifetimes.first_event, requested, requested, requested, requested),
        peak_reserved_bytes=peak,
        peak_active_bytes=peak,
        n_device_allocs=None,
        n_device_frees=None,
        n_retries=None,
        unused=UnusedBytes(0, 0) if len(requested) > 1 else None,
        oom=oom,
    )
