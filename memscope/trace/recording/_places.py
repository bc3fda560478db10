"""Where a device's calls, allocs and frees are among a trace's events: what places a note by its counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from memscope.trace.recording.notes import COUNTED, Calls
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace


class DevicePlaces:
    """Events of one device, found by how many calls came before and by what lies at an address.

    Allocs and frees are kept as sorted numbers that put an address before a position, so that one binary search finds
    the neighbour of a position at an address.

    Attributes
    ----------
    device, first_call
        The device, and its calls before the trace's first event.
    first, end
        The range of its events.
    called, allocs
        int64: positions of its counted calls, and of the allocs among them.
    """

    def __init__(self, trace: Trace, device: int, first_call: int) -> None:
        first, end = trace.event_range(device)
        self.trace = trace
        self.device = device
        self.first_call = first_call
        self.first, self.end = first, end
        action = trace.action[first:end]
        self.called: Int64Array = first + np.flatnonzero(np.isin(action, COUNTED)).astype(np.int64)
        self.allocs: Int64Array = first + np.flatnonzero(action == Action.ALLOC).astype(np.int64)
        frees: Int64Array = first + np.flatnonzero(action == Action.FREE_REQUESTED).astype(np.int64)
        self._addresses = np.unique(trace.address[self.allocs])
        self._stride = len(trace) + 1
        self._alloc_keys = np.sort(self._keys(trace.address[self.allocs], self.allocs))
        known = frees[np.isin(trace.address[frees], self._addresses)]
        self._free_keys = np.sort(self._keys(trace.address[known], known))

    def is_counted_in(self, calls: Calls) -> bool:
        """Whether a note's counts reach this device; one that was found later has none in them."""
        return len(calls) > self.device

    def events_of(self, calls: Iterable[Calls]) -> Int64Array:
        """Places of notes by their counts, which reach this device: the first event after; −1 outside of the trace."""
        return self.events_after(np.array([of_devices[self.device] for of_devices in calls], np.int64))

    def events_after(self, calls: Int64Array) -> Int64Array:
        """Positions of the first event after so many calls; −1 where that is outside of the trace."""
        n = calls - self.first_call
        after = np.concatenate(([self.first], self.called + 1))
        inside = (n >= 0) & (n < len(after))
        return np.where(inside, after[np.where(inside, n, 0)], NONE_ID)

    def calls_between(self, begin: Calls, end: Calls | None) -> Int64Array:
        """Positions of the calls made after some counts and until others, or until the last event."""
        n_called = len(self.called)
        first = max(begin[self.device] - self.first_call, 0)
        last = n_called if end is None else min(end[self.device] - self.first_call, n_called)
        return self.called[first : max(first, last)]

    def alloc_before(self, address: Int64Array, event: Int64Array) -> Int64Array:
        """Last alloc at each address before a position; −1 where there is none."""
        index = np.searchsorted(self._addresses, address)
        known = index < len(self._addresses)
        known[known] = self._addresses[index[known]] == address[known]
        found = np.full(len(address), NONE_ID, np.int64)
        at = np.searchsorted(self._alloc_keys, index[known] * self._stride + event[known]) - 1
        key = self._alloc_keys[np.maximum(at, 0)] if len(self._alloc_keys) else np.zeros(len(at), np.int64)
        same = (at >= 0) & (key // self._stride == index[known])
        found[np.flatnonzero(known)[same]] = key[same] % self._stride
        return found

    def free_after(self, address: Int64Array, event: Int64Array) -> Int64Array:
        """First free at each address after a position, −1 where there is none; the addresses are allocs'."""
        index = np.searchsorted(self._addresses, address)
        at = np.searchsorted(self._free_keys, index * self._stride + event)
        inside = at < len(self._free_keys)
        key = self._free_keys[np.where(inside, at, 0)] if len(self._free_keys) else np.zeros(len(at), np.int64)
        return np.where(inside & (key // self._stride == index), key % self._stride, NONE_ID)

    def _keys(self, address: Int64Array, event: Int64Array) -> Int64Array:
        keys: Int64Array = np.searchsorted(self._addresses, address) * self._stride + event
        return keys
