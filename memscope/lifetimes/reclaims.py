"""Memory given back to the driver in runs, and what they tell of how much the driver could have given out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope._core import caching
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import rules_of
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int64Array

_TAKES = (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP, Action.OOM)
_MIN_WITNESSES = 3
_WIDTH_FRAC = 0.05
"""So many requests must have been refused, and the least that was refused must lie this close above the most that was
granted: no other reason to give memory back stops at the same total each time."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Runs of segments, or parts of them, given back one directly after the other; every array but one is by run.

    Attributes
    ----------
    position
        int64 (k,): every event that gives something back, counted from the device's first.
    begins
        bool (k,): which of them begin a run.
    start, end
        int64 (m,): half-open ranges of positions.
    given_bytes
        int64 (m,): bytes given back.
    takes
        bool (m,): whether the next event takes memory from the driver, or fails to.
    wanted_bytes
        int64 (m,): what would have been reserved with that and without the run; −1 where nothing is taken, or reserved
        bytes are not known.
    had_room
        bool (m,): whether one of the segments that were given back would have served the next request: then PyTorch,
        which looks among its free blocks first, did not give it back for that request.
    """

    position: Int64Array
    begins: BoolArray
    start: Int64Array
    end: Int64Array
    given_bytes: Int64Array
    takes: BoolArray
    wanted_bytes: Int64Array
    had_room: BoolArray


class RefusedAbove(NamedTuple):
    """What reclaims say of the memory that an allocator could have: at least this, and less than that; by how many."""

    granted_bytes: int
    refused_bytes: int
    n_reclaims: int


def given_back(lifetimes: DeviceLifetimes) -> GivenBack:
    """Every run of memory given back by a device. Linear in the events."""
    trace, first = lifetimes.trace, lifetimes.first_event
    action, size = trace.action[first : lifetimes.end_event], trace.size_bytes[first : lifetimes.end_event]
    given = np.flatnonzero((action == Action.SEGMENT_FREE) | (action == Action.SEGMENT_UNMAP))
    begins = np.ones(len(given), np.bool_)
    begins[1:] = np.diff(given) > 1
    ends = np.append(begins[1:], True) if len(given) else begins
    start, end = given[begins], given[ends] + 1
    given_bytes = np.zeros(len(start), np.int64)
    np.add.at(given_bytes, np.cumsum(begins) - 1, size[given])
    following = np.minimum(end, max(len(action) - 1, 0))
    takes: BoolArray = (end < len(action)) & np.isin(action[following], _TAKES)
    reserved = lifetimes.usage.reserved_bytes
    wanted = np.full(len(start), NONE_ID, np.int64)
    if reserved is not None:
        wanted[takes] = reserved[start[takes]] + size[following[takes]]
    had_room = _had_room(lifetimes, given, np.cumsum(begins) - 1, following, takes)
    return GivenBack(given, begins, start, end, given_bytes, takes, wanted, had_room)


def _had_room(
    lifetimes: DeviceLifetimes, given: Int64Array, run: Int64Array, following: Int64Array, takes: BoolArray
) -> BoolArray:
    """Whether a segment of a run is of the next request's stream, pool and size class, and large enough: bool (m,)."""
    trace, first, rules = lifetimes.trace, lifetimes.first_event, rules_of(lifetimes.trace.metadata)
    found = np.zeros(len(takes), np.bool_)
    if not len(takes):
        return found
    # After a segment comes the block in it; an error says itself what was asked for.
    request = first + np.minimum(following + (trace.action[first + following] != Action.OOM), lifetimes.n_events - 1)
    is_request = takes & np.isin(trace.action[request], (Action.ALLOC, Action.OOM))
    # Which pool a segment is of was not always recorded.
    if not np.any(is_request) or (not trace.metadata.has_pool_ids and np.any(trace.segments.pool_id > 0)):
        return found
    rounded = rules.round_sizes(np.where(is_request, trace.size_bytes[request], 1))
    block, needed, event = trace.size_bytes[first + given], rounded[run], first + given
    serves = is_request[run] & (block >= needed) & (block < rules.max_split_bytes)
    serves &= (block > caching.SMALL_SEGMENT_BYTES) == (needed > caching.SMALL_BYTES)
    serves &= trace.stream_id[event] == trace.stream_id[request[run]]
    serves &= trace.pool_id[event] == trace.pool_id[request[run]]
    np.logical_or.at(found, run, serves)
    return found


def refused_above(lifetimes: DeviceLifetimes) -> RefusedAbove | None:
    """What a device's reclaims say together of the memory that PyTorch could have; None where they do not agree.

    A reclaim that a request made necessary says that the driver, or a cap, refused what would have been reserved with
    it. A program that empties its cache leaves the same events: it is believed only where several agree, and where
    garbage collection, which gives memory back long before the end, is off.
    """
    reserved = lifetimes.usage.reserved_bytes
    threshold = lifetimes.trace.metadata.allocator_settings.get("garbage_collection_threshold") or 0
    if reserved is None or not len(lifetimes.timeline.event) or float(threshold) > 0:
        return None
    runs, most = given_back(lifetimes), int(reserved.max())
    refused = runs.takes & ~runs.had_room & (runs.wanted_bytes > most)
    n, n_taking = int(np.count_nonzero(refused)), int(np.count_nonzero(runs.takes))
    if n < _MIN_WITNESSES or 2 * n < n_taking:
        return None
    least = int(runs.wanted_bytes[refused].min())
    return RefusedAbove(most, least, n) if least <= most * (1 + _WIDTH_FRAC) else None
