"""The search for a good static plan: several ways to place allocations of known lifetimes, the best of which is kept.

A plan gives each allocation an offset in one address range. To find the smallest is NP-hard; the work here is bounded
by :data:`WORK_PER_ROW` and :data:`WORK_IN_ALL`, and the search ends where a plan reaches the lower bound (the highest
sum of sizes alive at one moment). Tried, in this order:

1. Slots: allocations of one size share slots by interval colouring, which for one size is optimal; slots of different
   sizes share nothing. It is the plan of last resort: O(n log n), whatever the trace.
2. In time: first fit, then best fit, as an allocator does that sees only the past; for last-in-first-out lifetimes
   the first is optimal.
3. In an order: each gets the lowest offset that is free in its whole lifetime. Orders: how full its fullest moment
   is, in eighths, then size; size; power of two of the size, then lifetime; size times a root of the lifetime. The
   largest come first, equal ones in order of time, so that they share places as in 1. All of these once with what is
   never freed stacked at the bottom in order of time, and once without that. Where even one order is too much work:
   the largest allocations by size, and the others in time, above them.
4. Repair: the best of 3 again and again, with each allocation that ended above the lower bound moved halfway to the
   front of the order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memscope._kernels import planning as kernel
from memscope.trace.tables import BoolArray, Int64Array

WORK_IN_ALL = 1 << 26
WORK_PER_ROW = 1024
"""Bounds of the search, in rows looked at: one to two nanoseconds each, so that a small trace takes a quarter of a
second at most, and a large one about a microsecond for each event."""
GOOD_ENOUGH_FRAC = 0.001
"""A plan this close above the lower bound is not repaired."""
N_REPAIRED = 2
N_REPAIRS = 24
"""How many of the best orders are repaired, and how often."""
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


class _Problem(NamedTuple):
    """Rows to place in order, with what all attempts share.

    ``chosen`` are their positions among all rows; ``offset`` has the places of the others, which are stacked up to
    ``bottom``. ``peak_load`` is the fullest moment of each; ``expected_work`` of one attempt.
    """

    rows: kernel.Rows
    checkpoints: kernel.Checkpoints
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

    def __init__(self, rows: kernel.Rows, load: Int64Array) -> None:
        self.rows = rows
        self.by_end = np.argsort(rows.end, kind="stable")
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
    start_epoch, end_epoch, n_epochs = kernel.number_epochs(start, end, n_positions)
    by_start = np.argsort(start_epoch, kind="stable")
    size = np.ascontiguousarray(size[by_start], np.int64)
    rows = kernel.Rows(start_epoch[by_start], end_epoch[by_start], size, np.zeros(len(size), np.int64))
    load = kernel.load_of_epochs(rows.start, rows.end, rows.size, n_epochs)
    search = _Search(rows, load)
    _try_slots(search)
    _try_in_time(search)
    if not search.is_optimal and len(size) <= kernel.MAX_ROWS and 4 * search.lower_bound <= kernel.MAX_OFFSET:
        _try_orders(search, load)
    offset = np.empty_like(search.offset)
    offset[by_start] = search.offset
    return FoundPlan(offset, search.peak, search.lower_bound, search.method)


def _try_slots(search: _Search) -> None:
    rows = search.rows
    distinct, size_class = np.unique(rows.size, return_inverse=True)
    slot, n_slots = kernel.share_slots(rows, search.by_end, size_class.astype(np.int64), len(distinct))
    first = np.concatenate([[0], np.cumsum(n_slots * distinct)])
    search.offer(first[size_class] + slot * rows.size, int(first[-1]), "slots")


def _try_in_time(search: _Search) -> None:
    for is_best_fit, method in ((False, "first fit in time"), (True, "best fit in time")):
        if search.is_optimal:
            return
        offset, peak, work = kernel.place_in_time(search.rows, search.by_end, is_best_fit, search.work_left // 4)
        search.work_left -= int(work)
        search.offer(offset, int(peak), method)


def _try_orders(search: _Search, load: Int64Array) -> None:
    rows = search.rows
    peak_load = kernel.peak_load_of_rows(load, rows.start, rows.end)
    never_freed = rows.end == len(load)
    starts: list[_Attempt] = []
    highest, for_repairs = kernel.MAX_OFFSET, search.work_left // 2
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


def _problem(rows: kernel.Rows, load: Int64Array, peak_load: Int64Array, is_stacked: BoolArray) -> _Problem:
    """What is left to place if some rows that are never freed are stacked at the bottom in order of time."""
    chosen = np.flatnonzero(~is_stacked)
    offset = np.zeros(len(rows.start), np.int64)
    stacked_size = rows.size[is_stacked]
    offset[is_stacked] = np.cumsum(stacked_size) - stacked_size
    height = np.cumsum(np.bincount(rows.start[is_stacked], stacked_size, len(load)).astype(np.int64))
    start, end = rows.start[chosen], rows.end[chosen]
    left = kernel.Rows(start, end, rows.size[chosen], height[end - 1])
    n_pairs = int(kernel.load_of_epochs(start, end, np.ones_like(start), len(load))[start].sum())
    stride = max(_MIN_STRIDE, n_pairs // max(len(start), 1))
    checkpoints = kernel.make_checkpoints(start, end, stride)
    expected_work = _WORK_PER_LOOK * (n_pairs + stride * (len(checkpoints.row) + len(start) // 2))
    return _Problem(left, checkpoints, peak_load[chosen], chosen, offset, int(stacked_size.sum()), expected_work)


def _try_largest(search: _Search, problem: _Problem) -> None:
    """Place as many of the largest as there is work for, and what remains in time, above them all."""
    order, _ = _by_size(problem, search.lower_bound)
    max_work = search.work_left // 2
    placed, peak, n_placed, work = kernel.place_in_order(
        order, problem.rows, problem.checkpoints, kernel.MAX_OFFSET, max_work
    )
    search.work_left -= int(work)
    above = max(int(peak), problem.bottom)
    rest = np.sort(order[n_placed:])
    if len(rest):
        rows = kernel.Rows(*(column[rest] for column in problem.rows))
        by_end = np.argsort(rows.end, kind="stable")
        placed[rest], rest_peak, work = kernel.place_in_time(rows, by_end, False, search.work_left)
        search.work_left -= int(work)
        if rest_peak < 0:
            return
        placed[rest] += above
        above += int(rest_peak)
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
    placed, own_peak, n_placed, work = kernel.place_in_order(
        order, problem.rows, problem.checkpoints, max_offset, max_work
    )
    search.work_left -= int(work)
    if n_placed < len(order) or own_peak > max_offset:
        return None
    offset = problem.offset.copy()
    offset[problem.chosen] = placed
    peak = max(int(own_peak), problem.bottom)
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
        repaired = _attempt(search, problem, order, method, kernel.MAX_OFFSET, search.work_left)
        if repaired is None:
            return
        placed = repaired.placed
