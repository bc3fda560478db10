"""Sorted, disjoint address ranges in plain arrays, each with a key; compiled.

Two ranges that touch are merged exactly if their keys are equal: every ``cudaMalloc`` segment has its own key, all
runs of one expandable reservation share one.

The ranges lie in chunks of at most ``CHUNK_ROWS``, ascending within each, and a directory holds the chunks in order
with the first address of each. Finding is two binary searches. A change moves at most one chunk's rows; a full chunk is
halved, and one that fits into three quarters of a chunk together with a neighbour joins it, so that the directory has
fewer than 8 n / (3 ``CHUNK_ROWS``) + 1 entries and is itself moved only once in many changes. A tree would need no
moving, but real traces have a few thousand free blocks, for which a few contiguous rows are far cheaper.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from memscope._kernels.compiled import borrowing

CHUNK_ROWS = 128
_JOINS_UP_TO = CHUNK_ROWS * 3 // 4
NONE = -1


class Ranges(NamedTuple):
    """Ranges ``[start[i], end[i])`` for the rows i in use; int64 arrays. ``in_order`` lists them.

    Attributes
    ----------
    start, end, key
        (chunks · ``CHUNK_ROWS``,): chunk c has its ranges in the rows from c · ``CHUNK_ROWS`` on.
    n_rows
        (chunks,): ranges in each chunk.
    order
        (chunks,): the chunks by address; those beyond the first ``n[1]`` are not in use.
    first
        (chunks,): start of the first range of ``order[p]``, by p.
    n
        (2,): ranges, and chunks in use.
    """

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    key: npt.NDArray[np.int64]
    n_rows: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    n: npt.NDArray[np.int64]


@njit(cache=True)
def make_ranges(capacity):
    """Empty ranges with room for ``capacity`` of them."""
    n_chunks = 8 * capacity // (3 * CHUNK_ROWS) + 3
    return Ranges(
        np.empty(n_chunks * CHUNK_ROWS, np.int64),
        np.empty(n_chunks * CHUNK_ROWS, np.int64),
        np.empty(n_chunks * CHUNK_ROWS, np.int64),
        np.zeros(n_chunks, np.int64),
        np.arange(n_chunks),
        np.empty(n_chunks, np.int64),
        np.zeros(2, np.int64),
    )


@njit(cache=True)
def in_order(ranges):
    """The ranges, ascending: start, end, key, each int64 (n,)."""
    start = np.empty(ranges.n[0], np.int64)
    end = np.empty(ranges.n[0], np.int64)
    key = np.empty(ranges.n[0], np.int64)
    i = 0
    for p in range(ranges.n[1]):
        chunk = ranges.order[p]
        for row in range(chunk * CHUNK_ROWS, chunk * CHUNK_ROWS + ranges.n_rows[chunk]):
            start[i], end[i], key[i] = ranges.start[row], ranges.end[row], ranges.key[row]
            i += 1
    return start, end, key


@borrowing
def _last_up_to(values, low, high, value):
    """Last position in ``low`` to ``high`` (not included) of ascending values that is at most one, else ``low − 1``."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low - 1


@borrowing
def _locate(ranges, address):
    """Place in the directory and row of the last range that starts at or before an address; −1, −1 for none."""
    p = _last_up_to(ranges.first, 0, ranges.n[1], address)
    if p < 0:
        return NONE, NONE
    base = ranges.order[p] * CHUNK_ROWS
    return p, _last_up_to(ranges.start, base, base + ranges.n_rows[ranges.order[p]], address)


@borrowing
def find_range(ranges, address):
    """Row of the range that contains the address, −1 if none does. O(log n)."""
    _, i = _locate(ranges, address)
    if i >= 0 and address < ranges.end[i]:
        return i
    return NONE


@borrowing
def _move(ranges, source, target, n):
    """Copy n rows to where they may overlap themselves. One plain loop: unrolled ones would be slow to compile."""
    step = 1
    if target > source:
        step = -1
        source += n - 1
        target += n - 1
    for _ in range(n):
        ranges.start[target] = ranges.start[source]
        ranges.end[target] = ranges.end[source]
        ranges.key[target] = ranges.key[source]
        source += step
        target += step


@borrowing
def _open_chunk(ranges, p):
    """Put an empty chunk into the directory at p; returns it. Its first address is the caller's to set."""
    chunk = ranges.order[ranges.n[1]]
    for q in range(ranges.n[1], p, -1):
        ranges.order[q] = ranges.order[q - 1]
        ranges.first[q] = ranges.first[q - 1]
    ranges.order[p] = chunk
    ranges.n_rows[chunk] = 0
    ranges.n[1] += 1
    return chunk


@borrowing
def _close_chunk(ranges, p):
    chunk = ranges.order[p]
    ranges.n[1] -= 1
    for q in range(p, ranges.n[1]):
        ranges.order[q] = ranges.order[q + 1]
        ranges.first[q] = ranges.first[q + 1]
    ranges.order[ranges.n[1]] = chunk


@borrowing
def _halve(ranges, p):
    """Move the upper half of a full chunk to a new one after it."""
    lower = ranges.order[p]
    upper = _open_chunk(ranges, p + 1)
    half = CHUNK_ROWS // 2
    _move(ranges, lower * CHUNK_ROWS + half, upper * CHUNK_ROWS, CHUNK_ROWS - half)
    ranges.n_rows[lower] = half
    ranges.n_rows[upper] = CHUNK_ROWS - half
    ranges.first[p + 1] = ranges.start[upper * CHUNK_ROWS]


@borrowing
def _add_row(ranges, p, i, start, end, key):
    """Put a range in after the one in row i of the chunk at p; before all if there is none (−1, −1)."""
    if ranges.n[1] == 0:
        _open_chunk(ranges, 0)
    if p < 0:
        p, i = 0, ranges.order[0] * CHUNK_ROWS - 1
    j = i + 1 - ranges.order[p] * CHUNK_ROWS
    if ranges.n_rows[ranges.order[p]] == CHUNK_ROWS:
        _halve(ranges, p)
        if j > CHUNK_ROWS // 2:
            p += 1
            j -= CHUNK_ROWS // 2
    chunk = ranges.order[p]
    row = chunk * CHUNK_ROWS + j
    _move(ranges, row, row + 1, ranges.n_rows[chunk] - j)
    ranges.start[row] = start
    ranges.end[row] = end
    ranges.key[row] = key
    ranges.n_rows[chunk] += 1
    ranges.n[0] += 1
    if j == 0:
        ranges.first[p] = start


@borrowing
def _drop_row(ranges, p, i):
    """Take the range in row i of the chunk at p out, and join the chunk with a neighbour if few are left."""
    chunk = ranges.order[p]
    base = chunk * CHUNK_ROWS
    ranges.n_rows[chunk] -= 1
    ranges.n[0] -= 1
    _move(ranges, i + 1, i, base + ranges.n_rows[chunk] - i)
    if ranges.n_rows[chunk] == 0:
        _close_chunk(ranges, p)
        return
    ranges.first[p] = ranges.start[base]
    if not _join(ranges, p) and p > 0:
        _join(ranges, p - 1)


@borrowing
def _join(ranges, p):
    """Move the rows of the chunk after p into the one at p if they are few together; whether they were."""
    if p + 1 >= ranges.n[1]:
        return False
    lower, upper = ranges.order[p], ranges.order[p + 1]
    n_lower, n_upper = ranges.n_rows[lower], ranges.n_rows[upper]
    if n_lower + n_upper > _JOINS_UP_TO:
        return False
    _move(ranges, upper * CHUNK_ROWS, lower * CHUNK_ROWS + n_lower, n_upper)
    ranges.n_rows[lower] = n_lower + n_upper
    _close_chunk(ranges, p + 1)
    return True


@borrowing
def _start_at(ranges, p, i, start):
    ranges.start[i] = start
    ranges.first[p] = ranges.start[ranges.order[p] * CHUNK_ROWS]


@borrowing
def _after(ranges, p, i):
    """Place and row of the range after the one in row i of the chunk at p (−1, −1: the first); −1, −1 for none."""
    if p >= 0 and i + 1 < ranges.order[p] * CHUNK_ROWS + ranges.n_rows[ranges.order[p]]:
        return p, i + 1
    if p + 1 < ranges.n[1]:
        return p + 1, ranges.order[p + 1] * CHUNK_ROWS
    return NONE, NONE


@borrowing
def insert_range(ranges, start, end, key):
    """Add a range and merge it with neighbours of the same key; False (and no change) if it overlaps one.

    The caller guarantees room for one more. O(log n), and rarely a move of the directory.
    """
    p, i = _locate(ranges, start)
    q, k = _after(ranges, p, i)
    if (i >= 0 and ranges.end[i] > start) or (k >= 0 and ranges.start[k] < end):
        return False
    joins_left = i >= 0 and ranges.end[i] == start and ranges.key[i] == key
    joins_right = k >= 0 and ranges.start[k] == end and ranges.key[k] == key
    if joins_left and joins_right:
        ranges.end[i] = ranges.end[k]
        _drop_row(ranges, q, k)
    elif joins_left:
        ranges.end[i] = end
    elif joins_right:
        _start_at(ranges, q, k, start)
    else:
        _add_row(ranges, p, i, start, end, key)
    return True


@borrowing
def remove_range(ranges, start, end):
    """Take ``[start, end)`` out of the one range that contains it; False (and no change) if none does.

    The caller guarantees room for one more: cutting out of the middle leaves two. O(log n), and rarely a move of the
    directory.
    """
    p, i = _locate(ranges, start)
    if i < 0 or start >= ranges.end[i] or ranges.end[i] < end:
        return False
    old_end = ranges.end[i]
    if ranges.start[i] == start:
        if old_end == end:
            _drop_row(ranges, p, i)
        else:
            _start_at(ranges, p, i, end)
        return True
    ranges.end[i] = start
    if old_end > end:
        _add_row(ranges, p, i, end, old_end, ranges.key[i])
    return True
