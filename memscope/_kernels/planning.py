"""Placing allocations whose lifetimes are all known in advance; compiled.

A row is one allocation: it needs ``size`` units of address space in the epochs ``[start, end)``. Rows are sorted by
``start``. Every placement here is valid by construction: a row is put where no placed row that lives at some time with
it lies. They differ in the order of placing, and so in the space they need.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

NOT_PLACED = -1
ROW_BITS = 24
"""Bits of a sort key that hold a row; the others hold its offset."""
MAX_ROWS = 1 << ROW_BITS
MAX_OFFSET = 1 << (62 - ROW_BITS)
POP_WORK = 12
"""What taking the lowest row out of a heap costs, in rows looked at."""


RANGES_PER_WORK = 4
"""How many free ranges are passed over in the time of looking at a row."""


class Rows(NamedTuple):
    """Rows sorted by ``start``: int64 (rows,) each. No row may be placed below its ``floor``."""

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    floor: npt.NDArray[np.int64]


class Checkpoints(NamedTuple):
    """Rows alive when every ``stride``-th row starts, without those that start with it or after.

    ``row[first[c]:first[c + 1]]`` are those alive at row ``c * stride``; int64.
    """

    stride: int
    first: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]


@njit(cache=True)
def number_epochs(start, end, n_positions):
    """Number the runs of allocs that frees separate: the only moments at which usage can peak.

    ``start`` and ``end`` are positions in ``[0, n_positions)``. At one position, frees come before allocs. Two
    lifetimes overlap in positions exactly if they overlap in epochs. O(rows + positions).

    Returns
    -------
    start_epoch, end_epoch, n_epochs
        int64 (rows,) twice, and their number.
    """
    is_start = np.zeros(n_positions, np.bool_)
    is_end = np.zeros(n_positions, np.bool_)
    for i in range(len(start)):
        is_start[start[i]] = True
        is_end[end[i]] = True
    starts_in = np.zeros(n_positions, np.int32)
    ends_in = np.zeros(n_positions, np.int32)
    n_epochs, is_after_free = 0, True
    for position in range(n_positions):
        if is_end[position]:
            ends_in[position] = n_epochs
            is_after_free = True
        if is_start[position]:
            if is_after_free:
                n_epochs += 1
                is_after_free = False
            starts_in[position] = n_epochs - 1
    start_epoch = np.empty(len(start), np.int64)
    end_epoch = np.empty(len(start), np.int64)
    for i in range(len(start)):
        start_epoch[i] = starts_in[start[i]]
        end_epoch[i] = ends_in[end[i]]
    return start_epoch, end_epoch, n_epochs


@njit(cache=True)
def load_of_epochs(start, end, size, n_epochs):
    """Sum of the sizes alive in each epoch: int64 (n_epochs,)."""
    load = np.zeros(n_epochs + 1, np.int64)
    for i in range(len(start)):
        load[start[i]] += size[i]
        load[end[i]] -= size[i]
    for epoch in range(1, n_epochs):
        load[epoch] += load[epoch - 1]
    return load[:n_epochs]


@njit(cache=True)
def peak_load_of_rows(load, start, end):
    """Highest load in each row's lifetime: int64 (rows,). A tree of maxima, O(log epochs) a row."""
    n = len(load)
    tree = np.empty(2 * n, np.int64)
    for epoch in range(n):
        tree[n + epoch] = load[epoch]
    for node in range(n - 1, 0, -1):
        tree[node] = max(tree[2 * node], tree[2 * node + 1])
    peak = np.zeros(len(start), np.int64)
    for i in range(len(start)):
        left, right, highest = start[i] + n, end[i] + n, np.int64(0)
        while left < right:
            if left & 1:
                highest = max(highest, tree[left])
                left += 1
            if right & 1:
                right -= 1
                highest = max(highest, tree[right])
            left >>= 1
            right >>= 1
        peak[i] = highest
    return peak


@njit(cache=True)
def make_checkpoints(start, end, stride):
    """Remember which rows are alive at every ``stride``-th row. O(rows + remembered)."""
    n = len(start)
    n_checkpoints = (n + stride - 1) // stride
    first = np.zeros(n_checkpoints + 1, np.int64)
    row = np.empty(max(n, 16), np.int64)
    live = np.empty(n, np.int64)
    n_live, n_rows = 0, 0
    for c in range(n_checkpoints):
        now, n_kept = start[c * stride], 0
        for x in range(n_live):
            if end[live[x]] > now:
                live[n_kept] = live[x]
                n_kept += 1
        n_live = n_kept
        if n_rows + n_live > len(row):
            longer = np.empty(2 * (n_rows + n_live), np.int64)
            for x in range(n_rows):
                longer[x] = row[x]
            row = longer
        for x in range(n_live):
            row[n_rows + x] = live[x]
        n_rows += n_live
        first[c + 1] = n_rows
        for i in range(c * stride, min(n, (c + 1) * stride)):
            live[n_live] = i
            n_live += 1
    return Checkpoints(stride, first, row[:n_rows])


@njit(cache=True)
def _sift_down(heap, i, n):
    value = heap[i]
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = value


@njit(cache=True)
def _collect(rows, checkpoints, offset, i, keys):
    """Write the placed rows that live at some time with row i and reach above its floor: key = offset, row.

    Returns the number of keys, and of rows looked at: those alive at the last checkpoint before, and those that start
    from there to the row's end.
    """
    start, end, floor = rows.start[i], rows.end[i], rows.floor[i]
    c, n = i // checkpoints.stride, 0
    low, high = checkpoints.first[c], checkpoints.first[c + 1]
    for x in range(low, high):
        j = checkpoints.row[x]
        if offset[j] + rows.size[j] > floor and offset[j] >= 0 and rows.end[j] > start:
            keys[n] = (offset[j] << ROW_BITS) | j
            n += 1
    j = c * checkpoints.stride
    while j < len(offset) and rows.start[j] < end:
        if offset[j] + rows.size[j] > floor and offset[j] >= 0 and rows.end[j] > start:
            keys[n] = (offset[j] << ROW_BITS) | j
            n += 1
        j += 1
    return n, high - low + j - c * checkpoints.stride


@njit(cache=True)
def place_in_order(order, rows, checkpoints, max_offset, max_work):
    """Put each row at the lowest offset that is free in its whole lifetime, in the order given.

    For a row that lives with k others the cost is O(k), and O(log k) for each that lies below the place found. The
    caller guarantees at most ``MAX_ROWS`` rows and ``max_offset <= MAX_OFFSET``.

    Returns
    -------
    offset, peak, n_placed, work
        int64 (rows,), −1 where not placed; the highest end; how many of the order were placed, less than all if one
        ended above ``max_offset`` or the work exceeded ``max_work``; the work done.
    """
    n, n_placed = len(rows.start), 0
    offset = np.full(n, NOT_PLACED, np.int64)
    heap = np.empty(n, np.int64)
    peak, work = np.int64(0), np.int64(0)
    for i in order:
        n_left, n_seen = _collect(rows, checkpoints, offset, i, heap)
        work += n_seen + n_left
        for x in range(n_left // 2 - 1, -1, -1):
            _sift_down(heap, x, n_left)
        place, size = rows.floor[i], rows.size[i]
        while n_left > 0:
            key = heap[0]
            if (key >> ROW_BITS) - place >= size:
                break
            place = max(place, (key >> ROW_BITS) + rows.size[key & (MAX_ROWS - 1)])
            n_left -= 1
            heap[0] = heap[n_left]
            _sift_down(heap, 0, n_left)
            work += POP_WORK
        offset[i] = place
        n_placed += 1
        peak = max(peak, place + size)
        if peak > max_offset or work > max_work:
            break
    return offset, peak, n_placed, work


@njit(cache=True)
def _give_back(start, end, n, low, high):
    """Add the free range [low, high) to sorted, never touching ones; returns their new number."""
    i, right = 0, n
    while i < right:
        middle = (i + right) // 2
        if start[middle] < low:
            i = middle + 1
        else:
            right = middle
    joins_left = i > 0 and end[i - 1] == low
    joins_right = i < n and start[i] == high
    if joins_left and joins_right:
        end[i - 1] = end[i]
        for j in range(i, n - 1):
            start[j] = start[j + 1]
            end[j] = end[j + 1]
        return n - 1
    if joins_left:
        end[i - 1] = high
        return n
    if joins_right:
        start[i] = low
        return n
    for j in range(n, i, -1):
        start[j] = start[j - 1]
        end[j] = end[j - 1]
    start[i] = low
    end[i] = high
    return n + 1


@njit(cache=True)
def _find_free(start, end, n, size, is_best_fit):
    """The lowest free range that is large enough, or the smallest such one. The last has no end."""
    found, smallest = n - 1, end[n - 1] - start[n - 1]
    for i in range(n):
        room = end[i] - start[i]
        if room >= size and room < smallest:
            if not is_best_fit:
                return i
            found, smallest = i, room
    return found


@njit(cache=True)
def place_in_time(rows, by_end, is_best_fit, max_work):
    """Put each row where an allocator that sees only the past would: first fit or best fit in one address range.

    ``by_end`` are the rows in order of their end. Linear in the free ranges for each row. Floors are not regarded.

    Returns
    -------
    offset, peak, work
        int64 (rows,); the highest end, −1 if the work exceeded ``max_work``; the work done.
    """
    n_rows = len(rows.start)
    offset = np.full(n_rows, NOT_PLACED, np.int64)
    start, end = np.empty(n_rows + 2, np.int64), np.empty(n_rows + 2, np.int64)
    start[0], end[0] = 0, np.int64(1) << 62
    n, n_freed, peak, work = 1, 0, np.int64(0), np.int64(0)
    for i in range(n_rows):
        while rows.end[by_end[n_freed]] <= rows.start[i]:
            j = by_end[n_freed]
            n = _give_back(start, end, n, offset[j], offset[j] + rows.size[j])
            n_freed += 1
        work += 1 + n // RANGES_PER_WORK
        if work > max_work:
            return offset, np.int64(-1), work
        k = _find_free(start, end, n, rows.size[i], is_best_fit)
        offset[i] = start[k]
        start[k] += rows.size[i]
        peak = max(peak, start[k])
        if start[k] == end[k]:
            n -= 1
            for j in range(k, n):
                start[j] = start[j + 1]
                end[j] = end[j + 1]
    return offset, peak, work


@njit(cache=True)
def share_slots(rows, by_end, size_class, n_classes):
    """Give rows of one size class the fewest slots such that those in one slot never live together. O(rows).

    Returns
    -------
    slot, n_slots
        int64 (rows,): the slot within its class; int64 (classes,).
    """
    n = len(rows.start)
    slot = np.empty(n, np.int64)
    n_slots = np.zeros(n_classes, np.int64)
    last_free = np.full(n_classes, -1, np.int64)
    before = np.empty(n, np.int64)
    n_freed = 0
    for i in range(n):
        while rows.end[by_end[n_freed]] <= rows.start[i]:
            j = by_end[n_freed]
            before[j] = last_free[size_class[j]]
            last_free[size_class[j]] = j
            n_freed += 1
        c = size_class[i]
        if last_free[c] >= 0:
            slot[i] = slot[last_free[c]]
            last_free[c] = before[last_free[c]]
        else:
            slot[i] = n_slots[c]
            n_slots[c] += 1
    return slot, n_slots
