"""A recording's requests, replayed under other settings or on another device."""

from __future__ import annotations

import dataclasses

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
from memscope.replay.driver_calls import DriverCalls
from memscope.replay.requests import Requests, requests_of
from memscope.replay.result import ReplayOom, ReplayResult
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

    def run(n_events: int | None = None) -> tuple[at.CachingArrays, Int64Array, int, ReplayOom | None]:
        arrays = new_arrays(config, limits, tie_rule=rule, address_rule=address_rule, is_logged=False)
        arrays = with_lanes(arrays, requests.pairs, is_private_releasable=False)
        return _run(arrays, requests, n_events)

    arrays, usage, n_done, oom = run()
    series = _usage_series(usage[:, : n_done + 1], requests.first_event)
    fragmentation = None
    if measures_fragmentation:
        n_events = int(np.argmax(usage[kernel.U_RESERVED, : n_done + 1]))
        fragmentation = measure_fragmentation(trace, _state_after(lifetimes, requests, run(n_events)[0], n_events))
    counters = arrays.counters.tolist()
    return ReplayResult(
        strategy="caching",
        device=lifetimes.device,
        conf=config.to_conf(),
        exactness="modelled" if requests.is_modelled else "exact",
        usage=series,
        peak_reserved_bytes=counters[at.C_PEAK_RESERVED],
        peak_active_bytes=counters[at.C_PEAK_ACTIVE],
        n_device_allocs=counters[at.C_N_DEVICE_ALLOCS],
        n_device_frees=counters[at.C_N_DEVICE_FREES],
        n_retries=counters[at.C_N_RETRIES],
        oom=oom,
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


def _run(
    arrays: at.CachingArrays, requests: Requests, n_events: int | None = None
) -> tuple[at.CachingArrays, Int64Array, int, ReplayOom | None]:
    """The arrays at the end, usage (4, n + 1), the number of events it covers, and the failed request if any."""
    op = requests.op if n_events is None else requests.op[:n_events]
    n_events, n_rows = len(op), len(requests.requested_bytes)
    usage = np.zeros((kernel.N_USAGE, n_events + 1), np.int64)
    of_row = np.full(n_rows, NONE_ID, np.int64), np.zeros(n_rows, np.int64)
    start_op, start_row = start_requests(requests)
    start_usage = np.zeros((kernel.N_USAGE, len(start_op) + 1), np.int64)
    dropped = frozen_array(np.full(len(start_op), NONE_ID), np.int64)
    arrays, position, status = serve_events(arrays, requests, (start_op, start_row, dropped), of_row, start_usage)
    if status == at.STATUS_OOM:
        return arrays, usage, 0, _oom(arrays, requests, int(start_row[position]), NONE_ID)
    usage[:, 0] = start_usage[:, -1]
    arrays, position, status = serve_events(arrays, requests, (op, requests.row, requests.dropped_pool), of_row, usage)
    if status == at.STATUS_OOM:
        oom = _oom(arrays, requests, int(requests.row[position]), requests.first_event + position)
        return arrays, usage, position + 1, oom
    return arrays, usage, n_events, None


def start_requests(requests: Requests) -> tuple[Int64Array, Int64Array]:
    """Requests that make what stood before the first event: op and row, two slots for each allocation."""
    op = np.full((len(requests.start_rows), 2), kernel.OP_NONE)
    op[:, 0] = kernel.OP_MALLOC
    op[requests.start_pending, 1] = kernel.OP_FREE_LATER
    return frozen_array(op.reshape(-1), np.int64), frozen_array(np.repeat(requests.start_rows, 2), np.int64)


def serve_events(
    arrays: at.CachingArrays,
    requests: Requests,
    events: tuple[Int64Array, Int64Array, Int64Array],
    of_row: tuple[Int64Array, Int64Array],
    usage: Int64Array,
) -> tuple[at.CachingArrays, int, int]:
    """Serve events (op, row, dropped pool), growing the arrays as needed: the arrays, where it stopped, and why."""
    position, status = 0, at.STATUS_GROW
    while status == at.STATUS_GROW:
        position, status = kernel.replay_requests(
            arrays, *events, requests.requested_bytes, requests.pair, *of_row, usage, position
        )
        if status == at.STATUS_GROW:
            arrays = grow(arrays)
    return arrays, position, status


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
