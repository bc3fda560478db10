"""Where a recording's notes belong among the events of its trace.

A note is placed by counting: the event after as many allocator calls as it carries is its place. Marks go to the device
that has most events, what was noted of a key/value cache to the device that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from memscope.trace.builder import StringTable
from memscope.trace.recording._owners import DevicePlaces, find_owners
from memscope.trace.recording.notes import LENGTH_FIELDS, CacheLayerNote, MarkNote, RecordingNotes
from memscope.trace.schema import NONE_ID, MarkKind
from memscope.trace.tables import BoolArray, CacheLayerTable, CacheLengthTable, Int64Array, MarkTable
from memscope.trace.trace import Trace


def place_notes(trace: Trace, notes: RecordingNotes, first_calls: Mapping[int, int]) -> Trace:
    """Put marks, owners and what was noted of caches into a trace.

    Parameters
    ----------
    trace
        The events, without a gap.
    notes
        What was noted; its order is the order in time.
    first_calls
        For each device, the calls that were made before the trace's first event.
    """
    strings = StringTable()
    for text in trace.strings:
        strings.intern(text)
    devices = [DevicePlaces(trace, device, first_calls.get(device, 0)) for device in trace.devices]
    return replace(
        trace,
        marks=_place_marks(notes.marks, devices, strings.intern),
        owners=find_owners(notes, devices, strings.intern),
        cache_layers=_place_layers(notes.cache_layers, devices, strings.intern),
        cache_lengths=_place_lengths(notes.cache_lengths, devices),
        strings=strings.strings(),  # last, because what is placed before adds its texts
    )


def _place_marks(marks: Sequence[MarkNote], devices: Sequence[DevicePlaces], intern: Callable[[str], int]) -> MarkTable:
    """The marks in order of events; the optimizer's steps only where the program itself names none."""
    if not devices:
        return MarkTable.empty()
    device = max(devices, key=lambda d: d.end - d.first)
    is_named = any(mark.kind == MarkKind.STEP and not mark.is_automatic for mark in marks)
    if is_named:
        marks = [mark for mark in marks if not (mark.is_automatic and mark.kind == MarkKind.STEP)]
    marks = [mark for mark in marks if device.is_counted_in(mark.calls)]
    event = device.events_of([mark.calls for mark in marks])
    placed = [(int(e), mark) for e, mark in zip(event, marks, strict=True) if e != NONE_ID]
    placed.sort(key=lambda pair: pair[0])
    return MarkTable.from_columns(
        {
            "event": [e for e, _ in placed],
            "time_ns": [mark.time_ns for _, mark in placed],
            "kind": [mark.kind for _, mark in placed],
            "label_id": [intern(mark.label) for _, mark in placed],
        }
    )


def _place_layers(
    notes: Sequence[CacheLayerNote], devices: Sequence[DevicePlaces], intern: Callable[[str], int]
) -> CacheLayerTable:
    """The notes of layers at their events; of those from before the first event each layer's last holds from there."""
    numbers = [name for name in CacheLayerNote._fields if name != "kind"]
    columns = {name: np.array([getattr(note, name) for note in notes], np.int64) for name in numbers}
    columns["kind_id"] = np.array([intern(note.kind) for note in notes], np.int64)
    columns["event"] = _events(columns, ("device", "cache_id", "layer"), devices)
    return CacheLayerTable.from_columns(columns).take(_rows_in_order(columns["event"]))


def _place_lengths(flat: Sequence[int], devices: Sequence[DevicePlaces]) -> CacheLengthTable:
    """The notes of lengths at their events; of those from before the first event each cache's last holds from there."""
    numbers = np.array(flat, np.int64).reshape(-1, len(LENGTH_FIELDS))
    columns: dict[str, Int64Array] = dict(zip(LENGTH_FIELDS, numbers.T, strict=True))
    columns["event"] = _events(columns, ("device", "cache_id"), devices)
    return CacheLengthTable.from_columns(columns).take(_rows_in_order(columns["event"]))


def _events(columns: Mapping[str, Int64Array], subject: Sequence[str], devices: Sequence[DevicePlaces]) -> Int64Array:
    """Events at which notes of caches stand, −1 for those that are not in the trace.

    Parameters
    ----------
    columns
        The notes' numbers by name, ``calls`` and ``device`` among them.
    subject
        Names of the columns that say what a note is of.
    devices
        The devices of the trace.
    """
    calls, device = columns["calls"], columns["device"]
    event = np.full(len(calls), NONE_ID, np.int64)
    is_early = np.zeros(len(calls), np.bool_)
    for places in devices:
        here = device == places.device
        is_early |= here & (calls < places.first_call)
        event[here] = places.events_after(np.maximum(calls[here], places.first_call))
    event[is_early & ~_is_last_of_each([columns[name] for name in subject], is_early)] = NONE_ID
    return event


def _is_last_of_each(subject: Sequence[Int64Array], among: BoolArray) -> BoolArray:
    """Which of some rows are the last of their subject."""
    found = np.zeros(len(among), np.bool_)
    rows = np.flatnonzero(among)[::-1]
    if len(rows):
        found[rows[np.unique(np.column_stack(subject)[rows], axis=0, return_index=True)[1]]] = True
    return found


def _rows_in_order(event: Int64Array) -> Int64Array:
    """Rows that have an event, in order of events."""
    rows = np.flatnonzero(event != NONE_ID)
    in_order: Int64Array = rows[np.argsort(event[rows], kind="stable")]
    return in_order
