"""The segments of one device over its events, undone from the final ones where the recording began mid-life."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope._core import caching
from memscope._core import lifetimes as core
from memscope.lifetimes.rules import large_segment_bytes
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int32Array, Int64Array, SegmentTable
from memscope.trace.trace import Trace

_NEAR_HANDLES = 10
_SEGMENT_ACTIONS = (Action.SEGMENT_ALLOC, Action.SEGMENT_FREE, Action.SEGMENT_MAP, Action.SEGMENT_UNMAP)


@dataclass(frozen=True, slots=True)
class SegmentTimeline:
    """Segments before the first event, and every event that changes them.

    A *key* names what may merge: each ``cudaMalloc`` segment has one of its own, the runs of one expandable reservation
    share one. The attributes are looked up by key.

    Attributes
    ----------
    start_address, start_end, start_key
        int64 (m,): segments, and mapped runs, before the first event.
    event
        int64 (s,): positions of the segment events in the trace.
    action, address, size_bytes, key
        (s,): of these events.
    key_stream_id, key_pool_id, key_is_large, key_is_expandable
        (k,): attributes by key.
    key_is_pool_recorded
        (k,): whether ``key_pool_id`` is recorded; where not, it is −1, or a guess: the pool of what lay there last.
    n_misfits, first_misfit
        Segment events that contradict the final segments, and the first of them (an event, −1 if none).
    """

    device: int
    start_address: Int64Array
    start_end: Int64Array
    start_key: Int64Array
    event: Int64Array
    action: npt.NDArray[np.int8]
    address: Int64Array
    size_bytes: Int64Array
    key: Int64Array
    key_stream_id: Int32Array
    key_pool_id: Int32Array
    key_is_large: BoolArray
    key_is_expandable: BoolArray
    key_is_pool_recorded: BoolArray
    n_misfits: int
    first_misfit: int

    @property
    def start_ranges(self) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Start, end and key of what exists before the first event: int64 (m,) each."""
        return self.start_address, self.start_end, self.start_key

    @property
    def start_bytes(self) -> int:
        """Bytes reserved before the first event."""
        return int((self.start_end - self.start_address).sum())

    def segments_at(self, event: int) -> SegmentTable:
        """Segments after an event (−1: before the first), ascending by address; their stacks are not looked up."""
        n = int(np.searchsorted(self.event, event, side="right"))
        start, end, key = core.ranges_after(
            self.start_ranges, self.action[:n], self.address[:n], self.size_bytes[:n], self.key[:n]
        )
        return SegmentTable(
            device=np.full(len(start), self.device, np.int16),
            address=start,
            size_bytes=end - start,
            stream_id=self.key_stream_id[key],
            pool_id=self.key_pool_id[key],
            is_large=self.key_is_large[key],
            is_expandable=self.key_is_expandable[key],
            stack_id=np.full(len(start), NONE_ID, np.int32),
        )

    def key_of_events(self, first_event: int, n_events: int) -> Int64Array:
        """The key of the segment that each of a device's events changes: int64 (n,), −1 for none."""
        key = np.full(n_events, NONE_ID, np.int64)
        key[self.event - first_event] = self.key
        return key

    def deltas(self, first_event: int, n_events: int) -> Int64Array:
        """Change of reserved bytes at each of a device's events: int64 (n,)."""
        change = np.zeros(n_events, np.int64)
        grows = (self.action == Action.SEGMENT_ALLOC) | (self.action == Action.SEGMENT_MAP)
        change[self.event - first_event] = np.where(grows, self.size_bytes, -self.size_bytes)
        return change


def segment_timeline(trace: Trace, device: int) -> SegmentTimeline:
    """Follow a device's segments through its events.

    O(n log n) in the segment events.
    """
    first, stop = trace.event_range(device)
    event = first + np.flatnonzero(np.isin(trace.action[first:stop], _SEGMENT_ACTIONS)).astype(np.int64)
    final = trace.segments.take(trace.segments.device == device)
    action, address, size_bytes = trace.action[event], trace.address[event], trace.size_bytes[event]
    groups = _ExpandableGroups(trace, event, final)
    n_groups = len(groups.stream_id)
    is_expandable_event = np.isin(action, (Action.SEGMENT_MAP, Action.SEGMENT_UNMAP))
    key = np.where(is_expandable_event, groups.event_group, n_groups + np.arange(len(event)))
    final_key = np.where(final.is_expandable, groups.final_group, n_groups + len(event) + np.arange(len(final)))
    (start, end, start_key), n_misfits, first_misfit = core.ranges_before(
        (final.address, final.address + final.size_bytes, final_key), action, address, size_bytes, key
    )
    n_keys = n_groups + len(event) + len(final)
    has_pool_ids = trace.metadata.has_pool_ids
    is_pool_recorded = has_pool_ids | _makes_final_segment(action, address, final)
    return SegmentTimeline(
        device=device,
        start_address=start,
        start_end=end,
        start_key=start_key,
        event=event,
        action=action,
        address=address,
        size_bytes=size_bytes,
        key=key,
        key_stream_id=np.concatenate([groups.stream_id, trace.stream_id[event], final.stream_id]).astype(np.int32),
        key_pool_id=np.concatenate([groups.pool_id, _event_pools(trace, event, final), final.pool_id]).astype(np.int32),
        key_is_large=np.concatenate([groups.is_large, size_bytes != caching.SMALL_SEGMENT_BYTES, final.is_large]),
        key_is_expandable=np.arange(n_keys) < n_groups,
        key_is_pool_recorded=np.concatenate(
            [np.full(n_groups, has_pool_ids), is_pool_recorded, np.ones(len(final), np.bool_)]
        ),
        n_misfits=n_misfits,
        first_misfit=int(event[first_misfit]) if n_misfits else NONE_ID,
    )


def _event_pools(trace: Trace, event: Int64Array, final: SegmentTable) -> Int32Array:
    """Pool of each segment event; where events do not say, that of the final segment at the address, else unknown."""
    if trace.metadata.has_pool_ids:
        return trace.pool_id[event]
    if not np.any(final.pool_id > 0):
        return np.zeros(len(event), np.int32)
    pools = np.full(len(event), NONE_ID, np.int32)
    position = np.searchsorted(final.address, trace.address[event])
    inside = position < len(final)
    same = np.zeros(len(event), np.bool_)
    same[inside] = final.address[position[inside]] == trace.address[event][inside]
    pools[same] = final.pool_id[position[same]]
    return pools


def _makes_final_segment(action: npt.NDArray[np.int8], address: Int64Array, final: SegmentTable) -> BoolArray:
    """Whether each segment event made a segment that was still there at the end: the last one made at its address."""
    makes = np.zeros(len(action), np.bool_)
    made = np.flatnonzero(action == Action.SEGMENT_ALLOC)[::-1]
    _, latest = np.unique(address[made], return_index=True)
    last = made[latest]
    makes[last[np.isin(address[last], final.address)]] = True
    return makes


class _ExpandableGroups:
    """Dense ids of expandable reservations: one for each (stream, small or large, pool where recorded)."""

    def __init__(self, trace: Trace, event: Int64Array, final: SegmentTable) -> None:
        self._ids: dict[tuple[int, bool, int], int] = {}
        self._with_pool = trace.metadata.has_pool_ids
        self._handle_bytes = large_segment_bytes(trace.metadata.alloc_conf)
        n_events, n_final = len(event), len(final)
        self.event_group = np.full(n_events, NONE_ID, np.int64)
        self.final_group = np.full(n_final, NONE_ID, np.int64)
        for i in np.flatnonzero(final.is_expandable):
            pool = int(final.pool_id[i]) if self._with_pool else NONE_ID
            self.final_group[i] = self._intern(int(final.stream_id[i]), bool(final.is_large[i]), pool)
        action = trace.action[event]
        for i in np.flatnonzero(action == Action.SEGMENT_MAP):
            is_large = int(trace.size_bytes[event[i]]) != caching.SMALL_SEGMENT_BYTES
            self.event_group[i] = self._intern(*self._owner(trace, int(event[i]), is_large))
        self._group_unmaps(trace, event, final)
        self.stream_id = np.array([stream for stream, _, _ in self._ids], np.int32)
        self.is_large = np.array([is_large for _, is_large, _ in self._ids], np.bool_)
        self.pool_id = np.array([pool for _, _, pool in self._ids], np.int32)
        if not self._with_pool and not np.any(final.pool_id > 0):
            self.pool_id[:] = 0

    def _intern(self, stream_id: int, is_large: bool, pool_id: int) -> int:
        return self._ids.setdefault((stream_id, is_large, pool_id), len(self._ids))

    def _owner(self, trace: Trace, event: int, is_large: bool) -> tuple[int, bool, int]:
        return int(trace.stream_id[event]), is_large, int(trace.pool_id[event]) if self._with_pool else NONE_ID

    def _group_unmaps(self, trace: Trace, event: Int64Array, final: SegmentTable) -> None:
        """Neither event nor size of an unmap tell small from large: what the same stream and pool mapped there does.

        Linear in the events, times the unmaps that lie in what an event maps.
        """
        action, address = trace.action[event], trace.address[event]
        is_unmap = action == Action.SEGMENT_UNMAP
        places = np.unique(address[is_unmap])
        first, last = np.searchsorted(places, address), np.searchsorted(places, address + trace.size_bytes[event])
        mapped: dict[tuple[int, int], Int64Array] = {}
        for i in np.flatnonzero(is_unmap | (action == Action.SEGMENT_MAP)).tolist():
            stream_id, _, pool_id = self._owner(trace, int(event[i]), True)
            held = mapped.setdefault((stream_id, pool_id), np.full(len(places), NONE_ID, np.int64))
            if is_unmap[i]:
                self.event_group[i] = held[first[i]]
            else:
                held[first[i] : last[i]] = self.event_group[i]
        self._group_rest(trace, event, final)

    def _group_rest(self, trace: Trace, event: Int64Array, final: SegmentTable) -> None:
        """Unmaps of what was mapped before the first event: small or large as what lay in there.

        Where nothing did, only whole large handles can be large. They are, unless small memory of their stream and pool
        is near: reservations are larger than the device, so what is near is one reservation.
        """
        rest = np.flatnonzero((trace.action[event] == Action.SEGMENT_UNMAP) & (self.event_group == NONE_ID))
        if not len(rest):
            return
        used = np.flatnonzero((trace.device == trace.device[event[0]]) & (trace.action <= Action.FREE_COMPLETED))
        used = used[np.argsort(trace.address[used], kind="stable")]
        for i in rest.tolist():
            position, address, size = event[i], trace.address[event[i]], trace.size_bytes[event[i]]
            first, last = np.searchsorted(trace.address[used], [address, address + size])
            inside = used[first:last][used[first:last] < position]
            if len(inside) or size % self._handle_bytes:
                is_large = bool(np.any(trace.size_bytes[inside] > caching.SMALL_BYTES))
                self.event_group[i] = self._intern(*self._owner(trace, int(position), is_large))
        starts = np.concatenate([final.address, trace.address[event]])
        groups = np.concatenate([self.final_group, self.event_group])
        for i in rest[self.event_group[rest] == NONE_ID].tolist():
            stream_id, is_large, pool_id = self._owner(trace, int(event[i]), True)
            small = self._ids.get((stream_id, False, pool_id), NONE_ID - 1)
            distance = np.abs(starts[groups == small] - trace.address[event[i]])
            is_large = not np.any(distance < _NEAR_HANDLES * self._handle_bytes)
            self.event_group[i] = self._intern(stream_id, is_large, pool_id)
