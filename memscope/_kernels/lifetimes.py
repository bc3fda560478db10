"""Pairing allocs with their frees, and the layout of blocks they imply; compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from memscope._kernels.caching_rules import round_size, should_split
from memscope._kernels.ranges import find_range, insert_range, make_ranges, remove_range

ALLOC = 0
FREE_REQUESTED = 1
FREE_COMPLETED = 2
SEGMENT_ALLOC = 3
SEGMENT_FREE = 4
SEGMENT_MAP = 5
SEGMENT_UNMAP = 6

OK = 0
ALLOCATED_TWICE = 1
FREED_TWICE = 2
FREE_SIZE_DIFFERS = 3


class Pairs(NamedTuple):
    """One row for each allocation seen: int64 arrays, events relative to the first of the device.

    ``alloc_event`` −1: it predates the events. ``free_event`` −1: its free never completed.
    """

    alloc_event: npt.NDArray[np.int64]
    free_requested_event: npt.NDArray[np.int64]
    free_event: npt.NDArray[np.int64]
    address: npt.NDArray[np.int64]
    requested_bytes: npt.NDArray[np.int64]


@njit(cache=True)
def pair_events(action, address, size_bytes, slot_of_event, n_slots, frees_at_request, allocs_recorded):
    """Pair the allocs of one device with their frees, by address.

    Parameters
    ----------
    action, address, size_bytes
        int8 (n,), int64 (n,), int64 (n,): the device's events in order.
    slot_of_event, n_slots
        int64 (n,): a dense id of each event's address, below ``n_slots``.
    frees_at_request
        True where completions were not recorded at all: then a ``free_requested`` closes.
    allocs_recorded
        False where allocs were not recorded at all: then frees without one prove nothing.

    Returns
    -------
    pairs, n_unmatched_frees, n_implied_frees, problem, problem_event
        ``pairs`` as :class:`Pairs`; the number of frees whose alloc was not seen; of allocs that found their address
        still open although no free was recorded; the first contradiction's code (``OK`` if none) and its event.
    """
    n = len(action)
    was_seen = np.zeros(n_slots, np.bool_)
    open_row = np.full(n_slots, -1, np.int64)
    alloc_event = np.empty(n, np.int64)
    requested_event = np.empty(n, np.int64)
    free_event = np.empty(n, np.int64)
    row_address = np.empty(n, np.int64)
    requested_bytes = np.empty(n, np.int64)
    n_rows = 0
    n_unmatched = 0
    n_implied = 0
    problem = OK
    problem_event = -1
    for event in range(n):
        kind = action[event]
        if kind > FREE_COMPLETED:
            continue
        slot = slot_of_event[event]
        row = open_row[slot]
        if kind == ALLOC:
            if row >= 0:
                n_implied += 1
                free_event[row] = event
                if requested_event[row] < 0:
                    requested_event[row] = event
                if problem == OK and not frees_at_request:
                    problem = ALLOCATED_TWICE
                    problem_event = event
            new_row = True
        elif row < 0:
            # The second event of a free pair whose alloc is unseen finds the row that the first one made.
            if was_seen[slot] and allocs_recorded and problem == OK:
                problem = FREED_TWICE
                problem_event = event
            n_unmatched += 1
            new_row = not was_seen[slot] or not allocs_recorded
            if not new_row:
                continue
        else:
            new_row = False
            if size_bytes[event] != requested_bytes[row] and problem == OK:
                problem = FREE_SIZE_DIFFERS
                problem_event = event
        if new_row:
            row = np.int64(n_rows)
            n_rows += 1
            was_seen[slot] = True
            open_row[slot] = row
            alloc_event[row] = event if kind == ALLOC else -1
            requested_event[row] = -1
            free_event[row] = -1
            row_address[row] = address[event]
            requested_bytes[row] = size_bytes[event]
        if kind == FREE_REQUESTED and requested_event[row] >= 0:
            if problem == OK:
                problem = FREED_TWICE
                problem_event = event
        elif kind == FREE_REQUESTED:
            requested_event[row] = event
        if kind == FREE_COMPLETED or (kind == FREE_REQUESTED and frees_at_request):
            if requested_event[row] < 0:
                # A free that was requested before the recording began, or whose request was not recorded.
                requested_event[row] = event if alloc_event[row] >= 0 else -1
            free_event[row] = event
            open_row[slot] = -1
    pairs = Pairs(
        alloc_event[:n_rows].copy(),
        requested_event[:n_rows].copy(),
        free_event[:n_rows].copy(),
        row_address[:n_rows].copy(),
        requested_bytes[:n_rows].copy(),
    )
    return pairs, n_unmatched, n_implied, problem, problem_event


@njit(cache=True)
def lay_out(
    action,
    address,
    size_bytes,
    segment_key,
    key_never_splits,
    start_ranges,
    pairs,
    block_bytes,
    is_exact,
    row_key,
    row_of_event,
    rules,
):
    """Find the block size of every allocation by following the free ranges forward.

    An alloc takes the front of the free range at its address; whether it takes the whole is the split rule. Where the
    recording began mid-life the size of a block that predates it may be known only from below; an alloc that starts
    beyond the free range's start proves how far the block before it reaches.

    Parameters
    ----------
    action, address, size_bytes, segment_key
        (n,) events of one device; the range key of segment events, −1 for others.
    key_never_splits
        bool (k,): by range key, whether its pool hands out whole blocks only.
    start_ranges
        :class:`Ranges` of what is free before the first event, with room for n more; changed in place.
    pairs
        :class:`Pairs`.
    block_bytes, is_exact, row_key
        (rows,) int64, bool, int64: in: of the allocations that predate the events; out: of all.
    row_of_event
        int64 (n,): row of the alloc, or of the completed free, at an event; −1 for others.
    rules
        :class:`CachingRules`.

    Returns
    -------
    n_misplaced, first_misplaced
        Events that do not fit the layout (an alloc where nothing is free, a segment freed while in use), and the first.
    """
    n_misplaced = 0
    first_misplaced = -1
    before_rows = np.flatnonzero(pairs.alloc_event < 0)
    before_rows = before_rows[np.argsort(pairs.address[before_rows])]
    before_address = pairs.address[before_rows]
    for event in range(len(action)):
        kind = action[event]
        fits = True
        if kind == ALLOC:
            row = row_of_event[event]
            rounded = round_size(size_bytes[event], rules.roundup_divisions)
            i = find_range(start_ranges, address[event])
            if i >= 0 and start_ranges.start[i] < address[event]:
                fits = _extend_block_before(
                    start_ranges, i, address[event], event, before_rows, before_address, pairs, block_bytes, is_exact
                )
                i = find_range(start_ranges, address[event])
            if i < 0 or start_ranges.end[i] - address[event] < rounded:
                fits = False
                block_bytes[row] = rounded
                is_exact[row] = False
                row_key[row] = -1
            else:
                available = start_ranges.end[i] - address[event]
                splits = should_split(available, rounded, rules.max_split_bytes, rules.is_expandable)
                splits = splits and not key_never_splits[start_ranges.key[i]]
                block_bytes[row] = rounded if splits else available
                is_exact[row] = fits
                row_key[row] = start_ranges.key[i]
                remove_range(start_ranges, address[event], address[event] + block_bytes[row])
        elif row_of_event[event] >= 0:
            row = row_of_event[event]
            if row_key[row] >= 0:
                start = pairs.address[row]
                fits = insert_range(start_ranges, start, start + block_bytes[row], row_key[row])
        elif kind in (SEGMENT_ALLOC, SEGMENT_MAP):
            fits = insert_range(start_ranges, address[event], address[event] + size_bytes[event], segment_key[event])
        elif kind in (SEGMENT_FREE, SEGMENT_UNMAP):
            fits = remove_range(start_ranges, address[event], address[event] + size_bytes[event])
        if not fits:
            n_misplaced += 1
            if first_misplaced < 0:
                first_misplaced = event
    return n_misplaced, first_misplaced


@njit(cache=True)
def _extend_block_before(free, i, address, event, before_rows, before_address, pairs, block_bytes, is_exact):
    """Give the space before an alloc to the block that ends there, if that block predates the events. O(log n)."""
    start = free.start[i]
    position = np.searchsorted(before_address, start) - 1
    if position < 0:
        return False
    row = before_rows[position]
    is_live = pairs.free_event[row] < 0 or pairs.free_event[row] > event
    if is_exact[row] or not is_live or pairs.address[row] + block_bytes[row] != start:
        return False
    block_bytes[row] = address - pairs.address[row]
    is_exact[row] = True
    remove_range(free, start, address)
    return True


@njit(cache=True)
def ranges_after(start, end, key, action, address, size_bytes, segment_key):
    """Segments, and mapped runs, that exist after some segment events.

    ``start, end, key`` (m,) are those before the first; the others are the (n,) segment events, in order. Events that
    do not fit are left out. Returns :class:`Ranges`.
    """
    ranges = make_ranges(len(start) + 2 * len(action) + 1)
    for i in range(len(start)):
        insert_range(ranges, start[i], end[i], key[i])
    for event in range(len(action)):
        last = address[event] + size_bytes[event]
        if action[event] == SEGMENT_ALLOC or action[event] == SEGMENT_MAP:
            insert_range(ranges, address[event], last, segment_key[event])
        else:
            remove_range(ranges, address[event], last)
    return ranges


@njit(cache=True)
def ranges_before(start, end, key, action, address, size_bytes, segment_key):
    """Segments, and mapped runs, that existed before some segment events, by undoing them from the final ones.

    Arguments as for :func:`ranges_after`, with the (m,) final segments. Returns :class:`Ranges`, the number of events
    that could not be undone, and the first of them (−1 if none).
    """
    n = len(action)
    ranges = make_ranges(len(start) + 2 * n + 1)
    for i in range(len(start)):
        insert_range(ranges, start[i], end[i], key[i])
    n_misfits = 0
    first_misfit = -1
    for event in range(n - 1, -1, -1):
        last = address[event] + size_bytes[event]
        if action[event] in (SEGMENT_ALLOC, SEGMENT_MAP):
            fits = remove_range(ranges, address[event], last)
        else:
            fits = insert_range(ranges, address[event], last, segment_key[event])
        if not fits:
            n_misfits += 1
            first_misfit = event
    return ranges, n_misfits, first_misfit


@njit(cache=True)
def carve_blocks(start, end, key, block_address, block_bytes, n_room):
    """What is free in some ranges once blocks are taken out of them.

    Parameters
    ----------
    start, end, key
        int64 (m,): the ranges.
    block_address, block_bytes
        int64 (b,): the blocks.
    n_room
        Ranges that may be added to the result later.

    Returns
    -------
    free, block_key
        :class:`Ranges`, and int64 (b,) the key of the range that holds each block, −1 where none does.
    """
    free = make_ranges(len(start) + len(block_address) + n_room + 1)
    for i in range(len(start)):
        insert_range(free, start[i], end[i], key[i])
    block_key = np.full(len(block_address), -1, np.int64)
    for b in range(len(block_address)):
        i = find_range(free, block_address[b])
        if i >= 0 and free.end[i] >= block_address[b] + block_bytes[b]:
            block_key[b] = free.key[i]
            remove_range(free, block_address[b], block_address[b] + block_bytes[b])
    return free, block_key
