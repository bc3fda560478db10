"""What is free, and what of it could go back, after every event of a device; compiled.

The free ranges and the segments are followed once through the events, in O(log n) each. What an event changes is told
by the few ranges that it touches; only the largest free range of a group needs more: a heap for each group, from which
ranges that have gone since are dropped when they come to its top.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from memscope._kernels.compiled import borrowing
from memscope._kernels.ranges import CHUNK_ROWS, find_range, insert_range, remove_range

RESERVED = 0
ACTIVE = 1
REQUESTED = 2
RELEASABLE = 3
LARGEST_FREE = 4
N_SEGMENTS = 5
N_ACTIVE = 6
N_FREE = 7
N_VALUES = 8

NEVER = 0
WHOLE = 1
"""Release rules of a segment: not at all (a private pool), or as a whole; a larger number is the bytes of a handle."""

NONE = -1
_SEGMENT_ALLOC = 3
_SEGMENT_FREE = 4
_SEGMENT_MAP = 5
_SEGMENT_UNMAP = 6


class Follower(NamedTuple):
    """Everything that the events change; int64 arrays.

    Attributes
    ----------
    segments, free
        :class:`~memscope._kernels.ranges.Ranges`.
    key_group, key_rule
        (k,): group, and release rule, of each key of these ranges.
    values
        (``N_VALUES``, groups + 1): of each group, and in all in the last column.
    heap
        (4, m): size, start, and the left and right child of each node.
    root
        (groups + 1,): top of each group's heap, and the number of nodes in use at the end.
    """

    segments: NamedTuple
    free: NamedTuple
    key_group: npt.NDArray[np.int64]
    key_rule: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    heap: npt.NDArray[np.int64]
    root: npt.NDArray[np.int64]


_SIZE = 0
_START = 1
_LEFT = 2
_RIGHT = 3


@borrowing
def _merged_heaps(heap, a, b):
    """Top of two heaps made one: a skew heap, whose merges cost O(log n) on average over any run of them."""
    if a < 0:
        return b
    if b < 0:
        return a
    if heap[_SIZE, a] < heap[_SIZE, b]:
        a, b = b, a
    top = a
    while True:
        right = heap[_RIGHT, a]
        heap[_RIGHT, a] = heap[_LEFT, a]
        if right < 0:
            heap[_LEFT, a] = b
            return top
        if heap[_SIZE, right] < heap[_SIZE, b]:
            right, b = b, right
        heap[_LEFT, a] = right
        a = right


@borrowing
def _push(at, group, start, size):
    node = at.root[-1]
    at.root[-1] += 1
    at.heap[_SIZE, node] = size
    at.heap[_START, node] = start
    at.heap[_LEFT, node] = NONE
    at.heap[_RIGHT, node] = NONE
    at.root[group] = _merged_heaps(at.heap, at.root[group], node)


@borrowing
def _largest(at, group):
    """Size of the group's largest free range, 0 if it has none."""
    heap, free = at.heap, at.free
    node = at.root[group]
    while node >= 0:
        start, size = heap[_START, node], heap[_SIZE, node]
        i = find_range(free, start)
        if i >= 0 and free.start[i] == start and free.end[i] == start + size and at.key_group[free.key[i]] == group:
            break
        node = _merged_heaps(heap, heap[_LEFT, node], heap[_RIGHT, node])
    at.root[group] = node
    return heap[_SIZE, node] if node >= 0 else np.int64(0)


@borrowing
def _add(at, group, value, change):
    at.values[value, group] += change
    at.values[value, -1] += change


@borrowing
def _releasable(at, start, end, key):
    """Bytes of a free range that ``empty_cache`` would give back."""
    rule = at.key_rule[key]
    i = find_range(at.segments, start)
    if rule == NEVER or i < 0:
        return np.int64(0)
    segment_start = at.segments.start[i]
    if rule == WHOLE:
        return end - start if segment_start == start and at.segments.end[i] == end else np.int64(0)
    first_handle = -((segment_start - start) // rule)
    last_handle = (end - segment_start) // rule
    return max(last_handle - first_handle, np.int64(0)) * rule


@borrowing
def _count(at, start, end, key, sign):
    """Count a free range in, or out."""
    group = at.key_group[key]
    _add(at, group, N_FREE, sign)
    _add(at, group, RELEASABLE, sign * _releasable(at, start, end, key))
    if sign > 0:
        _push(at, group, start, end - start)


@borrowing
def _give(at, start, end, key):
    """Make a range free; False if a part of it is already."""
    free = at.free
    left, right = find_range(free, start - 1), find_range(free, end)
    if left >= 0 and free.end[left] == start and free.key[left] == key:
        _count(at, free.start[left], start, key, -1)
    if right >= 0 and free.start[right] == end and free.key[right] == key:
        _count(at, end, free.end[right], key, -1)
    if not insert_range(free, start, end, key):
        return False
    i = find_range(free, start)
    _count(at, free.start[i], free.end[i], key, 1)
    return True


@borrowing
def _take(at, start, end):
    """Take a range out of what is free; its key, −1 if it is not all free."""
    free = at.free
    i = find_range(free, start)
    if i < 0 or free.end[i] < end:
        return NONE
    old_start, old_end, key = free.start[i], free.end[i], free.key[i]
    _count(at, old_start, old_end, key, -1)
    remove_range(free, start, end)
    if old_start < start:
        _count(at, old_start, start, key, 1)
    if end < old_end:
        _count(at, end, old_end, key, 1)
    return key


@borrowing
def _change_segments(at, kind, start, end, key):
    """Follow a segment event: its group, −1 if it does not fit."""
    grows = kind in (_SEGMENT_ALLOC, _SEGMENT_MAP)
    n_before = at.segments.n[0]
    if grows:
        if not insert_range(at.segments, start, end, key) or not _give(at, start, end, key):
            return NONE
    else:
        key = _take(at, start, end)
        if key < 0 or not remove_range(at.segments, start, end):
            return NONE
    group = at.key_group[key]
    _add(at, group, RESERVED, end - start if grows else start - end)
    _add(at, group, N_SEGMENTS, at.segments.n[0] - n_before)
    return group


@borrowing
def _change_block(at, key, block_bytes, requested_bytes, sign):
    """Count a block in, or out: its group."""
    group = at.key_group[key]
    _add(at, group, ACTIVE, sign * block_bytes)
    _add(at, group, REQUESTED, sign * requested_bytes)
    _add(at, group, N_ACTIVE, sign)
    return group


@borrowing
def _settle(at, group):
    """Find the largest free range of a group that changed, and that of all."""
    before = at.values[LARGEST_FREE, group]
    now = _largest(at, group)
    at.values[LARGEST_FREE, group] = now
    if now >= at.values[LARGEST_FREE, -1]:
        at.values[LARGEST_FREE, -1] = now
    elif before == at.values[LARGEST_FREE, -1]:
        for other in range(len(at.root) - 1):
            now = max(now, at.values[LARGEST_FREE, other])
        at.values[LARGEST_FREE, -1] = now


@borrowing
def begin(at, row_key, block_bytes, requested_bytes):
    """Count what stands before the first event: segments, free ranges, and the blocks whose ``row_key`` is not −1."""
    segments, free = at.segments, at.free
    for p in range(segments.n[1]):
        chunk = segments.order[p]
        for i in range(chunk * CHUNK_ROWS, chunk * CHUNK_ROWS + segments.n_rows[chunk]):
            group = at.key_group[segments.key[i]]
            _add(at, group, RESERVED, segments.end[i] - segments.start[i])
            _add(at, group, N_SEGMENTS, 1)
    for p in range(free.n[1]):
        chunk = free.order[p]
        for i in range(chunk * CHUNK_ROWS, chunk * CHUNK_ROWS + free.n_rows[chunk]):
            _count(at, free.start[i], free.end[i], free.key[i], 1)
    for row in range(len(row_key)):
        if row_key[row] >= 0:
            _change_block(at, row_key[row], block_bytes[row], requested_bytes[row], 1)
    for group in range(len(at.root) - 1):
        _settle(at, group)


@njit(cache=True, nogil=True)
def follow(at, action, address, size_bytes, segment_key, died_row, born_row, rows, row_key):
    """Follow the events, and note a group's values, and those in all, after each event that changes them.

    Parameters
    ----------
    at
        :class:`Follower`, as :func:`begin` left it.
    action, address, size_bytes, segment_key
        (n,) events of one device; the range key of segment events, −1 for others.
    died_row, born_row
        int64 (n,): row whose block is given back, and handed out, at an event; −1 for none.
    rows, row_key
        int64 (3, r): address, block bytes and requested bytes of each row; int64 (r,) the key of its segment, −1 where
        it lies in none, filled in for those that are born.

    Returns
    -------
    event, group, of_group, of_all, n_misfits
        int64 (c,) the events that change something and the group that they change; int64 (``N_VALUES``, c) its values
        after them, and those in all; the number of events that do not fit.
    """
    n = len(action)
    events = np.empty(n, np.int64)
    groups = np.empty(n, np.int64)
    of_group = np.empty((N_VALUES, n), np.int64)
    of_all = np.empty((N_VALUES, n), np.int64)
    n_changes = 0
    n_misfits = 0
    for event in range(n):
        group = NONE
        died, born, kind = died_row[event], born_row[event], action[event]
        if died >= 0 and row_key[died] >= 0:
            start, size = rows[0, died], rows[1, died]
            n_misfits += not _give(at, start, start + size, row_key[died])
            group = _change_block(at, row_key[died], size, rows[2, died], -1)
        if born >= 0:
            if group >= 0:
                _settle(at, group)
            start, size = rows[0, born], rows[1, born]
            key = _take(at, start, start + size)
            row_key[born] = key
            n_misfits += key < 0
            if key >= 0:
                group = _change_block(at, key, size, rows[2, born], 1)
        elif kind >= _SEGMENT_ALLOC and kind <= _SEGMENT_UNMAP:
            group = _change_segments(at, kind, address[event], address[event] + size_bytes[event], segment_key[event])
            n_misfits += group < 0
        if group >= 0:
            _settle(at, group)
            events[n_changes] = event
            groups[n_changes] = group
            for value in range(N_VALUES):
                of_group[value, n_changes] = at.values[value, group]
                of_all[value, n_changes] = at.values[value, -1]
            n_changes += 1
    return (
        events[:n_changes].copy(),
        groups[:n_changes].copy(),
        of_group[:, :n_changes].copy(),
        of_all[:, :n_changes].copy(),
        n_misfits,
    )
