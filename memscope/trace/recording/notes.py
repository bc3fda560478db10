"""What a recording notes beside the allocator's events, and where in the events it belongs.

A note is placed by counting, not by its time: it carries, for each device, how many allocator calls (allocs, free
requests, free completions) the device had made since the recording began. The event after that many calls is its place,
and the allocation that lay at an address then is the last one made there before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from memscope.trace.builder import StringTable
from memscope.trace.categories import Category
from memscope.trace.recording.cache_notes import (
    CacheLayerNote,
    Placing,
    place_layers,
    place_lengths,
    read_layer_notes,
    read_length_notes,
)
from memscope.trace.schema import NONE_ID, Action, MarkKind
from memscope.trace.tables import Int64Array, MarkTable, OwnerTable
from memscope.trace.trace import Trace

Sizes = tuple[int, int, int, int, int, int]
Calls = tuple[int, ...]
"""Allocator calls of each device since the recording began."""

COUNTED = (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED)
_CLOCK_TOLERANCE_NS = 20_000
TAGGED_SPAN = -1
TAGGED_TENSOR = -2
"""Strengths of the user's tags: below every category's, and a tensor's own tag below that of a block of code."""


class MarkNote(NamedTuple):
    """A step or phase; ``is_automatic`` where the program itself did not say it."""

    calls: Calls
    time_ns: int
    kind: int
    label: str
    is_automatic: bool = False


class AddressOwner(NamedTuple):
    """Who owns what lies at an address: the lowest strength wins."""

    device: int
    address: int
    category: int
    strength: int
    label: str


class OwnersNote(NamedTuple):
    """Owners found at one moment."""

    calls: Calls
    owners: tuple[AddressOwner, ...]


class TagNote(NamedTuple):
    """A tagged block of code; ``end`` is None while it runs."""

    begin: Calls
    end: Calls | None
    category: int
    label: str


@dataclass
class RecordingNotes:
    """Everything noted between two drains, or over a recording."""

    marks: list[MarkNote] = field(default_factory=list)
    owners: list[OwnersNote] = field(default_factory=list)
    tags: list[TagNote] = field(default_factory=list)
    open_tags: list[TagNote] = field(default_factory=list)
    visits: list[Any] = field(default_factory=list)
    """When the program came into a module, forwards or backwards: nanoseconds since the epoch and the module, in turn.

    One flat list, because a tuple for each would be work for the program's garbage collector.
    """
    cache_layers: list[CacheLayerNote] = field(default_factory=list)
    cache_lengths: list[int] = field(default_factory=list)
    """Lengths of caches, each as the numbers that ``cache_notes.LENGTH_WIDTH`` counts; flat for the same reason."""
    name_of: Callable[[Any], str] = str
    """Name of a module that was visited; empty for none."""

    def sizes(self) -> Sizes:
        """How much there is of each."""
        n_cache = len(self.cache_layers), len(self.cache_lengths)
        return len(self.marks), len(self.owners), len(self.tags), len(self.visits), *n_cache

    def drop(self, sizes: Sizes) -> None:
        """Forget the oldest, which are kept elsewhere."""
        del self.marks[: sizes[0]], self.owners[: sizes[1]], self.tags[: sizes[2]], self.visits[: sizes[3]]
        del self.cache_layers[: sizes[4]], self.cache_lengths[: sizes[5]]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary in which equal rows and texts are written once.

        Its keys are the file format's: ``claims`` and ``batches`` are the owners, ``spans`` the tags.
        """
        labels: dict[str, int] = {}
        batches: dict[tuple[AddressOwner, ...], int] = {}
        owners = [[list(note.calls), batches.setdefault(note.owners, len(batches))] for note in self.owners]
        return {
            "marks": [list(mark) for mark in self.marks],
            "claims": owners,
            "batches": [[[*row[:4], labels.setdefault(row.label, len(labels))] for row in batch] for batch in batches],
            "visits": [
                [time_ns, labels.setdefault(self.name_of(module), len(labels))]
                for time_ns, module in zip(self.visits[::2], self.visits[1::2], strict=True)
            ],
            "labels": list(labels),
            "cache_layers": [list(note) for note in self.cache_layers],
            "cache_lengths": list(self.cache_lengths),
            "spans": [list(tag) for tag in (*self.tags, *self.open_tags)],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError, IndexError
            If the record is not one.
        """
        labels = record["labels"]
        batches = [
            tuple(AddressOwner(int(d), int(a), int(c), int(s), str(labels[label])) for d, a, c, s, label in batch)
            for batch in record["batches"]
        ]
        return cls(
            marks=[MarkNote(_calls(m[0]), int(m[1]), int(m[2]), str(m[3]), bool(m[4])) for m in record["marks"]],
            owners=[OwnersNote(_calls(calls), batches[batch]) for calls, batch in record["claims"]],
            tags=[
                TagNote(_calls(begin), None if end is None else _calls(end), int(category), str(label))
                for begin, end, category, label in record["spans"]
            ],
            visits=[part for time_ns, label in record.get("visits", ()) for part in (int(time_ns), str(labels[label]))],
            cache_layers=read_layer_notes(record.get("cache_layers", ())),
            cache_lengths=read_length_notes(record.get("cache_lengths", ())),
        )

    @classmethod
    def joined(cls, logs: Sequence[RecordingNotes]) -> Self:
        """Several logs as one; a block of code that was open in all but the last is taken from where it ended."""
        closed = [tag for log in logs for tag in log.tags if tag.end is not None]
        still_open = [tag for log in logs[-1:] for tag in log.tags if tag.end is None]
        return cls(
            marks=[mark for log in logs for mark in log.marks],
            owners=[note for log in logs for note in log.owners],
            tags=closed + still_open,
            visits=[part for log in logs for part in log.visits],
            cache_layers=[note for log in logs for note in log.cache_layers],
            cache_lengths=[number for log in logs for number in log.cache_lengths],
        )


def _calls(values: Iterable[Any]) -> Calls:
    return tuple(int(value) for value in values)


def place_log(trace: Trace, log: RecordingNotes, first_calls: Mapping[int, int]) -> Trace:
    """Put marks, owners and what was noted of caches into a trace.

    Parameters
    ----------
    trace
        The events, without a gap.
    log
        What was noted; its order is the order in time.
    first_calls
        For each device, the calls that were made before the trace's first event.
    """
    strings = StringTable()
    for text in trace.strings:
        strings.intern(text)
    placer = _Placer(trace, log, first_calls, strings)
    marks, owners = placer.marks(), placer.owners()
    layers = place_layers(log.cache_layers, placer.places, strings.intern)
    lengths = place_lengths(log.cache_lengths, placer.places)
    return replace(
        trace, marks=marks, owners=owners, cache_layers=layers, cache_lengths=lengths, strings=strings.strings()
    )


class _Device:
    """Where a device's calls, allocs and frees are among the trace's events."""

    def __init__(self, trace: Trace, device: int, first_call: int) -> None:
        first, end = trace.event_range(device)
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

    def events_after(self, calls: Int64Array) -> Int64Array:
        """Positions of the first event after so many calls; −1 where that is outside of the trace."""
        n = calls - self.first_call
        after = np.concatenate(([self.first], self.called + 1))
        inside = (n >= 0) & (n < len(after))
        return np.where(inside, after[np.where(inside, n, 0)], NONE_ID)

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


class _Placer:
    """Places one log in one trace."""

    def __init__(self, trace: Trace, log: RecordingNotes, first_calls: Mapping[int, int], strings: StringTable) -> None:
        self._trace = trace
        self._log = log
        self._strings = strings
        self._devices = [_Device(trace, device, first_calls.get(device, 0)) for device in trace.devices]
        self.places = {d.device: Placing(d.first_call, d.events_after) for d in self._devices}

    def marks(self) -> MarkTable:
        """The marks, placed on the device that has most events."""
        if not self._devices:
            return MarkTable.empty()
        device = max(self._devices, key=lambda d: d.end - d.first)
        named_by_user = any(mark.kind == MarkKind.STEP and not mark.is_automatic for mark in self._log.marks)
        marks = [
            mark
            for mark in self._log.marks
            if len(mark.calls) > device.device
            and not (named_by_user and mark.is_automatic and mark.kind == MarkKind.STEP)
        ]
        event = device.events_after(_int64([mark.calls[device.device] for mark in marks]))
        placed = [(int(e), mark) for e, mark in zip(event, marks, strict=True) if e != NONE_ID]
        placed.sort(key=lambda pair: pair[0])
        return MarkTable.from_columns(
            {
                "event": [e for e, _ in placed],
                "time_ns": [mark.time_ns for _, mark in placed],
                "kind": [mark.kind for _, mark in placed],
                "label_id": [self._strings.intern(mark.label) for _, mark in placed],
            }
        )

    def owners(self) -> OwnerTable:
        """One owner for each allocation that was noted or tagged, or was temporary."""
        parts = [part for device in self._devices for part in (self._noted(device), *self._tagged(device))]
        columns = _strongest(np.concatenate([np.empty((0, 6), np.int64), *parts]))
        owned = columns[:, 0]
        temporary = [self._temporary(device, owned) for device in self._devices]
        columns = np.concatenate([columns, *temporary])
        columns = columns[np.lexsort((columns[:, 2], columns[:, 1], columns[:, 0]))]
        event, device, address, category, strength, label = columns.T
        return OwnerTable.from_columns(
            {
                "alloc_event": event,
                "device": device,
                "address": address,
                "category": category,
                "label_id": label,
                "tagged": strength < 0,
            }
        )

    def _noted(self, device: _Device) -> Int64Array:
        """Rows of event, device, address, category, strength, label; in the order of the log."""
        rows, calls = [], []
        batches: dict[tuple[AddressOwner, ...], list[tuple[int, int, int, int]]] = {}
        for note in self._log.owners:
            batch = batches.get(note.owners)
            if batch is None:
                batch = batches[note.owners] = [
                    (owner.address, owner.category, owner.strength, self._strings.intern(owner.label))
                    for owner in note.owners
                    if owner.device == device.device
                ]
            if batch and len(note.calls) > device.device:
                rows += batch
                calls += [note.calls[device.device]] * len(batch)
        if not rows:
            return np.empty((0, 6), np.int64)
        address, category, strength, label = _int64(rows).T
        event = device.events_after(_int64(calls))
        inside = event != NONE_ID
        alloc = device.alloc_before(address[inside], event[inside])
        return _rows(alloc, device.device, address[inside], category[inside], strength[inside], label[inside])

    def _tagged(self, device: _Device) -> Iterable[Int64Array]:
        """Rows of what was allocated in tagged blocks of code, outer blocks first."""
        spans = [span for span in self._log.tags if len(span.begin) > device.device]
        for span in sorted(spans, key=lambda span: span.begin[device.device]):
            begin = device.first_call if span.begin[device.device] < device.first_call else span.begin[device.device]
            end = device.first_call + len(device.called)
            if span.end is not None:
                end = min(span.end[device.device], end)
            if end <= begin:
                continue
            called = device.called[begin - device.first_call : end - device.first_call]
            allocs = called[self._trace.action[called] == Action.ALLOC]
            filled = [np.full(len(allocs), v) for v in (span.category, TAGGED_SPAN, self._strings.intern(span.label))]
            yield _rows(allocs, device.device, self._trace.address[allocs], *filled)

    def _temporary(self, device: _Device, owned: Int64Array) -> Int64Array:
        """Rows of what nothing owned and one phase both allocated and freed, named by their module or phase."""
        begins, ends, labels = self._phases(device)
        allocs = device.allocs[~np.isin(device.allocs, owned)]
        if not len(begins) or not len(allocs):
            return np.empty((0, 6), np.int64)
        address = self._trace.address[allocs]
        free = device.free_after(address, allocs)
        phase = np.searchsorted(begins, allocs, "right") - 1
        inside = (phase >= 0) & (free != NONE_ID)
        inside &= (allocs < ends[phase]) & (free < ends[phase])
        n = int(np.count_nonzero(inside))
        category, strength = np.full(n, int(Category.TEMPORARIES)), np.zeros(n, np.int64)
        named = self._named_by_module(device, allocs[inside], begins[phase[inside]], labels[phase[inside]])
        return _rows(allocs[inside], device.device, address[inside], category, strength, named)

    def _named_by_module(
        self, device: _Device, allocs: Int64Array, phase_begin: Int64Array, phase_label: Int64Array
    ) -> Int64Array:
        """Labels that name the module last come into, in the same phase; the phase's where that cannot be told.

        Modules are placed by time, not by counting, which would cost more than the rest of the recording; so only where
        the marks, which have both, show that the allocator's clock and the program's agree.
        """
        if not self._log.visits or not self._clocks_agree(device):
            return phase_label
        times = _int64(self._log.visits[::2])
        order = np.argsort(times, kind="stable")
        names = [self._log.visits[2 * i + 1] for i in order.tolist()]
        index = np.searchsorted(times[order], self._trace.time_ns[allocs], "right") - 1
        is_told = index >= 0
        began_ns = np.maximum(self._trace.time_ns[phase_begin] - _CLOCK_TOLERANCE_NS, 0)
        is_told &= times[order][np.maximum(index, 0)] >= began_ns
        label = phase_label.copy()
        backward = self._strings.intern("backward")
        for i in np.flatnonzero(is_told).tolist():
            name = names[index[i]]
            if name:
                label[i] = self._strings.intern(f"backward of {name}" if phase_label[i] == backward else name)
        return label

    def _clocks_agree(self, device: _Device) -> bool:
        """Whether no mark stands, by its time, on the other side of an event than by its count."""
        marks = [mark for mark in self._log.marks if len(mark.calls) > device.device]
        event = device.events_after(_int64([mark.calls[device.device] for mark in marks]))
        time_ns = _int64([mark.time_ns for mark in marks])
        times = self._trace.time_ns[device.first : device.end]
        known = (event > device.first) & (event < device.end)
        before, after = times[event[known] - 1 - device.first], times[event[known] - device.first]
        return bool(
            (before - time_ns[known] <= _CLOCK_TOLERANCE_NS).all()
            and (time_ns[known] - after <= _CLOCK_TOLERANCE_NS).all()
        )

    def _phases(self, device: _Device) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Begin, end and label of the phases that the program went through, one after the other."""
        marks = [m for m in self._log.marks if m.is_automatic and m.kind != MarkKind.STEP]
        marks = [m for m in marks if len(m.calls) > device.device]
        event = device.events_after(_int64([m.calls[device.device] for m in marks]))
        spans: list[tuple[int, int, int]] = []
        begin: int | None = None
        for e, mark in zip(event.tolist(), marks, strict=True):
            if mark.kind == MarkKind.PHASE_BEGIN:
                begin = None if e == NONE_ID else e
            elif begin is not None and e != NONE_ID:
                spans.append((begin, e, self._strings.intern(mark.label)))
                begin = None
        begins, ends, labels = _int64(spans).reshape(-1, 3).T
        return begins, ends, labels


def _rows(alloc: Int64Array, device: int, address: Int64Array, *rest: Int64Array) -> Int64Array:
    """Rows of owners: by event, or by device and address where the allocation predates the trace."""
    predates = alloc == NONE_ID
    where = np.where(predates, device, NONE_ID), np.where(predates, address, NONE_ID)
    return np.column_stack([alloc, *where, *rest]).astype(np.int64)


def _strongest(rows: Int64Array) -> Int64Array:
    """Of each allocation's rows the strongest; of equals a weight's and a tag's last name, everything else's first."""
    if not len(rows):
        return rows
    order = np.arange(len(rows))
    category, strength = rows[:, 3], rows[:, 4]
    turn = np.where((strength < 0) | (category == Category.WEIGHTS), -order, order)
    sorted_rows = rows[np.lexsort((turn, strength, rows[:, 2], rows[:, 1], rows[:, 0]))]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = (np.diff(sorted_rows[:, :3], axis=0) != 0).any(axis=1)
    return sorted_rows[is_first]


def _int64(values: Sequence[Any]) -> Int64Array:
    return np.array(values, np.int64)
