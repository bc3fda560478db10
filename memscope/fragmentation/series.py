"""Fragmentation after every event: exact step functions, for each (pool, stream, small or large) and in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from memscope._kernels import fragmentation as kernel
from memscope._kernels.caching_rules import MIN_LARGE_ALLOC_BYTES, SMALL_BYTES, SMALL_SEGMENT_BYTES
from memscope._kernels.lifetimes import carve_blocks
from memscope.fragmentation.metrics import Fragmentation, FragmentationMetrics
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import rules_of
from memscope.lifetimes.segments import SegmentTimeline
from memscope.trace import schema
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, Table

_VALUES = {
    "reserved_bytes": kernel.RESERVED,
    "active_bytes": kernel.ACTIVE,
    "requested_bytes": kernel.REQUESTED,
    "releasable_bytes": kernel.RELEASABLE,
    "largest_free_block_bytes": kernel.LARGEST_FREE,
    "n_segments": kernel.N_SEGMENTS,
    "n_active_blocks": kernel.N_ACTIVE,
    "n_free_blocks": kernel.N_FREE,
}
_COLUMNS: schema.Columns = {name: np.dtype(np.int64) for name in ("event", *_VALUES)}


@dataclass(frozen=True, slots=True)
class MetricsTable(Table):
    """The numbers of :class:`~memscope.fragmentation.metrics.FragmentationMetrics` as step functions.

    Row i holds from ``event[i]`` to before ``event[i + 1]``; ``event[0]`` is −1: before the first. Only events that
    change something have a row. Every column is int64 (rows,).
    """

    COLUMNS: ClassVar[schema.Columns] = _COLUMNS
    event: Int64Array
    reserved_bytes: Int64Array
    active_bytes: Int64Array
    requested_bytes: Int64Array
    releasable_bytes: Int64Array
    largest_free_block_bytes: Int64Array
    n_segments: Int64Array
    n_active_blocks: Int64Array
    n_free_blocks: Int64Array

    @property
    def free_bytes(self) -> Int64Array:
        """Reserved bytes not in use."""
        return self.reserved_bytes - self.active_bytes

    @property
    def rounding_bytes(self) -> Int64Array:
        """Bytes given beyond what was requested."""
        return self.active_bytes - self.requested_bytes

    @property
    def free_in_split_segments_bytes(self) -> Int64Array:
        """Free bytes that cannot go back to the driver."""
        return self.free_bytes - self.releasable_bytes

    @property
    def utilisation_frac(self) -> npt.NDArray[np.float64]:
        """Active of reserved bytes, NaN where nothing is reserved: float64 (rows,)."""
        return _quotient(self.active_bytes, self.reserved_bytes)

    @property
    def scatter_frac(self) -> npt.NDArray[np.float64]:
        """``1 − largest free block / free bytes``, NaN where nothing is free: float64 (rows,). Only for one group."""
        return 1 - _quotient(self.largest_free_block_bytes, self.free_bytes)

    def row_of(self, event: int) -> int:
        """The row that holds after an event."""
        return int(np.searchsorted(self.event, event, side="right")) - 1


def _quotient(part: Int64Array, whole: Int64Array) -> npt.NDArray[np.float64]:
    result = np.full(len(part), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


@dataclass(frozen=True, slots=True)
class GroupSeries:
    """One group over the events: pool id pair (None: not recorded), raw stream handle, ``small`` or ``large``."""

    pool: tuple[int, int] | None
    stream: int | None
    size_class: str
    table: MetricsTable


@dataclass(frozen=True, slots=True)
class FragmentationSeries:
    """A device's fragmentation after every event.

    Attributes
    ----------
    first_event, end_event
        Half-open range of the device's events.
    overall
        All groups together; its ``largest_free_block_bytes`` is that of any group.
    groups
        In ascending order of pool, stream and size class.
    rounds_to_bytes
        What new memory for a large request is a multiple of: 2 MiB, or the handle of expandable segments.
    """

    device: int
    first_event: int
    end_event: int
    overall: MetricsTable
    groups: tuple[GroupSeries, ...]
    rounds_to_bytes: int

    def at(self, event: int) -> Fragmentation:
        """One state's fragmentation, as :func:`~memscope.fragmentation.metrics.measure_fragmentation` gives it."""
        found = [
            _metrics(group.table, event, (group.pool, group.stream, group.size_class))
            for group in self.groups
            if group.table.n_segments[group.table.row_of(event)]
        ]
        found.sort(key=lambda m: -m.free_bytes)
        return Fragmentation(event, self.device, _metrics(self.overall, event, (None, None, None)), tuple(found))

    def largest_request_bytes(self, available_bytes: int) -> Int64Array:
        """The largest request that would succeed, if need be with a call of the driver: int64 (rows of ``overall``,).

        It is the largest free block of the default pool (a small one serves up to 1 MiB), or new memory where that is
        more: what the device has left, and what giving back unused memory makes it have. A lower bound while frees are
        pending (a reclaim waits for them) and in expandable segments (new memory may continue a free block).

        Parameters
        ----------
        available_bytes
            What the allocator can reserve at the most.
        """
        overall = self.overall
        left = np.maximum(available_bytes - overall.reserved_bytes + overall.releasable_bytes, 0)
        large = left // self.rounds_to_bytes * self.rounds_to_bytes
        # A request below 10 MiB takes a segment that is larger than it; one of up to 1 MiB takes 2 MiB.
        small = np.where(left >= SMALL_SEGMENT_BYTES, SMALL_BYTES, 0)
        new_memory = np.where(large >= MIN_LARGE_ALLOC_BYTES, large, small).astype(np.int64)
        largest: Int64Array = np.maximum(new_memory, self.largest_cached_request_bytes())
        return largest

    def largest_cached_request_bytes(self) -> Int64Array:
        """The largest request that would succeed without a call of the driver: int64 (rows of ``overall``,).

        It is the largest free block of the default pool, of whatever stream; a small one serves up to 1 MiB.
        """
        overall = self.overall
        largest = np.zeros(len(overall), np.int64)
        for group in self.groups:
            if group.pool in (None, (0, 0)):
                row = np.searchsorted(group.table.event, overall.event, side="right") - 1
                free = group.table.largest_free_block_bytes[row]
                np.maximum(largest, np.minimum(free, SMALL_BYTES) if group.size_class == "small" else free, out=largest)
        return largest

    def free_in_private_pools_bytes(self) -> Int64Array:
        """Free bytes of private pools, which their pool's life keeps from going back: int64 (rows of ``overall``,)."""
        total = np.zeros(len(self.overall), np.int64)
        for group in self.groups:
            if group.pool not in (None, (0, 0)):
                total += group.table.free_bytes[
                    np.searchsorted(group.table.event, self.overall.event, side="right") - 1
                ]
        return total

    def n_events_of_rows(self) -> Int64Array:
        """For how many events each row of ``overall`` holds: int64 (rows,), summing to the device's events."""
        first = np.maximum(self.overall.event, self.first_event)
        return np.diff(first, append=self.end_event)


def _metrics(
    table: MetricsTable, event: int, group: tuple[tuple[int, int] | None, int | None, str | None]
) -> FragmentationMetrics:
    row = table.row_of(event)
    pool, stream, size_class = group
    values = {name: int(getattr(table, name)[row]) for name in _VALUES}
    return FragmentationMetrics(
        pool=pool,
        stream=stream,
        size_class=size_class,
        reserved_bytes=values["reserved_bytes"],
        active_bytes=values["active_bytes"],
        requested_bytes=values["requested_bytes"],
        releasable_bytes=values["releasable_bytes"],
        largest_free_block_bytes=values["largest_free_block_bytes"],
        n_segments=values["n_segments"],
        n_active_blocks=values["n_active_blocks"],
        n_free_blocks=values["n_free_blocks"],
    )


def fragmentation_series(lifetimes: DeviceLifetimes) -> FragmentationSeries | None:
    """Follow a device's fragmentation through its events: O(n log n), every event exact.

    None where the segments were not recorded, or the events do not fit them.
    """
    if not lifetimes.segments_are_known or lifetimes.n_misplaced:
        return None
    timeline, table = lifetimes.timeline, lifetimes.allocations
    rules = rules_of(lifetimes.trace.metadata)
    keys = np.stack([timeline.key_pool_id, timeline.key_stream_id, timeline.key_is_large], axis=1)
    distinct, key_group = np.unique(keys, axis=0, return_inverse=True)
    rows = np.stack([table.address, table.block_bytes, table.requested_bytes])
    born, died = _rows_of_events(lifetimes, table.alloc_event), _rows_of_events(lifetimes, table.free_event)
    follower, row_key = _follower(
        lifetimes, rows, key_group.reshape(-1), _release_rules(timeline, rules.large_segment_bytes)
    )
    start = follower.values.copy()
    event, group, of_group, of_all, n_misfits = kernel.follow(
        follower, *_event_columns(lifetimes), died, born, rows, row_key
    )
    if n_misfits:
        return None
    event += lifetimes.first_event
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(distinct) + 1))
    groups = []
    for position, (pool_id, stream_id, is_large) in enumerate(distinct.tolist()):
        chosen = order[bounds[position] : bounds[position + 1]]
        if not len(chosen) and not start[kernel.N_SEGMENTS, position]:
            continue
        changes = _table(start[:, position], event[chosen], of_group[:, chosen])
        groups.append(GroupSeries(*_names(lifetimes, pool_id, stream_id), "large" if is_large else "small", changes))
    return FragmentationSeries(
        device=lifetimes.device,
        first_event=lifetimes.first_event,
        end_event=lifetimes.end_event,
        overall=_table(start[:, -1], event, of_all),
        groups=tuple(groups),
        rounds_to_bytes=rules.large_segment_bytes if rules.is_expandable else SMALL_SEGMENT_BYTES,
    )


def _table(start: Int64Array, event: Int64Array, values: Int64Array) -> MetricsTable:
    columns = {
        name: np.concatenate([start[position : position + 1], values[position]]) for name, position in _VALUES.items()
    }
    return MetricsTable(event=np.concatenate([[NONE_ID], event]), **columns)


def _names(lifetimes: DeviceLifetimes, pool_id: int, stream_id: int) -> tuple[tuple[int, int] | None, int | None]:
    trace = lifetimes.trace
    pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
    return pool, None if stream_id < 0 else int(trace.stream_handles[stream_id])


def _release_rules(timeline: SegmentTimeline, large_handle_bytes: int) -> Int64Array:
    """How memory of each key goes back: int64 (k,), see the kernel."""
    handle = np.where(timeline.key_is_large, large_handle_bytes, SMALL_SEGMENT_BYTES)
    rule = np.where(timeline.key_is_expandable, handle, kernel.WHOLE)
    return np.where(timeline.key_pool_id > 0, kernel.NEVER, rule).astype(np.int64)


def _rows_of_events(lifetimes: DeviceLifetimes, event: Int64Array) -> Int64Array:
    """The row that each event concerns: int64 (n,), −1 for none."""
    row_of = np.full(lifetimes.n_events, NONE_ID, np.int64)
    rows = np.flatnonzero(event != NONE_ID)
    row_of[event[rows] - lifetimes.first_event] = rows
    return row_of


def _event_columns(lifetimes: DeviceLifetimes) -> tuple[npt.NDArray[np.int8], Int64Array, Int64Array, Int64Array]:
    trace, timeline = lifetimes.trace, lifetimes.timeline
    events = slice(lifetimes.first_event, lifetimes.end_event)
    segment_key = np.full(lifetimes.n_events, NONE_ID, np.int64)
    segment_key[timeline.event - lifetimes.first_event] = timeline.key
    return trace.action[events], trace.address[events], trace.size_bytes[events], segment_key


def _follower(
    lifetimes: DeviceLifetimes, rows: Int64Array, key_group: Int64Array, key_rule: Int64Array
) -> tuple[kernel.Follower, Int64Array]:
    """The state before the first event, and the key of the segment of each row that stands then."""
    timeline, table, n = lifetimes.timeline, lifetimes.allocations, lifetimes.n_events
    starts = timeline.start_address, timeline.start_end, timeline.start_key
    before = np.flatnonzero(table.alloc_event == NONE_ID)
    nothing = np.empty(0, np.int64)
    segments, _ = carve_blocks(*starts, nothing, nothing, 2 * len(timeline.event))
    free, before_key = carve_blocks(*starts, rows[0, before], rows[1, before], 2 * n)
    row_key = np.full(len(table), NONE_ID, np.int64)
    row_key[before] = before_key
    n_groups = int(key_group.max(initial=NONE_ID)) + 1
    # Each range that becomes free is one node: at most two at an alloc or a segment's end, one at a free.
    n_nodes = int(free.n[0]) + 3 * (len(table) + len(timeline.event))
    root = np.full(n_groups + 1, NONE_ID, np.int64)
    root[-1] = 0
    follower = kernel.Follower(
        segments=segments,
        free=free,
        key_group=key_group,
        key_rule=key_rule,
        values=np.zeros((kernel.N_VALUES, n_groups + 1), np.int64),
        heap=np.empty((4, n_nodes), np.int64),
        root=root,
    )
    kernel.begin(follower, before_key, rows[1, before], rows[2, before])
    return follower, row_key
