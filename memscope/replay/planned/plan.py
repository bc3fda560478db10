"""A static plan made with all lifetimes known in advance: what a planned pool would need for the same run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope._core import planning as core
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.fragmentation.metrics import Fragmentation, measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState, tile_segments
from memscope.lifetimes.tables import AllocationTable, UsageSeries
from memscope.replay.planned._checker import MIN_ALIGNMENT_BYTES, check_plan
from memscope.replay.result import DriverCalls, ReplayOom, ReplayResult, UnusedBytes
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import BoolArray, Int64Array, SegmentTable, frozen_array

WORK_IN_ALL = 1 << 26
WORK_PER_ROW = 1024
"""Bounds of the search, in rows looked at: one to two nanoseconds each, so that a small trace takes a quarter of a
second at most, and a large one about a microsecond for each event."""
GOOD_ENOUGH_FRAC = 0.001
"""A plan this close above the lower bound is not repaired."""
N_REPAIRED = 2
N_REPAIRS = 24
"""How many of the best orders are repaired, and how often."""
_UNLIMITED = int(np.iinfo(np.int64).max)
_N_LOAD_CLASSES = 8
_EPOCH_BITS = 40
_MIN_STRIDE = 16
_WORK_PER_LOOK = 4
"""Work of placing in an order, for each row that will be looked at: what is usual on real traces."""


class FoundPlan(NamedTuple):
    """Offsets int64 (rows,), the space that they need, the lower bound, all in units; and how it was found."""

    offset: Int64Array
    peak: int
    lower_bound: int
    method: str


class _Rows(NamedTuple):
    """Epochs in which rows start and end, and their sizes, in order of start: int64 (rows,) each."""

    start: Int64Array
    end: Int64Array
    size: Int64Array


class _Epochs(NamedTuple):
    """What is to be planned: ``by_start`` int64 (rows,) are the positions that its rows had."""

    rows: _Rows
    by_start: Int64Array
    n_epochs: int


class _Problem(NamedTuple):
    """Rows to place in order, with what all attempts share.

    ``chosen`` are their positions among all rows; ``offset`` has the places of the others, which are stacked up to
    ``bottom``. ``peak_load`` is the fullest moment of each; ``expected_work`` of one attempt.
    """

    rows: _Rows
    placer: core.OrderedPlacer
    peak_load: Int64Array
    chosen: Int64Array
    offset: Int64Array
    bottom: int
    expected_work: int


class _Attempt(NamedTuple):
    """An order in which the problem's rows were placed, where that put them, and the peak of the whole plan."""

    problem: _Problem
    order: Int64Array
    placed: Int64Array
    peak: int
    method: str


class _Search:
    """The best plan so far, and the work that is left."""

    def __init__(self, rows: _Rows, load: Int64Array) -> None:
        self.rows = rows
        self.lower_bound = int(load.max())
        self.work_left = WORK_IN_ALL + WORK_PER_ROW * len(rows.start)
        self.offset = np.zeros(len(rows.start), np.int64)
        self.peak = np.iinfo(np.int64).max
        self.method = ""

    @property
    def is_optimal(self) -> bool:
        return self.peak == self.lower_bound

    @property
    def is_good_enough(self) -> bool:
        return self.peak - self.lower_bound <= GOOD_ENOUGH_FRAC * self.lower_bound

    def offer(self, offset: Int64Array, peak: int, method: str) -> None:
        if 0 <= peak < self.peak:
            self.offset, self.peak, self.method = offset, peak, method


def find_plan(start: Int64Array, end: Int64Array, size: Int64Array, n_positions: int) -> FoundPlan:
    """Place allocations that live in ``[start, end)`` (positions in ``[0, n_positions)``) and need ``size`` units.

    The same input gives the same plan. At least one row; every lifetime and every size must be positive.
    """
    return _search(_in_epochs(start, end, size, n_positions))


def _in_epochs(start: Int64Array, end: Int64Array, size: Int64Array, n_positions: int) -> _Epochs:
    start_epoch, end_epoch, n_epochs = core.number_epochs(start, end, n_positions)
    by_start = np.argsort(start_epoch, kind="stable")
    return _Epochs(_Rows(start_epoch[by_start], end_epoch[by_start], size[by_start]), by_start, n_epochs)


def _search(epochs: _Epochs) -> FoundPlan:
    """What is planned for is not kept in events meanwhile: no step takes more memory than this one."""
    load = core.load_of_epochs(*epochs.rows, epochs.n_epochs)
    search = _Search(epochs.rows, load)
    by_end = np.argsort(epochs.rows.end, kind="stable")
    _try_slots(search, by_end)
    _try_in_time(search, by_end)
    del by_end  # what follows takes most memory
    if not search.is_optimal:
        _try_orders(search, load)
    offset = np.empty_like(search.offset)
    offset[epochs.by_start] = search.offset
    return FoundPlan(offset, search.peak, search.lower_bound, search.method)


def _try_slots(search: _Search, by_end: Int64Array) -> None:
    rows = search.rows
    distinct, size_class = np.unique(rows.size, return_inverse=True)
    slot, n_slots = core.share_slots(rows.start, rows.end, by_end, size_class, len(distinct))
    first = np.concatenate([[0], np.cumsum(n_slots * distinct)])
    search.offer(first[size_class] + slot * rows.size, int(first[-1]), "slots")


def _try_in_time(search: _Search, by_end: Int64Array) -> None:
    for is_best_fit, method in ((False, "first fit in time"), (True, "best fit in time")):
        if search.is_optimal:
            return
        offset, peak, work = core.place_in_time(*search.rows, by_end, is_best_fit, search.work_left // 4)
        search.work_left -= work
        search.offer(offset, peak, method)


def _try_orders(search: _Search, load: Int64Array) -> None:
    rows = search.rows
    peak_load = core.peak_load_of_rows(load, rows.start, rows.end)
    never_freed = rows.end == len(load)
    starts: list[_Attempt] = []
    highest, for_repairs = _UNLIMITED, search.work_left // 2
    for is_stacked, where in ((never_freed, " over a stack"), (np.zeros_like(never_freed), "")):
        if not where and not np.any(never_freed):
            break  # the same problem again
        problem = _problem(rows, load, peak_load, is_stacked)
        if problem.expected_work > search.work_left - for_repairs:
            if where:
                _try_largest(search, problem)
            break
        for make_order in _ORDERS:
            if search.is_good_enough:
                return
            order, name = make_order(problem, search.lower_bound)
            attempt = _attempt(search, problem, order, name + where, highest, search.work_left - for_repairs)
            if attempt is not None:
                starts.append(attempt)
                highest = min(highest, attempt.peak - 1)
    for attempt in sorted(starts, key=lambda start: start.peak)[:N_REPAIRED]:
        _repair(search, attempt)


def _problem(rows: _Rows, load: Int64Array, peak_load: Int64Array, is_stacked: BoolArray) -> _Problem:
    """What is left to place if some rows that are never freed are stacked at the bottom in order of time."""
    chosen = np.flatnonzero(~is_stacked)
    offset = np.zeros(len(rows.start), np.int64)
    stacked_size = rows.size[is_stacked]
    offset[is_stacked] = np.cumsum(stacked_size) - stacked_size
    height = np.cumsum(np.bincount(rows.start[is_stacked], stacked_size, len(load)).astype(np.int64))
    start, end = rows.start[chosen], rows.end[chosen]
    left = _Rows(start, end, rows.size[chosen])
    n_pairs = int(core.load_of_epochs(start, end, np.ones_like(start), len(load))[start].sum())
    stride = max(_MIN_STRIDE, n_pairs // max(len(start), 1))
    floor = height[end - 1]
    del height
    placer = core.OrderedPlacer(*left, floor, stride)
    expected_work = _WORK_PER_LOOK * (n_pairs + stride * (placer.n_remembered + len(start) // 2))
    return _Problem(left, placer, peak_load[chosen], chosen, offset, int(stacked_size.sum()), expected_work)


def _try_largest(search: _Search, problem: _Problem) -> None:
    """Place as many of the largest as there is work for, and what remains in time, above them all."""
    order, _ = _by_size(problem, search.lower_bound)
    max_work = search.work_left // 2
    placed, peak, n_placed, work = problem.placer.place(order, _UNLIMITED, max_work)
    search.work_left -= work
    above = max(peak, problem.bottom)
    rest = np.sort(order[n_placed:])
    if len(rest):
        rows = _Rows(*(column[rest] for column in problem.rows))
        by_end = np.argsort(rows.end, kind="stable")
        placed[rest], rest_peak, work = core.place_in_time(*rows, by_end, False, search.work_left)
        search.work_left -= work
        if rest_peak < 0:
            return
        placed[rest] += above
        above += rest_peak
    offset = problem.offset.copy()
    offset[problem.chosen] = placed
    search.offer(offset, above, "size over a stack, the smallest in time")


def _by_fullness_and_size(problem: _Problem, lower_bound: int) -> tuple[Int64Array, str]:
    fullness = problem.peak_load * _N_LOAD_CLASSES // lower_bound
    # One stable sort by one number: sizes fit the lower bits, as none exceeds the lower bound.
    n_bits = int(lower_bound).bit_length()
    return np.argsort(-((fullness << n_bits) + problem.rows.size), kind="stable"), "fullest moment, then size"


def _by_size(problem: _Problem, _: int) -> tuple[Int64Array, str]:
    return np.argsort(-problem.rows.size, kind="stable"), "size"


def _by_size_class_and_lifetime(problem: _Problem, _: int) -> tuple[Int64Array, str]:
    rows = problem.rows
    size_class = np.frexp(rows.size.astype(np.float64))[1].astype(np.int64)
    key = (size_class << _EPOCH_BITS) + rows.end - rows.start
    return np.argsort(-key, kind="stable"), "size class, then lifetime"


def _by_size_and_lifetime(problem: _Problem, _: int) -> tuple[Int64Array, str]:
    rows = problem.rows
    # Square roots are rounded alike everywhere, other powers are not: the order is the same on every machine.
    weight = rows.size * np.sqrt(np.sqrt((rows.end - rows.start).astype(np.float64)))
    return np.argsort(-weight, kind="stable"), "size and lifetime"


_ORDERS = (_by_fullness_and_size, _by_size, _by_size_class_and_lifetime, _by_size_and_lifetime)


def _attempt(
    search: _Search, problem: _Problem, order: Int64Array, method: str, max_offset: int, max_work: int
) -> _Attempt | None:
    """Place in an order; None if it took too much work or space."""
    placed, own_peak, n_placed, work = problem.placer.place(order, max_offset, max_work)
    search.work_left -= work
    if n_placed < len(order) or own_peak > max_offset:
        return None
    offset = problem.offset.copy()
    offset[problem.chosen] = placed
    peak = max(own_peak, problem.bottom)
    search.offer(offset, peak, method)
    return _Attempt(problem, order, placed, peak, method)


def _repair(search: _Search, attempt: _Attempt) -> None:
    problem, order, placed, method = attempt.problem, attempt.order, attempt.placed, f"{attempt.method}, repaired"
    for _ in range(N_REPAIRS):
        if search.is_good_enough:
            return
        key = 2 * np.arange(len(order), dtype=np.int64)
        is_too_high = (placed + problem.rows.size)[order] > search.lower_bound
        key[is_too_high] = key[is_too_high] // 2 - 1
        order = order[np.argsort(key, kind="stable")]
        repaired = _attempt(search, problem, order, method, _UNLIMITED, search.work_left)
        if repaired is None:
            return
        placed = repaired.placed


PLAN_ADDRESS = 1 << 44
"""Where the pool of a plan's states begins: an address like any other, on no recorded segment's side."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A fixed place for each allocation of a device, in one pool that is taken before the first event.

    Attributes
    ----------
    lifetimes
        What was planned for; rows below are those of its ``allocations``, and one more for the request whose failure
        ended the recording, if there was one.
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
    if not len(lifetimes.allocations) and lifetimes.fatal_oom_event is None:
        raise UsageError(f"device {lifetimes.device} has no allocations to plan")
    found = _search(_epochs_of(lifetimes, alignment_bytes))
    start, end, n_units = _rows_of(lifetimes, alignment_bytes)
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


def _rows_of(lifetimes: DeviceLifetimes, alignment_bytes: int) -> _Rows:
    """Events in which the allocations start and end, and their sizes in units of the alignment."""
    table = _planned_rows(lifetimes)
    start = np.where(table.alloc_event == NONE_ID, lifetimes.first_event - 1, table.alloc_event)
    end = np.where(table.free_event == NONE_ID, lifetimes.end_event, table.free_event)
    return _Rows(start, end, np.maximum(-(-table.requested_bytes // alignment_bytes), 1))


def _planned_rows(lifetimes: DeviceLifetimes) -> AllocationTable:
    """The allocations, and the request whose failure ended the recording: it would have been live to the end."""
    table, trace, fatal = lifetimes.allocations, lifetimes.trace, lifetimes.fatal_oom_event
    if fatal is None:
        return table
    columns = {name: np.full(1, NONE_ID, dtype) for name, dtype in AllocationTable.COLUMNS.items()}
    size = trace.size_bytes[fatal : fatal + 1]
    columns |= {
        "alloc_event": np.full(1, fatal),
        "requested_bytes": size,
        "block_bytes": size,
        "stack_id": trace.stack_id[fatal : fatal + 1],
        "is_pending_at_start": np.zeros(1, np.bool_),
    }
    return AllocationTable.stacked([table, AllocationTable.from_columns(columns)])


def _epochs_of(lifetimes: DeviceLifetimes, alignment_bytes: int) -> _Epochs:
    before = lifetimes.first_event - 1
    start, end, size = _rows_of(lifetimes, alignment_bytes)
    return _in_epochs(start - before, end - before, size, lifetimes.end_event - before + 1)


def plan_state(plan: MemoryPlan, event: int) -> AllocatorState:
    """The pool after an event, −1 for before the first: one segment, tiled by what is in use and what is not.

    Its stream and its pool are not recorded ones: their ids are −1.
    """
    lifetimes, table = plan.lifetimes, _planned_rows(plan.lifetimes)
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
        np.where(rows < len(lifetimes.allocations), rows, NONE_ID),
    )
    return AllocatorState(event, lifetimes.device, segments, blocks, allocation_ids, unplaced_bytes)


def replay_planned(
    lifetimes: DeviceLifetimes,
    limits: Limits = NO_LIMITS,
    *,
    alignment_bytes: int = MIN_ALIGNMENT_BYTES,
    measures_fragmentation: bool = False,
) -> ReplayResult:
    """Serve a device's recorded requests from a pool planned for exactly them, taken before the first event.

    Parameters
    ----------
    limits
        What the pool may take of the device; no limit if not given.
    measures_fragmentation
        Whether to measure the state at the first moment with the most bytes in use (reserved memory never changes).

    Raises
    ------
    UsageError
        If no allocation was recorded, or the alignment cannot be used.
    """
    plan = plan_allocations(lifetimes, alignment_bytes=alignment_bytes)
    left = limits.left_bytes
    if left is not None and plan.plan_bytes > left:
        nothing = np.zeros(1, np.int64)
        usage = UsageSeries(lifetimes.first_event, nothing, nothing, nothing, nothing)
        return _result(plan, usage, ReplayOom(NONE_ID, plan.plan_bytes, left, 0, 0))
    recorded = np.arange(len(lifetimes.allocations))
    active, requested = lifetimes.weighted_usage(recorded, plan.size_bytes[recorded]), lifetimes.usage.requested_bytes
    fatal = lifetimes.fatal_oom_event
    if fatal is not None:
        index = lifetimes.usage.index_of(fatal)
        requested = np.array(requested)
        active[index:] += plan.size_bytes[-1]
        requested[index:] += lifetimes.trace.size_bytes[fatal]
    usage = UsageSeries(
        first_event=lifetimes.first_event,
        allocated_bytes=active,
        active_bytes=active,
        requested_bytes=requested,
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
        unused=UnusedBytes.of(usage) if len(usage) > 1 else None,
        fragmentation=fragmentation,
    )
