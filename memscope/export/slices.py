"""A part of a trace as a trace of its own: the events between two positions, and the state after the last of them.

A trace holds the state at its end, from which the state at its start is found by undoing its events; so a slice holds
the simulated state after its own last event, as the segments and blocks of a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from memscope.analysis import Analysis
from memscope.compare.moments import step_position
from memscope.device.device import Device
from memscope.errors import TrustError, UsageError
from memscope.trace import schema
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, BlockState, MarkKind
from memscope.trace.tables import (
    BlockTable,
    CacheLayerTable,
    CacheLengthTable,
    Int64Array,
    MarkTable,
    OwnerTable,
    SampleTable,
    SegmentTable,
)
from memscope.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Part:
    """Events ``begin <= event < end`` of one device."""

    device: int
    begin: int
    end: int


def events_within(name: str, n_events: int, first: int, last: int) -> None:
    """Refuse a range of events that a trace does not have.

    Raises
    ------
    UsageError
        If there are no such events.
    """
    if not 0 <= first <= last < n_events:
        raise UsageError(
            f"events {first}:{last} are not in {name}: it has events 0 to {n_events - 1}, and the first comes first"
        )


def part_of_events(analysis: Analysis, first: int, last: int) -> list[Part]:
    """The events from the first to the last, both included, by device.

    Raises
    ------
    UsageError
        If there are no such events.
    """
    events_within(analysis.name, analysis.trace.n_events, first, last)
    parts = []
    for device in analysis.trace.devices:
        begin, end = analysis.trace.event_range(device)
        begin, end = max(begin, first), min(end, last + 1)
        if begin < end:
            parts.append(Part(device, begin, end))
    return parts


def part_of_steps(analysis: Analysis, first: str, last: str) -> list[Part]:
    """The events from the first step to the last, both included, of every device that has them.

    Raises
    ------
    UsageError
        If the steps cannot be told, there are none of those names, or the last comes before the first.
    """
    found = [_steps_of(device, first, last) for device in analysis.devices_asked()]
    parts = [one for one in found if isinstance(one, Part)]
    if not parts:
        raise next(one for one in found if isinstance(one, UsageError))
    return parts


def _steps_of(device: Device, first: str, last: str) -> Part | UsageError:
    """A device's part, or why it has none."""
    try:
        return _part_between(device, first, last)
    except UsageError as error:
        return error


def _part_between(device: Device, first: str, last: str) -> Part:
    begin, end = (step_position(device, name) for name in (first, last))
    steps = device.steps
    assert steps is not None
    if end < begin:
        raise UsageError(f"step {last} comes before step {first}: give the earlier one first")
    return Part(device.index, int(steps.begin[begin]), int(steps.end[end]))


def slice_trace(analysis: Analysis, parts: list[Part]) -> Trace:
    """The trace of some parts, each of another device. Linear in the trace.

    Raises
    ------
    TrustError
        If the trace's segments were not recorded, so that no state can be simulated.
    ContradictionError
        If the trace contradicts itself.
    """
    analysis.require_consistent()
    trace = analysis.trace
    if not all(analysis.device(part.device).lifetimes.segments_are_known for part in parts):
        raise TrustError(
            f"{analysis.name} cannot be sliced: its segments were not recorded, so no state can be simulated"
        )
    parts = sorted(parts, key=lambda part: part.begin)
    state, owners = final_state(analysis, parts), _owners(analysis, parts)
    found = cut(trace, parts, state, owners)
    whole = parts == [Part(device, *trace.event_range(device)) for device in trace.devices]
    return found if whole else replace(found, metadata=metadata_of_slice(trace.metadata, parts))


def metadata_of_slice(metadata: TraceMetadata, parts: list[Part]) -> TraceMetadata:
    """What is to be known of parts that are not all of a recording."""
    which = ", ".join(f"events {p.begin:,} to {p.end - 1:,}" for p in parts)
    note = f"a slice of a longer recording: {which}; they are numbered from 0 here"
    return replace(metadata, n_events_lost=None, notes=(*metadata.notes, note))


def cut(
    trace: Trace, parts: list[Part], state: tuple[SegmentTable, BlockTable], owners: OwnerTable | None = None
) -> Trace:
    """The events of some parts in order, with the state after the last of each, and what belongs to them."""
    segments, blocks = state
    events = np.concatenate([np.arange(part.begin, part.end) for part in parts])
    return Trace(
        **{name: getattr(trace, name)[events] for name in schema.EVENT_COLUMNS},
        segments=segments,
        blocks=blocks,
        stacks=trace.stacks,
        strings=trace.strings,
        stream_handles=trace.stream_handles,
        pools=trace.pools,
        metadata=trace.metadata,
        samples=_samples(trace, parts),
        marks=_marks(trace, parts),
        owners=trace.owners if owners is None else owners,
        cache_layers=_cache_layers(trace, parts),
        cache_lengths=_cache_lengths(trace, parts),
    )


def final_state(analysis: Analysis, parts: list[Part]) -> tuple[SegmentTable, BlockTable]:
    """The segments and blocks after each part's last event, one device after the other."""
    states = [analysis.device(part.device).lifetimes.state_at(part.end - 1) for part in parts]
    return joined([(state.segments, state.blocks) for state in states])


def joined(states: list[tuple[SegmentTable, BlockTable]]) -> tuple[SegmentTable, BlockTable]:
    """The segments and blocks of several devices as one table of each."""
    segments, blocks, n_before = [], [], 0
    for of_segments, of_blocks in states:
        segments.append(of_segments.columns())
        inactive = of_blocks.state == BlockState.INACTIVE
        blocks.append(
            of_blocks.columns()
            | {
                "segment_id": of_blocks.segment_id + np.int32(n_before),
                "stack_id": np.where(inactive, NONE_ID, of_blocks.stack_id).astype(np.int32),
            }
        )
        n_before += len(of_segments)
    return (
        SegmentTable(**{name: np.concatenate([one[name] for one in segments]) for name in schema.SEGMENT_COLUMNS}),
        BlockTable(**{name: np.concatenate([one[name] for one in blocks]) for name in schema.BLOCK_COLUMNS}),
    )


class _Places:
    """Where the events of the whole trace lie in a slice of it."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        lengths = [part.end - part.begin for part in parts]
        self._offsets = [sum(lengths[:i]) - part.begin for i, part in enumerate(parts)]

    def within(self, events: Int64Array, *, has_end: bool = False) -> tuple[Int64Array, Int64Array]:
        """Positions of the events that lie in a part, and where they lie in the slice.

        ``has_end``: what stands before the event that follows a part still belongs to it.
        """
        rows, places = [], []
        for part, offset in zip(self._parts, self._offsets, strict=True):
            end = part.end + 1 if has_end else part.end
            found = np.flatnonzero((events >= part.begin) & (events < end))
            rows.append(found)
            places.append(events[found] + offset)
        every, place = np.concatenate(rows), np.concatenate(places)
        every, first = np.unique(every, return_index=True)
        return every, place[first]

    def begin_of(self, part: Part) -> int:
        """Where a part begins in the slice."""
        return part.begin + self._offsets[self._parts.index(part)]


def _samples(trace: Trace, parts: list[Part]) -> SampleTable:
    rows, places = _Places(parts).within(trace.samples.event, has_end=True)
    chosen = np.isin(trace.samples.device[rows], [part.device for part in parts])
    return SampleTable.from_columns(trace.samples.take(rows[chosen]).columns() | {"event": places[chosen]})


def _marks(trace: Trace, parts: list[Part]) -> MarkTable:
    """The marks within, and before them the phases that were open when each part began.

    A step's mark stands before the event that follows it: of a step that ended before a part there is none.
    """
    marks, places = trace.marks, _Places(parts)
    rows, at = places.within(marks.event, has_end=True)
    ranges = {part.device: trace.event_range(part.device) for part in parts}
    cut = [part for part in parts if part.begin > ranges[part.device][0]]
    cut_after = [part.end for part in parts if part.end < ranges[part.device][1]]
    is_before = np.isin(at, [places.begin_of(part) for part in cut])
    is_after = np.isin(marks.event[rows], cut_after) & (marks.kind[rows] == MarkKind.PHASE_BEGIN)
    rows, at = rows[~is_before & ~is_after], at[~is_before & ~is_after]
    opened = [
        (i, places.begin_of(part)) for part in cut for i in _open_phases(marks, ranges[part.device][0], part.begin)
    ]
    every = np.concatenate([np.array([i for i, _ in opened], np.int64), rows])
    where = np.concatenate([np.array([place for _, place in opened], np.int64), at])
    order = np.argsort(where, kind="stable")
    return MarkTable.from_columns(marks.take(every[order]).columns() | {"event": where[order]})


def _open_phases(marks: MarkTable, first: int, event: int) -> list[int]:
    """The marks of the phases of a device that are open when an event happens, outermost first."""
    still_open: list[int] = []
    for i in np.flatnonzero((marks.event >= first) & (marks.event <= event)).tolist():
        if marks.kind[i] == MarkKind.PHASE_BEGIN:
            still_open.append(i)
        elif marks.kind[i] == MarkKind.PHASE_END:
            same = next((k for k in reversed(still_open) if marks.label_id[k] == marks.label_id[i]), None)
            if same is not None:
                still_open.remove(same)
    return still_open


def _owners(analysis: Analysis, parts: list[Part]) -> OwnerTable:
    """The owners of what is allocated within, and of what was in use when a part began, by its address."""
    owners = analysis.trace.owners
    rows, places = _Places(parts).within(np.where(owners.alloc_event == NONE_ID, np.int64(-2), owners.alloc_event))
    inside = owners.take(rows).columns() | {"alloc_event": places}
    before = []
    for part in parts:
        table = analysis.device(part.device).allocations
        born = np.flatnonzero((table.alloc_event < part.begin) & table.active_at(part.begin - 1))
        addresses, events = table.address[born], table.alloc_event[born]
        by_event = np.searchsorted(owners.alloc_event, events)
        has = (events != NONE_ID) & (by_event < len(owners))
        has[has] = owners.alloc_event[by_event[has]] == events[has]
        found = {int(address): int(i) for address, i in zip(addresses[has], by_event[has], strict=True)}
        predating = np.flatnonzero((owners.alloc_event == NONE_ID) & (owners.device == part.device))
        old = set(addresses[events == NONE_ID].tolist())
        found |= {int(owners.address[i]): int(i) for i in predating if int(owners.address[i]) in old}
        ordered = sorted(found)
        chosen = owners.take(np.array([found[address] for address in ordered], np.int64))
        before.append(
            chosen.columns()
            | {
                "alloc_event": np.full(len(ordered), NONE_ID, np.int64),
                "device": np.full(len(ordered), part.device, np.int16),
                "address": np.array(ordered, np.int64),
            }
        )
    before.sort(key=lambda one: int(one["device"][0]) if len(one["device"]) else -1)
    tables = [*before, inside]
    return OwnerTable(**{name: np.concatenate([one[name] for one in tables]) for name in schema.OWNER_COLUMNS})


def _cache_layers(trace: Trace, parts: list[Part]) -> CacheLayerTable:
    """What holds from an event on: the rows within, and the last before of each layer of each cache."""
    table, places = trace.cache_layers, _Places(parts)
    keys = np.column_stack([table.cache_id, table.layer])
    rows, at = _held_from(table.event, table.device, keys, parts, places)
    return CacheLayerTable.from_columns(table.take(rows).columns() | {"event": at})


def _cache_lengths(trace: Trace, parts: list[Part]) -> CacheLengthTable:
    table, places = trace.cache_lengths, _Places(parts)
    rows, at = _held_from(table.event, table.device, table.cache_id.reshape(-1, 1), parts, places)
    return CacheLengthTable.from_columns(table.take(rows).columns() | {"event": at})


def _held_from(
    events: Int64Array, devices: np.ndarray, keys: np.ndarray, parts: list[Part], places: _Places
) -> tuple[Int64Array, Int64Array]:
    rows, at = [], []
    for part in parts:
        before = np.flatnonzero((devices == part.device) & (events < part.begin))
        last = {tuple(keys[i].tolist()): i for i in before.tolist()}
        rows += sorted(last.values())
        at += [places.begin_of(part)] * len(last)
        inside = np.flatnonzero((devices == part.device) & (events >= part.begin) & (events <= part.end))
        rows += inside.tolist()
        at += (events[inside] - part.begin + places.begin_of(part)).tolist()
    order = np.argsort(np.array(at, np.int64), kind="stable")
    return np.array(rows, np.int64)[order], np.array(at, np.int64)[order]
