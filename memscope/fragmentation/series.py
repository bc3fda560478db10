"""Fragmentation after every event: exact step functions, for each (pool, stream, small or large) and in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from memscope._core import caching
from memscope._core import fragmentation as core
from memscope.fragmentation.metrics import Fragmentation, FragmentationMetrics
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import rules_of
from memscope.lifetimes.segments import SegmentTimeline
from memscope.trace import schema
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int32Array, Int64Array, Table, frozen_array

_VALUES = (
    "reserved_bytes",
    "active_bytes",
    "requested_bytes",
    "releasable_bytes",
    "largest_free_block_bytes",
    "n_segments",
    "n_active_blocks",
    "n_free_blocks",
)
_LARGEST = "largest_free_block_bytes"
_COLUMNS: schema.Columns = {
    name: np.dtype(np.int64 if name.endswith("_bytes") else np.int32) for name in ("event", *_VALUES)
}


@dataclass(frozen=True, slots=True)
class MetricsTable(Table):
    """One group's :class:`~memscope.fragmentation.metrics.FragmentationMetrics` as step functions.

    Row i holds from ``event[i]`` to before ``event[i + 1]``; ``event[0]`` is −1: before the first. Only events that
    change something have a row. Bytes are int64 (rows,), the others int32 (rows,).
    """

    COLUMNS: ClassVar[schema.Columns] = _COLUMNS
    event: Int32Array
    reserved_bytes: Int64Array
    active_bytes: Int64Array
    requested_bytes: Int64Array
    releasable_bytes: Int64Array
    largest_free_block_bytes: Int64Array
    n_segments: Int32Array
    n_active_blocks: Int32Array
    n_free_blocks: Int32Array

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
    def scatter_frac(self) -> npt.NDArray[np.float64]:
        """``1 − largest free block / free bytes``, NaN where nothing is free: float64 (rows,)."""
        return 1 - _quotient(self.largest_free_block_bytes, self.free_bytes)

    def row_of(self, event: int) -> int:
        """The row that holds after an event."""
        return int(np.searchsorted(self.event, event, side="right")) - 1


def _quotient(part: Int64Array, whole: Int64Array) -> npt.NDArray[np.float64]:
    result = np.full(len(part), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _highest_over(n: int, begin: Int32Array, end: Int32Array, value: Int64Array) -> Int64Array:
    """At each of n places the highest value of the half-open ranges that hold it, at least 0: O((n + ranges) log n).

    A range is the union of two of a power of two places. From the longest on, those of a length pass what they have to
    their halves.
    """
    is_some = end > begin
    begin, end, value = begin[is_some], end[is_some], value[is_some]
    power = np.frexp(end - begin)[1] - 1
    highest = np.zeros(n, np.int64)
    for of_power in range(int(power.max(initial=0)), -1, -1):
        longer = highest
        if of_power < power.max(initial=0):
            highest = np.copy(longer)
            np.maximum(highest[1 << of_power :], longer[: n - (1 << of_power)], out=highest[1 << of_power :])
        here = power == of_power
        for first in (begin[here], end[here] - (1 << of_power)):
            np.maximum.at(highest, first, value[here])
    return highest


@dataclass(frozen=True, slots=True)
class GroupSeries:
    """One group over the events: pool id pair (None: not recorded), raw stream handle, ``small`` or ``large``."""

    pool: tuple[int, int] | None
    stream: int | None
    size_class: str
    table: MetricsTable


class OverallSeries:
    """All groups together: a row for each event that changes any of them, ``event[0]`` being −1.

    Columns are put together from those of the groups when they are asked for (O(rows)), and not kept: they would take
    as much memory as all groups do. Hold on to one that is used twice.
    """

    def __init__(self, groups: Sequence[MetricsTable]) -> None:
        events = [group.event for group in groups] or [np.full(1, NONE_ID, np.int32)]
        merged = np.concatenate(events)
        merged.sort(kind="stable")  # which merges what is in order
        is_first = np.append(True, merged[1:] != merged[:-1])
        self.event: Int32Array = frozen_array(merged[is_first], np.int32)
        """Int32 (rows,)."""
        self._groups = tuple(groups)
        # Each group's rows among these: 4 bytes for each of them, where another search would take longer than the sum.
        self._rows = {id(group): np.searchsorted(self.event, group.event).astype(np.int32) for group in groups}

    def __len__(self) -> int:
        return len(self.event)

    def row_of(self, event: int) -> int:
        """The row that holds after an event."""
        return int(np.searchsorted(self.event, event, side="right")) - 1

    @property
    def reserved_bytes(self) -> Int64Array:
        """Bytes from the driver: int64 (rows,), as are all columns of bytes."""
        return self._sum("reserved_bytes")

    @property
    def active_bytes(self) -> Int64Array:
        """Bytes of blocks in use."""
        return self._sum("active_bytes")

    @property
    def requested_bytes(self) -> Int64Array:
        """Bytes that were asked for of what is in use."""
        return self._sum("requested_bytes")

    @property
    def releasable_bytes(self) -> Int64Array:
        """Free bytes that can go back to the driver."""
        return self._sum("releasable_bytes")

    @property
    def free_bytes(self) -> Int64Array:
        """Reserved bytes not in use."""
        return self._sum("free_bytes")

    @property
    def rounding_bytes(self) -> Int64Array:
        """Bytes given beyond what was requested."""
        return self._sum("rounding_bytes")

    @property
    def free_in_split_segments_bytes(self) -> Int64Array:
        """Free bytes that cannot go back to the driver."""
        return self._sum("free_in_split_segments_bytes")

    @property
    def n_segments(self) -> Int64Array:
        """Segments: int64 (rows,), as are all numbers."""
        return self._sum("n_segments")

    @property
    def n_active_blocks(self) -> Int64Array:
        """Blocks in use."""
        return self._sum("n_active_blocks")

    @property
    def n_free_blocks(self) -> Int64Array:
        """Free blocks."""
        return self._sum("n_free_blocks")

    @property
    def largest_free_block_bytes(self) -> Int64Array:
        """The largest free block of any group."""
        return self.highest_of([(group, group.largest_free_block_bytes) for group in self._groups])

    @property
    def utilisation_frac(self) -> npt.NDArray[np.float64]:
        """Active of reserved bytes, NaN where nothing is reserved: float64 (rows,)."""
        return _quotient(self.active_bytes, self.reserved_bytes)

    def highest_of(self, values: Sequence[tuple[MetricsTable, Int64Array]]) -> Int64Array:
        """The highest of some groups' values, which are none below 0, at each of these rows: int64 (rows,)."""
        if not values:
            return np.zeros(len(self), np.int64)
        begin = [self._rows[id(group)] for group, _ in values]
        end = [np.append(rows[1:], np.int32(len(self))) for rows in begin]
        highest = [of_group for _, of_group in values]
        return _highest_over(len(self), np.concatenate(begin), np.concatenate(end), np.concatenate(highest))

    def sum_of(self, groups: Iterable[MetricsTable], name: str) -> Int64Array:
        """The sum of a number of some groups at each of these rows: int64 (rows,)."""
        changes = np.zeros(len(self), np.int64)
        for group in groups:
            changes[self._rows[id(group)]] += np.diff(getattr(group, name), prepend=0)
        return np.cumsum(changes, out=changes)

    def _sum(self, name: str) -> Int64Array:
        return self.sum_of(self._groups, name)


@dataclass(frozen=True, slots=True)
class FragmentationSeries:
    """A device's fragmentation after every event.

    Attributes
    ----------
    first_event, end_event
        Half-open range of the device's events.
    groups
        In ascending order of pool, stream and size class.
    overall
        All groups together.
    rounds_to_bytes
        What new memory for a large request is a multiple of: 2 MiB, or the handle of expandable segments.
    """

    device: int
    first_event: int
    end_event: int
    groups: tuple[GroupSeries, ...]
    rounds_to_bytes: int
    overall: OverallSeries = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "overall", OverallSeries([group.table for group in self.groups]))

    def at(self, event: int) -> Fragmentation:
        """One state's fragmentation, as :func:`~memscope.fragmentation.metrics.measure_fragmentation` gives it."""
        found = [
            _metrics(group.table, event, (group.pool, group.stream, group.size_class))
            for group in self.groups
            if group.table.n_segments[group.table.row_of(event)]
        ]
        found.sort(key=lambda m: -m.free_bytes)
        overall = FragmentationMetrics(
            pool=None,
            stream=None,
            size_class=None,
            largest_free_block_bytes=max((one.largest_free_block_bytes for one in found), default=0),
            **{name: sum(getattr(one, name) for one in found) for name in _VALUES if name != _LARGEST},
        )
        return Fragmentation(event, self.device, overall, tuple(found))

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
        small = np.where(left >= caching.SMALL_SEGMENT_BYTES, caching.SMALL_BYTES, 0)
        new_memory = np.where(large >= caching.MIN_LARGE_ALLOC_BYTES, large, small).astype(np.int64)
        largest: Int64Array = np.maximum(new_memory, self.largest_cached_request_bytes())
        return largest

    def largest_cached_request_bytes(self) -> Int64Array:
        """The largest request that would succeed without a call of the driver: int64 (rows of ``overall``,).

        It is the largest free block of the default pool, of whatever stream; a small one serves up to 1 MiB.
        """
        served = []
        for group in self.groups:
            if group.pool in (None, (0, 0)):
                free = group.table.largest_free_block_bytes
                most = caching.SMALL_BYTES if group.size_class == "small" else np.iinfo(np.int64).max
                served.append((group.table, np.minimum(free, most)))
        return self.overall.highest_of(served)

    def free_in_private_pools_bytes(self) -> Int64Array:
        """Free bytes of private pools, which their pool's life keeps from going back: int64 (rows of ``overall``,)."""
        private = [group.table for group in self.groups if group.pool not in (None, (0, 0))]
        return self.overall.sum_of(private, "free_bytes")

    def n_events_of_rows(self) -> Int64Array:
        """For how many events each row of ``overall`` holds: int64 (rows,), summing to the device's events."""
        first = np.maximum(self.overall.event, self.first_event)
        return np.diff(first, append=np.int32(self.end_event)).astype(np.int64)


def _metrics(
    table: MetricsTable, event: int, group: tuple[tuple[int, int] | None, int | None, str]
) -> FragmentationMetrics:
    row = table.row_of(event)
    pool, stream, size_class = group
    values = {name: int(getattr(table, name)[row]) for name in _VALUES}
    return FragmentationMetrics(pool=pool, stream=stream, size_class=size_class, **values)


def fragmentation_series(lifetimes: DeviceLifetimes) -> FragmentationSeries | None:
    """Follow a device's fragmentation through its events: O(n log n), every event exact.

    None where the segments were not recorded, or the events do not fit them.
    """
    if not lifetimes.segments_are_known or lifetimes.n_misplaced:
        return None
    trace, timeline, table = lifetimes.trace, lifetimes.timeline, lifetimes.allocations
    rules = rules_of(trace.metadata)
    keys = np.stack([timeline.key_pool_id, timeline.key_stream_id, timeline.key_is_large], axis=1)
    distinct, key_group = np.unique(keys, axis=0, return_inverse=True)
    events = slice(lifetimes.first_event, lifetimes.end_event)
    of_groups, n_misfits = core.follow(
        trace.action[events],
        trace.address[events],
        trace.size_bytes[events],
        timeline.key_of_events(lifetimes.first_event, lifetimes.n_events),
        timeline.start_ranges,
        key_group.reshape(-1),
        _release_rules(timeline, rules.large_segment_bytes),
        (table.alloc_event, table.free_event, table.address, table.block_bytes, table.requested_bytes),
        lifetimes.first_event,
    )
    if n_misfits:
        return None
    groups = []
    for (pool_id, stream_id, is_large), columns in zip(distinct.tolist(), of_groups, strict=True):
        changes = MetricsTable(*columns)
        if len(changes) > 1 or changes.n_segments[0]:
            names = _names(lifetimes, pool_id, stream_id)
            groups.append(GroupSeries(*names, "large" if is_large else "small", changes))
    return FragmentationSeries(
        device=lifetimes.device,
        first_event=lifetimes.first_event,
        end_event=lifetimes.end_event,
        groups=tuple(groups),
        rounds_to_bytes=rules.large_segment_bytes if rules.is_expandable else caching.SMALL_SEGMENT_BYTES,
    )


def _names(lifetimes: DeviceLifetimes, pool_id: int, stream_id: int) -> tuple[tuple[int, int] | None, int | None]:
    trace = lifetimes.trace
    pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
    return pool, None if stream_id < 0 else int(trace.stream_handles[stream_id])


def _release_rules(timeline: SegmentTimeline, large_handle_bytes: int) -> Int64Array:
    """How memory of each key goes back: int64 (k,), as the core names it."""
    handle = np.where(timeline.key_is_large, large_handle_bytes, caching.SMALL_SEGMENT_BYTES)
    rule = np.where(timeline.key_is_expandable, handle, core.WHOLE)
    return np.where(timeline.key_pool_id > 0, core.NEVER, rule).astype(np.int64)
