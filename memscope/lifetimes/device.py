"""One device's memory over its events: allocations, usage, and the exact state after any event."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from memscope.lifetimes._pairing import Problem, pair_rows
from memscope.lifetimes.placing import place_rows, problems_before
from memscope.lifetimes.segments import SegmentTimeline, segment_timeline
from memscope.lifetimes.state import AllocatorState, tile_segments
from memscope.lifetimes.tables import NEVER, AllocationTable, UsageSeries
from memscope.recently_used import RecentlyUsed
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import BlockTable, Int64Array, SegmentTable, frozen_array
from memscope.trace.trace import Trace

_N_CACHED_STATES = 8


class DeviceLifetimes:
    """Everything that follows from one device's events and its final segments and blocks.

    Parameters
    ----------
    trace
        The trace; it is not changed.
    device
        A device index of the trace.

    Attributes
    ----------
    first_event, end_event
        Half-open range of the device's events.
    timeline
        :class:`~memscope.lifetimes.segments.SegmentTimeline`.
    allocations
        :class:`~memscope.lifetimes.tables.AllocationTable`.
    problems
        Contradictions found on the way; empty for every sound recording.
    n_unmatched_frees
        Frees whose alloc is not among the events.
    n_implied_frees
        Allocs at an address that was still in use, in a recording without frees.
    n_misplaced, first_misplaced
        Events that do not fit the layout of free ranges (0 where segments and settings are fully known), and the first.
    """

    def __init__(self, trace: Trace, device: int) -> None:
        self.trace = trace
        self.device = device
        self.first_event, self.end_event = trace.event_range(device)
        self.timeline: SegmentTimeline = segment_timeline(trace, device)
        rows = pair_rows(trace, device)
        placement = place_rows(trace, rows, self.timeline)
        self.allocations: AllocationTable = placement.allocations
        self.problems: tuple[Problem, ...] = rows.problems
        if self.segments_are_known and not self.problems:
            self.problems = tuple(problems_before(trace, self.allocations, self.timeline))
        self.n_unmatched_frees = rows.n_unmatched_frees
        self.n_implied_frees = rows.n_implied_frees
        self.n_misplaced = placement.n_misplaced
        self.first_misplaced = placement.first_misplaced
        self._states: RecentlyUsed[int, AllocatorState] = RecentlyUsed(_N_CACHED_STATES)

    @property
    def n_events(self) -> int:
        """Number of the device's events."""
        return self.end_event - self.first_event

    @property
    def last_event(self) -> int:
        """The device's last event, −1 if it has none."""
        return self.end_event - 1

    @property
    def segments_are_known(self) -> bool:
        """Whether every segment event was recorded, so that reserved bytes and the layout can be told."""
        metadata = self.trace.metadata
        return metadata.has_segment_events and metadata.block_layout_recorded and not self.timeline.n_misfits

    @property
    def preexisting_bytes(self) -> int:
        """Block bytes in use before the first event."""
        table = self.allocations
        return int(table.block_bytes[table.alloc_event == NONE_ID].sum())

    @cached_property
    def died_event(self) -> Int64Array:
        """When the program let go of each allocation: int64 (rows,), :data:`~memscope.lifetimes.tables.NEVER` if never.

        The block may be free only later, where the free waited for another stream.
        """
        let_go = self.allocations.let_go_event
        return frozen_array(np.where(let_go == NONE_ID, NEVER, let_go), np.int64)

    @cached_property
    def oom_events(self) -> Int64Array:
        """Positions of the device's ``oom`` events: int64."""
        action = self.trace.action[self.first_event : self.end_event]
        return frozen_array(np.flatnonzero(action == Action.OOM) + self.first_event, np.int64)

    @cached_property
    def fatal_oom_event(self) -> int | None:
        """The ``oom`` event that ended the run: nothing was allocated after it. None if there is none."""
        if not len(self.oom_events):
            return None
        last = int(self.oom_events[-1])
        return None if np.any(self.trace.action[last : self.end_event] == Action.ALLOC) else last

    @cached_property
    def usage(self) -> UsageSeries:
        """Allocated, active, requested and reserved bytes after each event."""
        table = self.allocations
        reserved = None
        if self.segments_are_known:
            change = self.timeline.deltas(self.first_event, self.n_events)
            reserved = np.cumsum(np.insert(change, 0, self.timeline.start_bytes))
        freed_event = table.let_go_event
        in_use = ~table.is_pending_at_start
        return UsageSeries(
            first_event=self.first_event,
            allocated_bytes=self._step_sum(table.alloc_event[in_use], freed_event[in_use], table.block_bytes[in_use]),
            active_bytes=self._step_sum(table.alloc_event, table.free_event, table.block_bytes),
            requested_bytes=self._step_sum(table.alloc_event, table.free_event, table.requested_bytes),
            reserved_bytes=reserved,
        )

    def _step_sum(self, born: Int64Array, died: Int64Array, size_bytes: Int64Array) -> Int64Array:
        """Sum of sizes between birth (−1: before) and death (−1: never), after each event: int64 (n + 1,)."""
        is_born, is_dead = born != NONE_ID, died != NONE_ID
        change = np.zeros(self.n_events + 1, np.int64)
        change[0] = size_bytes[~is_born].sum()
        after = change[1:]
        np.add.at(after, born[is_born] - self.first_event, size_bytes[is_born])
        np.subtract.at(after, died[is_dead] - self.first_event, size_bytes[is_dead])
        return np.cumsum(change, out=change)

    def weighted_usage(self, rows: Int64Array, size_bytes: Int64Array) -> Int64Array:
        """Bytes of some rows while they are active, after each event: int64 (n + 1,). ``size_bytes`` is by row."""
        table = self.allocations
        return self._step_sum(table.alloc_event[rows], table.free_event[rows], size_bytes)

    def in_use_usage(self, rows: Int64Array) -> Int64Array:
        """Block bytes of some rows while they are in use, pending frees left out, after each event: int64 (n + 1,)."""
        table = self.allocations
        rows = rows[~table.is_pending_at_start[rows]]
        return self._step_sum(table.alloc_event[rows], table.let_go_event[rows], table.block_bytes[rows])

    def state_at(self, event: int) -> AllocatorState:
        """The exact segments and blocks after an event; −1 for before the device's first. The last few are kept."""
        return self._states.get_or_make(event, lambda: self._state_at(event))

    def _state_at(self, event: int) -> AllocatorState:
        table = self.allocations
        segments = self.timeline.segments_at(event)
        rows = np.flatnonzero(table.active_at(event))
        rows = rows[np.argsort(table.address[rows], kind="stable")]
        pending = table.pending_at(event)[rows]
        blocks, allocation_ids, unplaced_bytes = tile_segments(
            segments,
            table.address[rows],
            table.block_bytes[rows],
            table.requested_bytes[rows],
            np.where(pending, BlockState.ACTIVE_PENDING_FREE, BlockState.ACTIVE_ALLOCATED).astype(np.int8),
            table.stack_id[rows],
            rows,
        )
        return AllocatorState(event, self.device, segments, blocks, allocation_ids, unplaced_bytes)

    def recorded_final_state(self) -> AllocatorState:
        """The final segments and blocks as the recording has them."""
        trace = self.trace
        chosen = np.flatnonzero(trace.segments.device == self.device)
        position = np.full(len(trace.segments), NONE_ID, np.int32)
        position[chosen] = np.arange(len(chosen))
        blocks = trace.blocks.take(position[trace.blocks.segment_id] >= 0)
        columns = blocks.columns() | {"segment_id": position[blocks.segment_id]}
        return AllocatorState(
            self.last_event,
            self.device,
            trace.segments.take(chosen),
            BlockTable.from_columns(columns),
            np.full(len(blocks), NONE_ID, np.int64),
        )

    def final_difference(self) -> str | None:
        """How the state derived from the events differs from the recorded final one; None where they are equal.

        Compared are each segment's address, bytes, stream and pool kind, and each block's address, bytes, state and, if
        active, requested bytes.
        """
        derived, recorded = self.state_at(self.last_event), self.recorded_final_state()
        names = ("size_bytes", "stream_id", "is_large", "is_expandable")
        found = _first_difference(self.trace, "segment", derived.segments, recorded.segments, names)
        of_blocks = ("size_bytes", "state", "requested_bytes")
        return found or _first_difference(self.trace, "block", derived.blocks, recorded.blocks, of_blocks)


def _first_difference(
    trace: Trace,
    what: str,
    derived: SegmentTable | BlockTable,
    recorded: SegmentTable | BlockTable,
    names: tuple[str, ...],
) -> str | None:
    if not np.array_equal(derived.address, recorded.address):
        only = np.setxor1d(derived.address, recorded.address)
        side = "the recording" if only[0] in recorded.address else "the events"
        return f"{what} {trace.address_text(int(only[0]))} is only in the state that {side} gives ({len(only):,} such)"
    for name in names:
        left, right = getattr(derived, name), getattr(recorded, name)
        differs = np.flatnonzero(left != right)
        if len(differs):
            i = differs[0]
            return (
                f"{what} {trace.address_text(int(recorded.address[i]))}: {name} is {int(right[i]):,} as recorded, "
                f"{int(left[i]):,} by the events ({len(differs):,} such)"
            )
    return None
