"""Tables out of a pickle tape: rows of dicts, contents of lists, and dense ids for what repeats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from memscope._kernels.tape_format import BOX, DICT, STR, TAG_BITS, TAG_MASK, TUPLE

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Int8s = npt.NDArray[np.int8]

REPEATED = -2
"""Returned in place of a row, where one box stands in so many places that going through them would never end."""

_HASH_PRIME = 1099511628211
_HASH_MASK = (1 << 62) - 1


@njit(cache=True)
def dict_rows(
    values: Int64s,
    key_column: Int8s,
    arena: Int64s,
    box_first: Int64s,
    box_kind: Int8s,
    limit: int,
    out: Int64s,
    seen: npt.NDArray[np.bool_],
) -> int:
    """Look up the wanted keys of many dicts.

    ``out[c, i]`` becomes the tagged value that dict ``values[i]`` has for the key of column ``c``, as found last; it
    stays as it was where there is none. ``key_column`` maps text ids to columns, −1 to none; of a column past
    the last of ``out`` only ``seen`` is set. Returns the first row that is not a dict, −1 if all are, ``REPEATED``
    if they have more than ``limit`` items in all, which only one dict in very many places can have. O(items).
    """
    walked = 0
    for i in range(len(values)):
        value = values[i]
        box = value >> TAG_BITS
        if value & TAG_MASK != BOX or box_kind[box] != DICT:
            return i
        chunk = box_first[box]
        while chunk != 0:
            walked += arena[chunk + 1]
            if walked > limit:
                return REPEATED
            for k in range(chunk + 2, chunk + 2 + arena[chunk + 1], 2):
                key = arena[k]
                if key & TAG_MASK == STR and (key >> TAG_BITS) < len(key_column):
                    column = key_column[key >> TAG_BITS]
                    if column >= 0:
                        seen[column] = True
                        if column < len(out):
                            out[column, i] = arena[k + 1]
            chunk = arena[chunk]
    return -1


@njit(cache=True)
def box_lengths(values: Int64s, arena: Int64s, box_first: Int64s, box_kind: Int8s, limit: int, out: Int64s) -> int:
    """Number of items of each list or tuple. Returns the first row that is neither, −1 if all are.

    ``REPEATED`` is returned after ``limit`` chunks. O(chunks).
    """
    walked = 0
    for i in range(len(values)):
        box = values[i] >> TAG_BITS
        if values[i] & TAG_MASK != BOX or box_kind[box] > TUPLE:
            return i
        n = 0
        chunk = box_first[box]
        while chunk != 0:
            walked += 1
            n += arena[chunk + 1]
            chunk = arena[chunk]
        if walked > limit:
            return REPEATED
        out[i] = n
    return -1


@njit(cache=True)
def box_items(values: Int64s, limit: int, arena: Int64s, box_first: Int64s, out: Int64s) -> int:
    """Items of many boxes, one after the other, at most ``limit`` of each; returns how many. O(items)."""
    n = 0
    for i in range(len(values)):
        left = limit
        chunk = box_first[values[i] >> TAG_BITS]
        while chunk != 0 and left > 0:
            for k in range(chunk + 2, chunk + 2 + min(arena[chunk + 1], left)):
                out[n] = arena[k]
                n += 1
            left -= arena[chunk + 1]
            chunk = arena[chunk]
    return n


@njit(cache=True)
def mark_items(boxes: Int64s, arena: Int64s, box_first: Int64s, flags: npt.NDArray[np.bool_]) -> int:
    """Flag the boxes that are items of the boxes given. Returns the first row with another item, −1. O(items)."""
    for i in range(len(boxes)):
        chunk = box_first[boxes[i]]
        while chunk != 0:
            for k in range(chunk + 2, chunk + 2 + arena[chunk + 1]):
                if arena[k] & TAG_MASK != BOX:
                    return i
                flags[arena[k] >> TAG_BITS] = True
            chunk = arena[chunk]
    return -1


@njit(cache=True)
def dense_ids(rows: Int64s, seed: int, slots: Int64s, out: Int32s, first_row: Int64s) -> int:
    """Number distinct columns of ``rows`` (k, n) by first appearance; returns how many there are.

    ``slots`` is zeroed, a power of two larger than n; ``first_row[id]`` is where an id first appears. Expected O(k n).
    """
    k, n = rows.shape
    mask = len(slots) - 1
    n_ids = 0
    for i in range(n):
        h = seed
        for c in range(k):
            # Spread all 64 bits: addresses and ids differ mostly in few of them.
            v = int(rows[c, i]) & _HASH_MASK
            h = ((h ^ (v & 0xFFFFFF)) * _HASH_PRIME) & _HASH_MASK
            h = ((h ^ (v >> 24)) * _HASH_PRIME) & _HASH_MASK
            h ^= h >> 31
        slot = h & mask
        while True:
            found = slots[slot] - 1
            if found < 0:
                slots[slot] = n_ids + 1
                first_row[n_ids] = i
                out[i] = n_ids
                n_ids += 1
                break
            same = True
            for c in range(k):
                same &= rows[c, first_row[found]] == rows[c, i]
            if same:
                out[i] = found
                break
            slot = (slot + 1) & mask
    return n_ids


@njit(cache=True)
def intern_runs(
    boxes: Int64s,
    child_id: Int32s,
    seed: int,
    slots: Int64s,
    arena: Int64s,
    box_first: Int64s,
    out: Int32s,
) -> tuple[int, Int64s, Int32s]:
    """Number lists by the run of ids of their items; empty ones get −1.

    ``boxes`` are box ids of lists whose items are all boxes, ``child_id`` maps a box id to an item's id. ``slots`` is
    zeroed, a power of two larger than the number of boxes. Returns the number of distinct runs, their offsets (as many
    + 1 rows of it are valid) and their concatenated ids. Expected O(items); only distinct runs are stored.
    """
    mask = len(slots) - 1
    # Copies below are loops: numba takes seconds to compile an assignment of slices.
    offsets = np.zeros(1024, np.int64)
    ids = np.empty(4096, np.int32)
    n_runs, n_ids = 0, 0
    for i in range(len(boxes)):
        start = n_ids
        h = seed
        chunk = box_first[boxes[i]]
        while chunk != 0:
            n = arena[chunk + 1]
            if n_ids + n > len(ids):
                larger = np.empty(max(2 * len(ids), n_ids + n), np.int32)
                for k in range(n_ids):
                    larger[k] = ids[k]
                ids = larger
            for k in range(chunk + 2, chunk + 2 + n):
                child = int(child_id[arena[k] >> TAG_BITS])
                ids[n_ids] = child
                n_ids += 1
                h = ((h ^ (child + 1)) * _HASH_PRIME) & _HASH_MASK
                h ^= h >> 31
            chunk = arena[chunk]
        length = n_ids - start
        if length == 0:
            out[i] = -1
            continue
        slot = h & mask
        found = -1
        while slots[slot] != 0:
            candidate = slots[slot] - 1
            other = offsets[candidate]
            if offsets[candidate + 1] - other == length:
                same = True
                for k in range(length):
                    if ids[other + k] != ids[start + k]:
                        same = False
                        break
                if same:
                    found = candidate
                    break
            slot = (slot + 1) & mask
        if found >= 0:
            out[i] = found
            n_ids = start
            continue
        if n_runs + 2 > len(offsets):
            more = np.zeros(2 * len(offsets), np.int64)
            for k in range(n_runs + 1):
                more[k] = offsets[k]
            offsets = more
        slots[slot] = n_runs + 1
        out[i] = n_runs
        n_runs += 1
        offsets[n_runs] = n_ids
    return n_runs, offsets, ids
