"""What lifetimes are made of: allocations, and usage over events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memscope.trace import schema
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array, Int64Array, Table, frozen_array

NEVER = int(np.iinfo(np.int64).max)
"""The event of what never happened, where events are compared: later than all of them."""

_ALLOCATION_COLUMNS: schema.Columns = {
    "alloc_event": np.dtype(np.int64),
    "free_requested_event": np.dtype(np.int64),
    "free_event": np.dtype(np.int64),
    "address": np.dtype(np.int64),
    "requested_bytes": np.dtype(np.int64),
    "block_bytes": np.dtype(np.int64),
    "is_exact": np.dtype(np.bool_),
    "is_pending_at_start": np.dtype(np.bool_),
    "stream_id": np.dtype(np.int32),
    "pool_id": np.dtype(np.int32),
    "is_large": np.dtype(np.bool_),
    "stack_id": np.dtype(np.int32),
}


@dataclass(frozen=True, slots=True)
class AllocationTable(Table):
    """One row for each allocation of a device, in order of allocation; those that predate the events come first.

    ``alloc_event`` is −1 where the allocation predates the events; ``free_event`` (its completion) is −1 where it never
    came; ``free_requested_event`` is −1 where it never came, or came before the events (``is_pending_at_start``).
    ``block_bytes`` is what the allocator gave; where ``is_exact`` is false it is only a lower bound. ``pool_id`` is −1
    where the recording does not tell.
    """

    COLUMNS: ClassVar[schema.Columns] = _ALLOCATION_COLUMNS
    alloc_event: Int64Array
    free_requested_event: Int64Array
    free_event: Int64Array
    address: Int64Array
    requested_bytes: Int64Array
    block_bytes: Int64Array
    is_exact: BoolArray
    is_pending_at_start: BoolArray
    stream_id: Int32Array
    pool_id: Int32Array
    is_large: BoolArray
    stack_id: Int32Array

    @property
    def let_go_event(self) -> Int64Array:
        """When the program let go of each allocation, whenever the block became free: int64 (rows,), −1 for never."""
        requested = self.free_requested_event
        let_go: Int64Array = np.where(requested == NONE_ID, self.free_event, requested)
        return let_go

    def active_at(self, event: int) -> BoolArray:
        """Rows that hold a block after an event (−1: before the first), pending frees included: bool (rows,)."""
        active: BoolArray = (self.alloc_event <= event) & ((self.free_event == NONE_ID) | (self.free_event > event))
        return active

    def pending_at(self, event: int) -> BoolArray:
        """Active rows whose free was requested but has not completed after an event: bool (rows,)."""
        requested = (self.free_requested_event != NONE_ID) & (self.free_requested_event <= event)
        pending: BoolArray = self.active_at(event) & (requested | self.is_pending_at_start)
        return pending


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """A device's bytes after each of its events, as step functions: int64 (n + 1,).

    Index 0 is the moment before the first event, index i the moment after event ``first_event + i − 1``.
    ``reserved_bytes`` is None where the segments were not recorded.
    """

    first_event: int
    allocated_bytes: Int64Array
    active_bytes: Int64Array
    requested_bytes: Int64Array
    reserved_bytes: Int64Array | None

    def __post_init__(self) -> None:
        for name in ("allocated_bytes", "active_bytes", "requested_bytes", "reserved_bytes"):
            series = getattr(self, name)
            if series is not None:
                object.__setattr__(self, name, frozen_array(series, np.int64))

    def __len__(self) -> int:
        return len(self.active_bytes)

    def index_of(self, event: int) -> int:
        """Index of the moment after an event."""
        return event - self.first_event + 1

    def event_at(self, index: int) -> int:
        """Event whose end an index is; −1 for the moment before a device's first event."""
        return self.first_event + index - 1 if index else NONE_ID

    @property
    def peak_event(self) -> int:
        """First event after which allocated bytes are at their highest."""
        return self.event_at(int(np.argmax(self.allocated_bytes)))

    @property
    def peak_reserved_event(self) -> int | None:
        """First event after which reserved bytes are at their highest, None where they are not known."""
        return None if self.reserved_bytes is None else self.event_at(int(np.argmax(self.reserved_bytes)))
