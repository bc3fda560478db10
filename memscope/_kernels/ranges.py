"""Sorted, disjoint address ranges in plain arrays, each with a key; compiled.

Two ranges that touch are merged exactly if their keys are equal: every ``cudaMalloc`` segment has its own key, all
runs of one expandable reservation share one. Insertion and removal move the tail of the arrays: O(n) copied, which
for the few thousand free blocks of real traces is far cheaper than any tree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit


class Ranges(NamedTuple):
    """Ranges ``[start[i], end[i])`` for i below ``n[0]``, ascending; int64 arrays with room to spare."""

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    key: npt.NDArray[np.int64]
    n: npt.NDArray[np.int64]


@njit(cache=True)
def make_ranges(capacity):
    """Empty ranges with room for ``capacity`` of them."""
    return Ranges(
        np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int64), np.zeros(1, np.int64)
    )


@njit(cache=True)
def find_range(ranges, address):
    """Position of the range that contains the address, −1 if none does. O(log n)."""
    i = np.searchsorted(ranges.start[: ranges.n[0]], address, side="right") - 1
    if i >= 0 and address < ranges.end[i]:
        return i
    return -1


@njit(cache=True)
def _open_gap(ranges, i):
    n = ranges.n[0]
    for column in (ranges.start, ranges.end, ranges.key):
        for j in range(n, i, -1):
            column[j] = column[j - 1]
    ranges.n[0] = n + 1


@njit(cache=True)
def _close_gap(ranges, i):
    n = ranges.n[0]
    for column in (ranges.start, ranges.end, ranges.key):
        for j in range(i, n - 1):
            column[j] = column[j + 1]
    ranges.n[0] = n - 1


@njit(cache=True)
def insert_range(ranges, start, end, key):
    """Add a range and merge it with neighbours of the same key; False (and no change) if it overlaps one.

    The caller guarantees room for one more.
    """
    n = ranges.n[0]
    i = np.searchsorted(ranges.start[:n], start, side="right")
    if (i > 0 and ranges.end[i - 1] > start) or (i < n and ranges.start[i] < end):
        return False
    joins_left = i > 0 and ranges.end[i - 1] == start and ranges.key[i - 1] == key
    joins_right = i < n and ranges.start[i] == end and ranges.key[i] == key
    if joins_left and joins_right:
        ranges.end[i - 1] = ranges.end[i]
        _close_gap(ranges, i)
    elif joins_left:
        ranges.end[i - 1] = end
    elif joins_right:
        ranges.start[i] = start
    else:
        _open_gap(ranges, i)
        ranges.start[i] = start
        ranges.end[i] = end
        ranges.key[i] = key
    return True


@njit(cache=True)
def remove_range(ranges, start, end):
    """Take ``[start, end)`` out of the one range that contains it; False (and no change) if none does.

    The caller guarantees room for one more: cutting out of the middle leaves two.
    """
    i = find_range(ranges, start)
    if i < 0 or ranges.end[i] < end:
        return False
    old_end = ranges.end[i]
    if ranges.start[i] == start:
        if old_end == end:
            _close_gap(ranges, i)
        else:
            ranges.start[i] = end
        return True
    ranges.end[i] = start
    if old_end > end:
        _open_gap(ranges, i + 1)
        ranges.start[i + 1] = end
        ranges.end[i + 1] = old_end
        ranges.key[i + 1] = ranges.key[i]
    return True
