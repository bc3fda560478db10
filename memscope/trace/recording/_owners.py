"""Who owns the allocations of a recording: what was noted by identity, what was tagged, and what was temporary.

An owner that was noted is the owner of what lay at its address then: the last allocation made there before the note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from typing_extensions import Self

from memscope.trace.categories import Category
from memscope.trace.recording.notes import COUNTED, TAGGED_SPAN, AddressOwner, Calls, RecordingNotes
from memscope.trace.schema import NONE_ID, Action, Columns, MarkKind
from memscope.trace.tables import Int64Array, OwnerTable, Table
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


_CLOCK_TOLERANCE_NS = 20_000
_ROWS_AT_ONCE = 1 << 20
"""Owners that are looked up before those found so far become one for each allocation."""
_INT64 = np.dtype(np.int64)


@dataclass(frozen=True, slots=True)
class _NotedOwners(Table):
    """Who owns what lies at addresses of one device, in the order of the notes."""

    COLUMNS: ClassVar[Columns] = dict.fromkeys(("address", "category", "strength", "label_id"), _INT64)
    address: Int64Array
    category: Int64Array
    strength: Int64Array
    label_id: Int64Array


@dataclass(frozen=True, slots=True)
class _FoundOwners(Table):
    """Owners of allocations; one allocation may have several, the lowest strength wins.

    An allocation is named by its event; one from before the first event has none and is named by device and address,
    which are −1 for the others.
    """

    COLUMNS: ClassVar[Columns] = dict.fromkeys(
        ("alloc_event", "device", "address", "category", "strength", "label_id"), _INT64
    )
    alloc_event: Int64Array
    device: Int64Array
    address: Int64Array
    category: Int64Array
    strength: Int64Array
    label_id: Int64Array

    @classmethod
    def at(cls, device: int, alloc_event: Int64Array, owners: _NotedOwners) -> Self:
        """Owners of one device's allocations: each of what its event made, or of what lay at its address before."""
        predates = alloc_event == NONE_ID
        return cls(
            alloc_event=alloc_event,
            device=np.where(predates, device, NONE_ID),
            address=np.where(predates, owners.address, NONE_ID),
            category=owners.category,
            strength=owners.strength,
            label_id=owners.label_id,
        )

    def strongest(self) -> Self:
        """One for each allocation; of equals a weight's and a tag's last name, everything else's first."""
        order = np.arange(len(self))
        turn = np.where((self.strength < 0) | (self.category == Category.WEIGHTS), -order, order)
        ranked = self.take(np.lexsort((turn, self.strength, self.address, self.device, self.alloc_event)))
        is_first = np.ones(len(self), np.bool_)
        of_allocation = ranked.alloc_event, ranked.device, ranked.address
        is_first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in of_allocation])
        return ranked.take(is_first)

    def table(self) -> OwnerTable:
        """As a trace keeps them."""
        in_order = self.take(np.lexsort((self.address, self.device, self.alloc_event)))
        not_seen = np.full(len(in_order), NONE_ID, np.int32)
        return OwnerTable.from_columns({**in_order.columns(), "tagged": in_order.strength < 0, "tensor_id": not_seen})


class _Phases(NamedTuple):
    """Phases that the program went through, one after the other; int64 (phases,): events and the label's text."""

    begin: Int64Array
    end: Int64Array
    label_id: Int64Array


def find_owners(notes: RecordingNotes, devices: Sequence[DevicePlaces], intern: Callable[[str], int]) -> OwnerTable:
    """One owner for each allocation that was noted or tagged, or was temporary.

    Parameters
    ----------
    notes
        What was noted; its order is the order in time.
    devices
        The devices of the trace.
    intern
        Gives a text its id.
    """
    named = [part for device in devices for part in (_noted(notes, device, intern), *_tagged(notes, device, intern))]
    owned = _FoundOwners.stacked(named).strongest()
    temporary = [_temporary(notes, device, intern, owned.alloc_event) for device in devices]
    return _FoundOwners.stacked([owned, *temporary]).table()


def _noted(notes: RecordingNotes, device: DevicePlaces, intern: Callable[[str], int]) -> _FoundOwners:
    """Owners that were found by identity, in the order of the notes."""
    read: dict[tuple[AddressOwner, ...], _NotedOwners] = {}
    found = _FoundOwners.empty()
    parts: list[_NotedOwners] = []
    calls: list[Calls] = []
    n_rows = 0
    for note in notes.owners:
        # Most notes repeat an earlier one's owners, which a training step finds again where they were.
        if note.owners not in read:
            read[note.owners] = _on_device(device.device, note.owners, intern)
        part = read[note.owners]
        if len(part) and device.is_counted_in(note.calls):
            parts.append(part)
            calls.append(note.calls)
            n_rows += len(part)
        if n_rows > _ROWS_AT_ONCE:
            found = _FoundOwners.stacked([found, _placed(device, parts, calls)]).strongest()
            parts, calls, n_rows = [], [], 0
    return _FoundOwners.stacked([found, _placed(device, parts, calls)])


def _placed(device: DevicePlaces, parts: Sequence[_NotedOwners], calls: Sequence[Calls]) -> _FoundOwners:
    owners = _NotedOwners.stacked(parts)
    event = np.repeat(device.events_of(calls), _int64([len(part) for part in parts]))
    inside = event != NONE_ID
    owners = owners.take(inside)
    return _FoundOwners.at(device.device, device.alloc_before(owners.address, event[inside]), owners)


def _on_device(device: int, owners: Iterable[AddressOwner], intern: Callable[[str], int]) -> _NotedOwners:
    here = [owner for owner in owners if owner.device == device]
    return _NotedOwners(
        address=_int64([owner.address for owner in here]),
        category=_int64([owner.category for owner in here]),
        strength=_int64([owner.strength for owner in here]),
        label_id=_int64([intern(owner.label) for owner in here]),
    )


def _tagged(notes: RecordingNotes, device: DevicePlaces, intern: Callable[[str], int]) -> Iterator[_FoundOwners]:
    """Owners of what was allocated in tagged blocks of code, outer blocks first."""
    tags = [tag for tag in notes.tags if device.is_counted_in(tag.begin)]
    for tag in sorted(tags, key=lambda tag: tag.begin[device.device]):
        called = device.calls_between(tag.begin, tag.end)
        if len(called):
            allocs = called[device.trace.action[called] == Action.ALLOC]
            yield _of_allocs(device, allocs, tag.category, TAGGED_SPAN, np.full(len(allocs), intern(tag.label)))


def _temporary(
    notes: RecordingNotes, device: DevicePlaces, intern: Callable[[str], int], owned: Int64Array
) -> _FoundOwners:
    """What nothing owned and one phase both allocated and freed, named by its module or phase."""
    phases = _phases(notes, device, intern)
    allocs = device.allocs[~np.isin(device.allocs, owned)]
    if not len(phases.begin) or not len(allocs):
        return _FoundOwners.empty()
    free = device.free_after(device.trace.address[allocs], allocs)
    phase = np.searchsorted(phases.begin, allocs, "right") - 1
    inside = (phase >= 0) & (free != NONE_ID)
    inside &= (allocs < phases.end[phase]) & (free < phases.end[phase])
    allocs, of_allocs = allocs[inside], _Phases(*(column[phase[inside]] for column in phases))
    label_id = _module_labels(notes, device, intern, allocs, of_allocs)
    return _of_allocs(device, allocs, Category.TEMPORARIES, 0, label_id)


def _of_allocs(
    device: DevicePlaces, allocs: Int64Array, category: int, strength: int, label_id: Int64Array
) -> _FoundOwners:
    owners = _NotedOwners(
        address=device.trace.address[allocs],
        category=np.full(len(allocs), int(category)),
        strength=np.full(len(allocs), strength),
        label_id=label_id,
    )
    return _FoundOwners.at(device.device, allocs, owners)


def _phases(notes: RecordingNotes, device: DevicePlaces, intern: Callable[[str], int]) -> _Phases:
    """The phases that the program was seen to go through; the user's own marks may lie in each other and are not."""
    marks = [m for m in notes.marks if m.is_automatic and m.kind != MarkKind.STEP and device.is_counted_in(m.calls)]
    begins, ends, labels = [], [], []
    begin = NONE_ID
    for event, mark in zip(device.events_of([m.calls for m in marks]).tolist(), marks, strict=True):
        if mark.kind == MarkKind.PHASE_BEGIN:
            begin = event
        elif NONE_ID not in (begin, event):
            begins.append(begin)
            ends.append(event)
            labels.append(intern(mark.label))
            begin = NONE_ID
    return _Phases(_int64(begins), _int64(ends), _int64(labels))


def _module_labels(
    notes: RecordingNotes,
    device: DevicePlaces,
    intern: Callable[[str], int],
    allocs: Int64Array,
    phases: _Phases,
) -> Int64Array:
    """Labels that name the module last come into, in each alloc's phase; the phase's where that cannot be told.

    Modules are placed by time, not by counting, which would cost more than the rest of the recording; so only where
    the marks, which have both, show that the allocator's clock and the program's agree.
    """
    if not notes.visits or not _clocks_agree(notes, device):
        return phases.label_id
    time_ns = device.trace.time_ns
    visited_ns = _int64(notes.visits[::2])
    order = np.argsort(visited_ns, kind="stable")
    names = [notes.visits[2 * i + 1] for i in order.tolist()]
    visited_ns = visited_ns[order]
    visit = np.searchsorted(visited_ns, time_ns[allocs], "right") - 1
    is_told = visit >= 0
    is_told &= visited_ns[np.maximum(visit, 0)] >= np.maximum(time_ns[phases.begin] - _CLOCK_TOLERANCE_NS, 0)
    label = phases.label_id.copy()
    backward = intern("backward")
    for i in np.flatnonzero(is_told).tolist():
        name = names[visit[i]]
        if name:
            label[i] = intern(f"backward of {name}" if phases.label_id[i] == backward else name)
    return label


def _clocks_agree(notes: RecordingNotes, device: DevicePlaces) -> bool:
    """Whether no mark stands, by its time, on the other side of an event than by its count."""
    marks = [mark for mark in notes.marks if device.is_counted_in(mark.calls)]
    event = device.events_of([mark.calls for mark in marks])
    known = (event > device.first) & (event < device.end)
    event, marked_ns = event[known], _int64([mark.time_ns for mark in marks])[known]
    before_ns, after_ns = device.trace.time_ns[event - 1], device.trace.time_ns[event]
    is_early = before_ns - marked_ns > _CLOCK_TOLERANCE_NS
    is_late = marked_ns - after_ns > _CLOCK_TOLERANCE_NS
    return not (is_early | is_late).any()


def _int64(values: Sequence[int]) -> Int64Array:
    return np.array(values, np.int64)
