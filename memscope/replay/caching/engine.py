"""A recording's requests, replayed under other settings or on another device."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_replay as kernel
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.fragmentation.metrics import measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.caching.arrays import AddressRule, grow, new_arrays, state_of, with_lanes
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.requests import Requests, requests_of
from memscope.replay.result import DriverCalls, ReplayOom, ReplayResult
from memscope.trace.schema import NONE_ID, TieRule
from memscope.trace.tables import Int64Array, frozen_array


def replay_caching(
    lifetimes: DeviceLifetimes,
    config: CachingAllocatorConfig | None = None,
    limits: Limits = NO_LIMITS,
    *,
    tie_rule: TieRule | None = None,
    address_rule: AddressRule | None = None,
    measures_fragmentation: bool = False,
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
    requests
        Other requests to serve in place of the recorded ones: those, changed.

    Raises
    ------
    UsageError
        If the settings are not covered by the simulator.
    """
    trace = lifetimes.trace
    if config is None:
        config = CachingAllocatorConfig.from_trace(trace, lifetimes.device)
        if limits.total_bytes is None:
            # Without a device there is nothing that a fraction could be of.
            config = dataclasses.replace(config, memory_fraction=1.0, throws_on_malloc_oom=False)
    if limits.memory_fraction is not None:
        config = dataclasses.replace(config, memory_fraction=limits.memory_fraction)
    rule = recorded_tie_rule(trace.metadata) if tie_rule is None else tie_rule
    if requests is None:
        requests = requests_of(lifetimes)

    def run(n_events: int | None = None) -> _Run:
        arrays = new_arrays(config, limits, tie_rule=rule, address_rule=address_rule, is_logged=False)
        arrays = with_lanes(arrays, requests.pairs, is_private_releasable=False)
        return _run(Serving(arrays, requests), n_events)

    whole = run()
    fragmentation = None
    if measures_fragmentation:
        n_events = int(np.argmax(whole.usage[kernel.U_RESERVED]))
        fragmentation = measure_fragmentation(trace, _state_after(lifetimes, requests, run(n_events).arrays, n_events))
    counters = whole.arrays.counters.tolist()
    return ReplayResult(
        strategy="caching",
        device=lifetimes.device,
        conf=config.to_conf(),
        exactness="modelled" if requests.is_modelled else "exact",
        usage=_usage_series(whole.usage, requests.first_event),
        peak_reserved_bytes=counters[at.C_PEAK_RESERVED],
        peak_active_bytes=counters[at.C_PEAK_ACTIVE],
        n_device_allocs=counters[at.C_N_DEVICE_ALLOCS],
        n_device_frees=counters[at.C_N_DEVICE_FREES],
        n_retries=counters[at.C_N_RETRIES],
        oom=whole.oom,
        notes=requests.notes,
        driver_calls=_driver_calls(counters),
        fragmentation=fragmentation,
    )


def _driver_calls(counters: list[int]) -> DriverCalls:
    """Each map call creates and maps handle by handle and sets access once; each unmap call waits for its stream."""
    n_maps, n_unmaps = counters[at.C_N_MAP_CALLS], counters[at.C_N_UNMAP_CALLS]
    return DriverCalls(
        {
            "cudaMalloc": counters[at.C_N_DEVICE_ALLOCS] - n_maps,
            "cudaFree": counters[at.C_N_DEVICE_FREES] - n_unmaps,
            "cuMemAddressReserve": counters[at.C_N_RESERVATIONS],
            "cuMemAddressFree": counters[at.C_N_RESERVATIONS_DROPPED],
            "cuMemCreate": counters[at.C_N_MAPPED_HANDLES],
            "cuMemMap": counters[at.C_N_MAPPED_HANDLES],
            "cuMemSetAccess": n_maps,
            "cuMemUnmap": counters[at.C_N_UNMAPPED_HANDLES],
            "cuMemRelease": counters[at.C_N_UNMAPPED_HANDLES],
            "cudaStreamSynchronize": n_unmaps,
        }
    )


def _state_after(
    lifetimes: DeviceLifetimes, requests: Requests, arrays: at.CachingArrays, n_events: int
) -> AllocatorState:
    handles = lifetimes.trace.stream_handles
    known = {handle: position for position, handle in enumerate(handles.tolist())}
    stream_ids = np.array([known[stream] for _, stream in requests.pairs], np.int32)
    pool_ids = np.array([pool for pool, _ in requests.pairs], np.int32)
    event = requests.first_event + n_events - 1 if n_events else NONE_ID
    return state_of(arrays, stream_ids, pool_ids, device=lifetimes.device, event=event)


class Calls(NamedTuple):
    """What a program asks of an allocator, in order.

    Attributes
    ----------
    op, row
        int64 (n,): the act (``OP_*`` of the kernel), and the row of the requests that it is about.
    dropped_pool
        int64 (n,): the pool whose owner is gone after it, −1 for none.
    """

    op: Int64Array
    row: Int64Array
    dropped_pool: Int64Array

    @classmethod
    def without_drops(cls, op: Int64Array, row: Int64Array) -> Calls:
        """Calls after which no pool is dropped."""
        none = np.full(len(op), NONE_ID)
        return cls(frozen_array(op, np.int64), frozen_array(row, np.int64), frozen_array(none, np.int64))

    @classmethod
    def before_the_first_event(cls, requests: Requests) -> Calls:
        """What makes that which stood before the first event: two calls for each allocation."""
        op = np.full((len(requests.start_rows), 2), kernel.OP_NONE)
        op[:, 0] = kernel.OP_MALLOC
        op[requests.start_pending, 1] = kernel.OP_FREE_LATER
        return cls.without_drops(op.reshape(-1), np.repeat(requests.start_rows, 2))

    @classmethod
    def of_events(cls, requests: Requests, n_events: int | None = None) -> Calls:
        """What was asked at the recording's events, or at the first so many of them."""
        until = slice(n_events)
        return cls(requests.op[until], requests.row[until], requests.dropped_pool[until])


class Served(NamedTuple):
    """What came of some calls.

    Attributes
    ----------
    usage
        int64 (4, n + 1): what was in use before the first and after each of the ``n`` calls that were served or failed.
    failed_call
        Position of the call that could not be served; None if all were.
    """

    usage: Int64Array
    failed_call: int | None


class Serving:
    """A caching allocator at work: it serves one program's calls, batch after batch.

    Parameters
    ----------
    arrays
        Its state; it is changed, and made anew where there is no more room in it.
    requests
        Sizes, pools and streams of the rows that calls are about.
    block_of_row
        int64 (rows,): the blocks of rows that stand in ``arrays`` already, −1 for none.
    """

    def __init__(self, arrays: at.CachingArrays, requests: Requests, block_of_row: Int64Array | None = None) -> None:
        n_rows = len(requests.requested_bytes)
        self.arrays = arrays
        self.requests = requests
        self._block_of_row = np.full(n_rows, NONE_ID, np.int64) if block_of_row is None else block_of_row
        self._sync_of_row = np.zeros(n_rows, np.int64)

    @property
    def reserved_bytes(self) -> int:
        """What it has from the driver now."""
        return int(self.arrays.counters[at.C_RESERVED])

    def limit(self, capacity_bytes: int, cap_bytes: int | None = None) -> None:
        """From now on the driver has so much in all, and PyTorch may reserve at most ``cap_bytes`` of it."""
        self.arrays.config[at.CFG_CAPACITY] = capacity_bytes
        if cap_bytes is not None:
            self.arrays.config[at.CFG_LIMIT] = cap_bytes

    def serve(self, calls: Calls) -> Served:
        """Serve calls up to the first that fails. O(log n) in the free blocks for each."""
        usage = np.zeros((kernel.N_USAGE, len(calls.op) + 1), np.int64)
        position, status = 0, at.STATUS_GROW
        while status == at.STATUS_GROW:
            position, status = kernel.replay_requests(
                self.arrays,
                *calls,
                self.requests.requested_bytes,
                self.requests.pair,
                self._block_of_row,
                self._sync_of_row,
                usage,
                position,
            )
            if status == at.STATUS_GROW:
                self.arrays = grow(self.arrays)
        if status == at.STATUS_OOM:
            return Served(usage[:, : position + 2], position)
        return Served(usage, None)


class _Run(NamedTuple):
    """A recording's requests, served: the allocator at the end, what was in use, and the request that failed if any."""

    arrays: at.CachingArrays
    usage: Int64Array
    oom: ReplayOom | None


def _run(serving: Serving, n_events: int | None = None) -> _Run:
    requests = serving.requests
    before = Calls.before_the_first_event(requests)
    start = serving.serve(before)
    if start.failed_call is not None:
        oom = _oom(serving.arrays, requests, int(before.row[start.failed_call]), NONE_ID)
        return _Run(serving.arrays, np.zeros((kernel.N_USAGE, 1), np.int64), oom)
    calls = Calls.of_events(requests, n_events)
    usage, failed_call = serving.serve(calls)
    usage[:, 0] = start.usage[:, -1]
    failed: ReplayOom | None = None
    if failed_call is not None:
        failed = _oom(serving.arrays, requests, int(calls.row[failed_call]), requests.first_event + failed_call)
    return _Run(serving.arrays, usage, failed)


def _oom(arrays: at.CachingArrays, requests: Requests, row: int, event: int) -> ReplayOom:
    free = arrays.blocks[arrays.blocks[:, at.B_STATE] == at.FREE, at.B_SIZE]
    return ReplayOom(
        event=event,
        requested_bytes=int(requests.requested_bytes[row]),
        free_bytes=int(arrays.config[at.CFG_CAPACITY] - arrays.counters[at.C_DEVICE_USED]),
        reserved_free_bytes=int(arrays.counters[at.C_RESERVED] - arrays.counters[at.C_ACTIVE]),
        largest_free_block_bytes=int(free.max(initial=0)),
    )


def _usage_series(usage: Int64Array, first_event: int) -> UsageSeries:
    return UsageSeries(
        first_event=first_event,
        allocated_bytes=usage[kernel.U_ALLOCATED],
        active_bytes=usage[kernel.U_ACTIVE],
        requested_bytes=usage[kernel.U_REQUESTED],
        reserved_bytes=usage[kernel.U_RESERVED],
    )


def replay_lower_bound(lifetimes: DeviceLifetimes, limits: Limits = NO_LIMITS) -> ReplayResult:
    """The requested bytes in use at each event: no allocator that does not move memory can reserve less.

    Memory whose free waits for another stream counts as in use.

    Raises
    ------
    UsageError
        If no allocation was recorded.
    """
    table = lifetimes.allocations
    if not len(table):
        raise UsageError(f"device {lifetimes.device} has no allocations to replay")
    requested = lifetimes.usage.requested_bytes
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
        oom=oom,
    )
