"""Pins: live blocks that keep memory, free but for them, from going back to the driver; and who holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope._core import caching
from memscope.attribution.attribution import Attribution
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.steps import Steps
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import Int64Array


@dataclass(frozen=True, slots=True)
class Pin:
    """The live blocks that together keep some memory from going back.

    Attributes
    ----------
    segment_address, segment_bytes
        The segment that they are in; of an expandable one, the mapped run.
    is_expandable
        Whether it gives back handle by handle.
    is_pool_known
        False where the recording does not tell its pool: if that is a private one, nothing goes back while it lives.
    held_bytes
        Free bytes that would go back but for these blocks.
    returned_bytes
        What freeing them, and then emptying the cache, gives back beyond what emptying the cache alone would.
    pinning_bytes
        Bytes of these blocks; ``returned_bytes`` is ``held_bytes`` and what of these bytes lies in the same units.
    allocation_ids
        Rows of these blocks, largest first.
    """

    segment_address: int
    segment_bytes: int
    is_expandable: bool
    is_pool_known: bool
    held_bytes: int
    returned_bytes: int
    pinning_bytes: int
    allocation_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Units:
    """Units of one segment that are partly in use: int64 (u,) each, in order of address.

    ``first`` and ``last`` are the live blocks that touch a unit, as positions among the segment's own.
    """

    first: Int64Array
    last: Int64Array
    free_bytes: Int64Array
    unit_bytes: int


def find_pins(
    state: AllocatorState, limit: int = 20, *, large_handle_bytes: int = caching.LARGE_SEGMENT_BYTES
) -> tuple[Pin, ...]:
    """The sets of blocks that hold most free bytes hostage, most first; of equal ones, those with fewest live bytes.

    Linear in the blocks and in the handles of expandable segments.

    Parameters
    ----------
    large_handle_bytes
        Handle of large expandable segments (``large_segment_size_mb``).
    """
    blocks, segments = state.blocks, state.segments
    bounds = np.searchsorted(blocks.segment_id, np.arange(len(segments) + 1))
    pins: list[Pin] = []
    for segment in np.flatnonzero(segments.pool_id <= 0).tolist():
        rows = np.arange(bounds[segment], bounds[segment + 1])
        live = rows[blocks.state[rows] == BlockState.ACTIVE_ALLOCATED]
        if len(live) and len(live) < len(rows):
            handle = large_handle_bytes if segments.is_large[segment] else caching.SMALL_SEGMENT_BYTES
            unit_bytes = handle if segments.is_expandable[segment] else int(segments.size_bytes[segment])
            pins += _pins_of_segment(state, segment, live, unit_bytes)
    pins.sort(key=lambda pin: (-pin.held_bytes, pin.pinning_bytes))
    return tuple(pins[:limit])


def _pins_of_segment(state: AllocatorState, segment: int, live: Int64Array, unit_bytes: int) -> list[Pin]:
    """Pins of one segment, whose live blocks are ``live`` (rows of blocks, ascending)."""
    blocks, segments = state.blocks, state.segments
    units = _units(state, segment, live, unit_bytes)
    partly = np.flatnonzero(units.free_bytes > 0)
    pins = []
    for first, last in sorted({(int(units.first[u]), int(units.last[u])) for u in partly}):
        # Units are in order, so those that these blocks alone keep stand side by side.
        begin = int(np.searchsorted(units.first, first, side="left"))
        end = int(np.searchsorted(units.last, last, side="right"))
        pinning = live[first : last + 1]
        pinning = pinning[np.argsort(-blocks.size_bytes[pinning], kind="stable")]
        pins.append(
            Pin(
                segment_address=int(segments.address[segment]),
                segment_bytes=int(segments.size_bytes[segment]),
                is_expandable=bool(segments.is_expandable[segment]),
                is_pool_known=bool(segments.pool_id[segment] == 0),
                held_bytes=int(units.free_bytes[begin:end].sum()),
                returned_bytes=(end - begin) * unit_bytes,
                pinning_bytes=int(blocks.size_bytes[pinning].sum()),
                allocation_ids=tuple(int(row) for row in state.allocation_ids[pinning]),
            )
        )
    return pins


def _units(state: AllocatorState, segment: int, live: Int64Array, unit_bytes: int) -> _Units:
    """The units of a segment that live blocks touch; a mapped run begins and ends at a handle's edge."""
    offset = state.blocks.address[live] - state.segments.address[segment]
    end = offset + state.blocks.size_bytes[live]
    first_unit, last_unit = offset // unit_bytes, (end - 1) // unit_bytes
    # Few blocks are longer than a unit; those that are fill every unit between their first and their last.
    long = np.flatnonzero(last_unit - first_unit > 1).tolist()
    inner = [np.arange(first_unit[i] + 1, last_unit[i]) for i in long]
    unit = np.unique(np.concatenate([first_unit, last_unit, *inner])).astype(np.int64)
    first = np.searchsorted(end, unit * unit_bytes, side="right")
    last = np.searchsorted(offset, (unit + 1) * unit_bytes, side="left") - 1
    before = np.concatenate([[0], np.cumsum(end - offset)])
    live_bytes = before[last + 1] - before[first]
    live_bytes -= np.maximum(unit * unit_bytes - offset[first], 0)
    live_bytes -= np.maximum(end[last] - (unit + 1) * unit_bytes, 0)
    return _Units(first.astype(np.int64), last.astype(np.int64), unit_bytes - live_bytes, unit_bytes)


@dataclass(frozen=True, slots=True)
class Holder:
    """One live block and who holds it; None is "not recorded".

    Attributes
    ----------
    row
        Its allocation.
    alloc_event
        None where it predates the events; then its age is counted from the first event on, and is more than that.
    age_events, age_ns
        How long it has lived by the moment asked about: events of the device, and time.
    step
        Name of the step that it was born in; None where it was born in none, or steps are not known.
    """

    row: int
    address: int
    block_bytes: int
    requested_bytes: int
    category: Category
    owner: str | None
    stack_id: int
    alloc_event: int | None
    age_events: int
    age_ns: int | None
    step: str | None


def holders_of(
    lifetimes: DeviceLifetimes, attribution: Attribution, rows: Sequence[int], event: int, steps: Steps | None = None
) -> tuple[Holder, ...]:
    """Who holds the blocks of some allocations that are live after an event, in the order of ``rows``."""
    return tuple(_holder(lifetimes, attribution, row, event, steps) for row in rows)


def _holder(lifetimes: DeviceLifetimes, attribution: Attribution, row: int, event: int, steps: Steps | None) -> Holder:
    table, trace = lifetimes.allocations, lifetimes.trace
    born = int(table.alloc_event[row])
    first = lifetimes.first_event if born == NONE_ID else born
    step_id = NONE_ID if steps is None else int(steps.step_of(table.alloc_event[row : row + 1])[0])
    return Holder(
        row=row,
        address=int(table.address[row]),
        block_bytes=int(table.block_bytes[row]),
        requested_bytes=int(table.requested_bytes[row]),
        category=Category(int(attribution.category[row])),
        owner=trace.shown_string(int(attribution.owner_id[row])),
        stack_id=int(table.stack_id[row]),
        alloc_event=None if born == NONE_ID else born,
        age_events=max(event - first, 0),
        age_ns=_time_between(lifetimes, first, event),
        step=None if step_id == NONE_ID or steps is None else steps.labels[step_id],
    )


def _time_between(lifetimes: DeviceLifetimes, first: int, event: int) -> int | None:
    """Time from one event to another, None where it was not recorded. A dry run's times are not a device's."""
    trace = lifetimes.trace
    if event < first or trace.metadata.source == "dry-run" or not lifetimes.n_events:
        return None
    begin, end = int(trace.time_ns[first]), int(trace.time_ns[event])
    return None if NONE_ID in (begin, end) else max(end - begin, 0)
