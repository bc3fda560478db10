"""A recording's requests, replayed under other settings or on another device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_replay as kernel
from memscope._kernels.caching import malloc
from memscope._kernels.caching_blocks import request_free
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.arrays import AddressRule, grow, new_arrays, with_lanes
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.requests import Requests, requests_of
from memscope.trace.schema import NONE_ID, TieRule
from memscope.trace.tables import Int64Array

Exactness = Literal["exact", "modelled", "bound"]


@dataclass(frozen=True, slots=True)
class ReplayOom:
    """The request that could not be served: the replay ends there. ``event`` is −1 before the first event."""

    event: int
    requested_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What an allocator made of a recording's requests.

    Attributes
    ----------
    strategy, conf
        Name in the registry; the settings as a ``PYTORCH_ALLOC_CONF`` string, where the strategy has any.
    exactness
        ``exact``: PyTorch's own decisions for these requests; ``modelled``: under assumptions that ``notes`` name;
        ``bound``: no allocator can need less.
    usage
        Bytes after each event, up to the one that ran out of memory if one did.
    peak_reserved_bytes, peak_active_bytes
        Each at its own highest.
    n_device_allocs, n_device_frees, n_retries
        Calls of the driver, and requests served only after a reclaim; None where the strategy has no such thing.
    oom
        The request that could not be served, None if all were.
    """

    strategy: str
    device: int
    conf: str | None
    exactness: Exactness
    usage: UsageSeries
    peak_reserved_bytes: int
    peak_active_bytes: int
    n_device_allocs: int | None
    n_device_frees: int | None
    n_retries: int | None
    oom: ReplayOom | None
    notes: tuple[str, ...] = ()

    @property
    def efficiency_frac(self) -> float:
        """Peak active bytes over peak reserved bytes, each at its own moment; 1.0 where nothing was reserved."""
        return self.peak_active_bytes / self.peak_reserved_bytes if self.peak_reserved_bytes else 1.0


def replay_caching(
    lifetimes: DeviceLifetimes,
    config: CachingAllocatorConfig | None = None,
    *,
    total_bytes: int | None = None,
    reserved_by_others_bytes: int = 0,
    tie_rule: TieRule | None = None,
    address_rule: AddressRule | None = None,
) -> ReplayResult:
    """Serve a device's recorded requests with PyTorch's caching allocator.

    Parameters
    ----------
    config
        Settings; the recorded ones if not given.
    total_bytes
        Memory of the device, None for no limit.
    tie_rule
        The release's rule for equally good blocks; the recorded one if not given.

    Raises
    ------
    UsageError
        If the settings are not covered by the simulator.
    """
    trace = lifetimes.trace
    settings = CachingAllocatorConfig.from_trace(trace, lifetimes.device) if config is None else config
    if config is None and total_bytes is None:
        # Without a device there is nothing that a fraction could be of.
        settings = dataclasses.replace(settings, memory_fraction=1.0, throws_on_malloc_oom=False)
    rule = tie_rule if tie_rule is not None else trace.metadata.tie_rule
    requests = requests_of(lifetimes)
    arrays = new_arrays(
        settings,
        tie_rule=TieRule.SEGMENT_AGE if rule is None else rule,
        total_bytes=total_bytes,
        reserved_by_others_bytes=reserved_by_others_bytes,
        address_rule=address_rule,
        is_logged=False,
    )
    arrays = with_lanes(arrays, requests.pairs, is_private_releasable=False)
    arrays, usage, n_done, oom = _run(arrays, requests)
    counters = arrays.counters.tolist()
    return ReplayResult(
        strategy="caching",
        device=lifetimes.device,
        conf=settings.to_conf(),
        exactness="modelled" if requests.is_modelled else "exact",
        usage=_usage_series(usage[:, : n_done + 1], requests.first_event),
        peak_reserved_bytes=counters[at.C_PEAK_RESERVED],
        peak_active_bytes=counters[at.C_PEAK_ACTIVE],
        n_device_allocs=counters[at.C_N_DEVICE_ALLOCS],
        n_device_frees=counters[at.C_N_DEVICE_FREES],
        n_retries=counters[at.C_N_RETRIES],
        oom=oom,
        notes=requests.notes,
    )


def _run(arrays: at.CachingArrays, requests: Requests) -> tuple[at.CachingArrays, Int64Array, int, ReplayOom | None]:
    """The arrays at the end, usage (4, n + 1), the number of events it covers, and the failed request if any."""
    n_events, n_rows = len(requests.op), len(requests.requested_bytes)
    usage = np.zeros((kernel.N_USAGE, n_events + 1), np.int64)
    block_of_row = np.full(n_rows, NONE_ID, np.int64)
    sync_of_row = np.zeros(n_rows, np.int64)
    for row, waits in zip(requests.start_rows.tolist(), requests.start_pending.tolist(), strict=True):
        if not at.has_room(arrays):
            arrays = grow(arrays)
        block = int(malloc(arrays, requests.pair[row], requests.requested_bytes[row]))
        if block == at.STATUS_OOM:
            return arrays, usage, 0, _oom(arrays, requests, row, NONE_ID)
        block_of_row[row] = block
        if waits:
            request_free(arrays, block, True)
            sync_of_row[row] = arrays.counters[at.C_N_SYNCS]
    for column, counter in enumerate((at.C_ALLOCATED, at.C_ACTIVE, at.C_REQUESTED, at.C_RESERVED)):
        usage[column, 0] = arrays.counters[counter]
    position, status = 0, at.STATUS_GROW
    while status == at.STATUS_GROW:
        position, status = kernel.replay_requests(
            arrays,
            requests.op,
            requests.row,
            requests.dropped_pool,
            requests.requested_bytes,
            requests.pair,
            block_of_row,
            sync_of_row,
            usage,
            position,
        )
        if status == at.STATUS_GROW:
            arrays = grow(arrays)
    if status == at.STATUS_OOM:
        oom = _oom(arrays, requests, int(requests.row[position]), requests.first_event + int(position))
        return arrays, usage, int(position) + 1, oom
    return arrays, usage, n_events, None


def _oom(arrays: at.CachingArrays, requests: Requests, row: int, event: int) -> ReplayOom:
    free_bytes = int(arrays.config[at.CFG_CAPACITY] - arrays.counters[at.C_DEVICE_USED])
    return ReplayOom(event=event, requested_bytes=int(requests.requested_bytes[row]), free_bytes=free_bytes)


def _usage_series(usage: Int64Array, first_event: int) -> UsageSeries:
    return UsageSeries(
        first_event=first_event,
        allocated_bytes=usage[kernel.U_ALLOCATED],
        active_bytes=usage[kernel.U_ACTIVE],
        requested_bytes=usage[kernel.U_REQUESTED],
        reserved_bytes=usage[kernel.U_RESERVED],
    )


def replay_lower_bound(lifetimes: DeviceLifetimes, *, total_bytes: int | None = None) -> ReplayResult:
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
    oom = None
    over = np.flatnonzero(requested > total_bytes) if total_bytes is not None else np.empty(0, np.int64)
    if len(over) and total_bytes is not None:
        index = int(over[0])
        before = int(requested[index - 1]) if index else 0
        oom = ReplayOom(lifetimes.usage.event_at(index), int(requested[index]) - before, total_bytes - before)
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
