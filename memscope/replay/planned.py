"""A static plan made with all lifetimes known in advance: what a planned pool would need for the same run.

In the manner of STAlloc (arXiv 2507.16274): the requests of a run are profiled, each is given a fixed place in one pool
before the next run, requests of the same size whose lifetimes are apart share a place, and what remains is packed so
that lifetimes that meet have places that do not. How it is packed is told in :mod:`memscope.replay.plan_search`; the
heuristics are not STAlloc's own. Every plan is checked by :func:`memscope.replay.plan_checker.check_plan`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.errors import UsageError
from memscope.fragmentation.metrics import Fragmentation, measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState, tile_segments
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.driver_calls import DriverCalls
from memscope.replay.plan_checker import MIN_ALIGNMENT_BYTES, check_plan
from memscope.replay.plan_search import find_plan
from memscope.replay.result import ReplayOom, ReplayResult
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import Int64Array, SegmentTable, frozen_array

PLAN_ADDRESS = 1 << 44
"""Where the pool of a plan's states begins: an address like any other, on no recorded segment's side."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A fixed place for each allocation of a device, in one pool that is taken before the first event.

    Attributes
    ----------
    lifetimes
        What was planned for; rows below are those of its ``allocations``.
    start_event, end_event
        int64 (rows,): each lives in ``[start_event, end_event)``. Those from before the first event start one event
        before it, those never freed end after the last; a free that waits for another stream ends at its completion.
    size_bytes, offset
        int64 (rows,): the request rounded up, and where it lies in the pool.
    plan_bytes, lower_bound_bytes
        Size of the pool; the most bytes of ``size_bytes`` in use at once.
    method
        How the plan was found.
    """

    lifetimes: DeviceLifetimes
    start_event: Int64Array
    end_event: Int64Array
    size_bytes: Int64Array
    offset: Int64Array
    plan_bytes: int
    lower_bound_bytes: int
    method: str

    def __post_init__(self) -> None:
        for name in ("start_event", "end_event", "size_bytes", "offset"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))


def plan_allocations(lifetimes: DeviceLifetimes, *, alignment_bytes: int = MIN_ALIGNMENT_BYTES) -> MemoryPlan:
    """Plan a place for each allocation of a device. The same recording gives the same plan.

    Parameters
    ----------
    alignment_bytes
        Sizes and offsets are multiples of it: a power of two, 512 (PyTorch's own) at least.

    Raises
    ------
    UsageError
        If no allocation was recorded, or the alignment cannot be used.
    InvariantError
        If the plan is not sound: a defect in memscope.
    """
    if alignment_bytes < MIN_ALIGNMENT_BYTES or alignment_bytes & (alignment_bytes - 1):
        raise UsageError(f"an alignment of {alignment_bytes:,} bytes: use a power of two of at least 512")
    table = lifetimes.allocations
    if not len(table):
        raise UsageError(f"device {lifetimes.device} has no allocations to plan")
    before, after = lifetimes.first_event - 1, lifetimes.end_event
    start = np.where(table.alloc_event == NONE_ID, before, table.alloc_event)
    end = np.where(table.free_event == NONE_ID, after, table.free_event)
    n_units = np.maximum(-(-table.requested_bytes // alignment_bytes), 1)
    found = find_plan(start - before, end - before, n_units, after - before + 1)
    plan = MemoryPlan(
        lifetimes=lifetimes,
        start_event=start,
        end_event=end,
        size_bytes=n_units * alignment_bytes,
        offset=found.offset * alignment_bytes,
        plan_bytes=found.peak * alignment_bytes,
        lower_bound_bytes=found.lower_bound * alignment_bytes,
        method=found.method,
    )
    check_plan(start, end, plan.size_bytes, plan.offset, plan.plan_bytes, alignment_bytes=alignment_bytes)
    return plan


def plan_state(plan: MemoryPlan, event: int) -> AllocatorState:
    """The pool after an event, −1 for before the first: one segment, tiled by what is in use and what is not.

    Its stream and its pool are not recorded ones: their ids are −1.
    """
    lifetimes, table = plan.lifetimes, plan.lifetimes.allocations
    rows = np.flatnonzero(table.active_at(event))
    rows = rows[np.argsort(plan.offset[rows], kind="stable")]
    segments = SegmentTable.from_columns(
        {
            "device": [lifetimes.device],
            "address": [PLAN_ADDRESS],
            "size_bytes": [plan.plan_bytes],
            "stream_id": [NONE_ID],
            "pool_id": [NONE_ID],
            "is_large": [True],
            "is_expandable": [False],
            "stack_id": [NONE_ID],
        }
    )
    blocks, allocation_ids, unplaced_bytes = tile_segments(
        segments,
        PLAN_ADDRESS + plan.offset[rows],
        plan.size_bytes[rows],
        table.requested_bytes[rows],
        np.where(table.pending_at(event)[rows], BlockState.ACTIVE_PENDING_FREE, BlockState.ACTIVE_ALLOCATED).astype(
            np.int8
        ),
        table.stack_id[rows],
        rows,
    )
    return AllocatorState(event, lifetimes.device, segments, blocks, allocation_ids, unplaced_bytes)


def replay_planned(
    lifetimes: DeviceLifetimes,
    *,
    total_bytes: int | None = None,
    alignment_bytes: int = MIN_ALIGNMENT_BYTES,
    measures_fragmentation: bool = False,
) -> ReplayResult:
    """Serve a device's recorded requests from a pool planned for exactly them, taken before the first event.

    Parameters
    ----------
    total_bytes
        Memory that the pool may take, None for no limit.
    measures_fragmentation
        Whether to measure the state at the first moment with the most bytes in use (reserved memory never changes).

    Raises
    ------
    UsageError
        If no allocation was recorded, or the alignment cannot be used.
    """
    plan = plan_allocations(lifetimes, alignment_bytes=alignment_bytes)
    if total_bytes is not None and plan.plan_bytes > total_bytes:
        nothing = np.zeros(1, np.int64)
        usage = UsageSeries(lifetimes.first_event, nothing, nothing, nothing, nothing)
        return _result(plan, usage, ReplayOom(NONE_ID, plan.plan_bytes, total_bytes, 0, 0))
    active = lifetimes.weighted_usage(np.arange(len(plan.size_bytes)), plan.size_bytes)
    usage = UsageSeries(
        first_event=lifetimes.first_event,
        allocated_bytes=active,
        active_bytes=active,
        requested_bytes=lifetimes.usage.requested_bytes,
        reserved_bytes=np.full(len(active), plan.plan_bytes, np.int64),
    )
    fragmentation = None
    if measures_fragmentation:
        fragmentation = measure_fragmentation(lifetimes.trace, plan_state(plan, usage.peak_event))
    return _result(plan, usage, None, fragmentation)


def _result(
    plan: MemoryPlan, usage: UsageSeries, oom: ReplayOom | None, fragmentation: Fragmentation | None = None
) -> ReplayResult:
    n_calls = int(oom is None)
    return ReplayResult(
        strategy="planned",
        device=plan.lifetimes.device,
        conf=None,
        exactness="modelled",
        usage=usage,
        peak_reserved_bytes=plan.plan_bytes * n_calls,
        peak_active_bytes=int(usage.active_bytes.max()),
        n_device_allocs=n_calls,
        n_device_frees=0,
        n_retries=0,
        oom=oom,
        notes=(
            "a plan made after the fact: it holds only for runs that make the same requests in the same order",
            f"found by: {plan.method}; the most in use at once is {plan.lower_bound_bytes:,} bytes",
        ),
        driver_calls=DriverCalls({"cudaMalloc": n_calls}),
        fragmentation=fragmentation,
    )
