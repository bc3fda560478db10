"""Events and annotations of a torch snapshot, as columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from memscope.errors import InputFileError
from memscope.trace.schema import ACTION_BY_NAME, NONE_ID, Action, MarkKind
from memscope.trace.snapshot._keys import ANNOTATION_KEYS, EVENT_KEYS, EVENT_SEEN_KEYS, TEXT_ID
from memscope.trace.snapshot._pickle_reader import BoolArray, Int64Array, Tape
from memscope.trace.snapshot._tape_rows import TapeRows
from memscope.trace.tables import Int8Array, Int16Array, SampleTable

_Scalar = TypeVar("_Scalar", bound=np.generic)

MAX_DEVICES = 1 << 15
_MAX_TIME_US = ((1 << 63) - 1) // 1000
_STEP_NAME = re.compile(r"(?:ProfilerStep#|(?:train(?:ing)?[ _-]?)?step[ _#:-]?)\d+", re.IGNORECASE)


@dataclass(frozen=True)
class SnapshotEvents:
    """Events of all devices, one device after the other; ids are still the tape's."""

    action: Int8Array
    device: Int16Array
    address: Int64Array
    size_bytes: Int64Array
    stream: Int64Array
    time_ns: Int64Array
    pool: tuple[Int64Array, Int64Array, BoolArray]
    label: Int64Array
    frames: Int64Array
    device_free_bytes: Int64Array
    offsets: Int64Array
    """First event of each device, and the end of the last."""
    keys: frozenset[str]
    """Keys that at least one event has."""
    notes: tuple[str, ...]

    def samples(self) -> SampleTable:
        """What the device had free at each out-of-memory error."""
        events = np.flatnonzero(self.device_free_bytes >= 0)
        none = np.full(len(events), NONE_ID, np.int64)
        return SampleTable(
            event=events,
            time_ns=self.time_ns[events],
            device=self.device[events],
            device_free_bytes=self.device_free_bytes[events],
            device_used_bytes=none,
            process_used_bytes=none,
            others_used_bytes=none,
        )


def read_events(tape: Tape, traces: int | None, *, is_in_order: bool = False) -> SnapshotEvents:
    """Read ``device_traces``: a list of events for each device.

    Parameters
    ----------
    is_in_order
        Whether it is known that no ring was stored rotated: a part of a list may look so.

    Raises
    ------
    InputFileError
        If an event lacks a key, has one of the wrong type, or an action that no torch writes.
    """
    lists = np.empty(0, np.int64) if traces is None else tape.sequence(traces)
    if len(lists) > MAX_DEVICES:
        raise InputFileError(tape.path, f"'device_traces' lists {len(lists):,} devices")
    lengths, bad = tape.lengths(lists)
    if bad >= 0:
        raise InputFileError(tape.path, f"device_traces[{bad}] is not a list of events")
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])

    def where(row: int) -> str:
        device = int(np.searchsorted(offsets, row, side="right")) - 1
        return f"device_traces[{device}][{row - int(offsets[device])}]"

    rows = TapeRows(tape, tape.items(lists), EVENT_KEYS, TEXT_ID, where, seen_keys=EVENT_SEEN_KEYS)
    return _columns(tape, rows, offsets, is_in_order)


def _columns(tape: Tape, rows: TapeRows, offsets: Int64Array, is_in_order: bool) -> SnapshotEvents:
    action = _actions(tape, rows)
    is_oom = action == Action.OOM
    rows.require("addr", ~is_oom & (action != Action.SNAPSHOT))
    size_bytes = rows.integers("size", missing=NONE_ID)
    if (size_bytes == NONE_ID).any():
        rows.require("size")
    time_us = rows.integers("time_us", missing=NONE_ID)
    if (absurd := np.abs(time_us) > _MAX_TIME_US).any():
        raise rows.error(int(absurd.argmax()), "'time_us' is no time")
    address = rows.integers("addr", missing=0, wrap=True)
    label = rows.text_ids("user_metadata")
    order, notes = (None, ()) if is_in_order else _rotation(time_us, offsets)
    pool = rows.pairs("pool_id")
    ordered = _Reorder(order)
    return SnapshotEvents(
        action=ordered(action),
        device=np.repeat(np.arange(len(offsets) - 1, dtype=np.int16), np.diff(offsets)),
        address=ordered(np.where(is_oom, NONE_ID, address)),
        size_bytes=ordered(size_bytes),
        stream=ordered(rows.integers("stream", missing=0, wrap=True)),
        time_ns=ordered(np.where(time_us >= 0, time_us * 1000, NONE_ID)),
        pool=(ordered(pool[0]), ordered(pool[1]), ordered(pool[2])),
        label=ordered(np.where(label == TEXT_ID[""], NONE_ID, label)),
        frames=ordered(rows.values("frames")),
        device_free_bytes=ordered(np.where(is_oom, rows.integers("device_free", missing=NONE_ID), NONE_ID)),
        offsets=offsets,
        keys=rows.keys,
        notes=notes,
    )


class _Reorder:
    """Puts columns into an order, or leaves them as they are."""

    def __init__(self, order: Int64Array | None) -> None:
        self._order = order

    def __call__(self, column: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
        return column if self._order is None else column[self._order]


def _actions(tape: Tape, rows: TapeRows) -> Int8Array:
    action_of_text = np.full(max(TEXT_ID.values()) + 1, NONE_ID, np.int8)
    for name, action in ACTION_BY_NAME.items():
        action_of_text[TEXT_ID[name]] = action
    texts = rows.text_ids("action")
    if (texts == NONE_ID).any():
        rows.require("action")
    actions = action_of_text[np.minimum(texts, len(action_of_text) - 1)]
    unknown = (actions == NONE_ID) | (texts >= len(action_of_text))
    if unknown.any():
        row = int(unknown.argmax())
        raise rows.error(row, f"unknown action {tape.text(int(texts[row]))[:40]!a}")
    return actions


def _rotation(time_us: Int64Array, offsets: Int64Array) -> tuple[Int64Array | None, tuple[str, ...]]:
    """The order that puts rotated rings right, None if there is none to put right, and notes about it.

    Recording switched on again with another ``max_entries`` leaves the newest events in front of the oldest: time goes
    back exactly once, and the end is no later than the start. Times that go back elsewhere are the clock's jitter, and
    the order of the list stands.
    """
    order: Int64Array | None = None
    notes = []
    for device in range(len(offsets) - 1):
        start, stop = int(offsets[device]), int(offsets[device + 1])
        times = time_us[start:stop]
        if len(times) < 3 or times.min() < 0:
            continue
        descents = np.flatnonzero(times[1:] < times[:-1])
        if len(descents) != 1 or times[-1] > times[0]:
            continue
        if order is None:
            order = np.arange(len(time_us))
        n_newest = int(descents[0]) + 1
        order[start:stop] = np.roll(order[start:stop], -n_newest)
        notes.append(
            f"The ring buffer of device {device} was stored rotated: its first {n_newest:,} events are the newest, and "
            "were moved to the end."
        )
    return order, tuple(notes)


@dataclass(frozen=True)
class SnapshotMarks:
    """Annotations as marks, in order of events; labels are still the tape's texts."""

    event: Int64Array
    time_ns: Int64Array
    kind: Int8Array
    label: Int64Array
    notes: tuple[str, ...] = ()


def read_marks(tape: Tape, annotations: int | None, events: SnapshotEvents) -> SnapshotMarks:
    """Read ``external_annotations`` and place them among the events by their time.

    ``ProfilerStep#3`` or ``step 3`` also ends a step. Annotations without a stage, a name or a time are left out, with
    a note; so are all where events have no time.
    """
    values = np.empty(0, np.int64) if annotations is None else tape.sequence(annotations)
    rows = TapeRows(tape, values, ANNOTATION_KEYS, TEXT_ID, lambda row: f"external_annotations[{row}]")
    stage, name = rows.text_ids("stage"), rows.text_ids("name")
    device = rows.integers("device", missing=0)
    time_us = rows.integers("time_us", missing=NONE_ID)
    is_start, is_end = stage == TEXT_ID["START"], stage == TEXT_ID["END"]
    n_devices = len(events.offsets) - 1
    has_times = np.array([_has_times(events, d) for d in range(n_devices)], np.bool_)
    good = (is_start | is_end) & (name >= 0) & (time_us >= 0) & (time_us <= _MAX_TIME_US)
    good &= (device >= 0) & (device < n_devices)
    good[good] &= has_times[device[good]]
    marked = np.flatnonzero(np.bincount(device[good])).tolist()
    parts = [_device_marks(tape, events, d, name, time_us, is_end, good & (device == d)) for d in marked]
    merged = [np.concatenate([part[i] for part in parts]) if parts else np.empty(0, np.int64) for i in range(4)]
    order = np.argsort(merged[0], kind="stable")
    n_left_out = len(values) - int(good.sum())
    note = f"{n_left_out:,} of {len(values):,} annotations could not be placed (no stage, name, time or timed events)."
    return SnapshotMarks(
        event=merged[0][order],
        time_ns=merged[1][order],
        kind=merged[2][order].astype(np.int8),
        label=merged[3][order],
        notes=(note,) if n_left_out else (),
    )


def is_step_name(name: str) -> bool:
    """Whether an annotation of this name is a training step: ``ProfilerStep#3``, ``step 3``."""
    return _STEP_NAME.fullmatch(name) is not None


def _has_times(events: SnapshotEvents, device: int) -> bool:
    times = events.time_ns[events.offsets[device] : events.offsets[device + 1]]
    return bool(len(times)) and bool(times.min() >= 0)


def _device_marks(
    tape: Tape,
    events: SnapshotEvents,
    device: int,
    name: Int64Array,
    time_us: Int64Array,
    is_end: BoolArray,
    rows: BoolArray,
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """Marks of one device: event, time, kind, label."""
    chosen = np.flatnonzero(rows)
    chosen = chosen[np.argsort(time_us[chosen], kind="stable")]
    start, stop = int(events.offsets[device]), int(events.offsets[device + 1])
    # Clocks may jitter: a mark stands behind every event that precedes one of an earlier time.
    times = np.maximum.accumulate(events.time_ns[start:stop])
    time_ns, ends = time_us[chosen] * 1000, is_end[chosen]
    # Within one microsecond a range holds the events between its ends, and keeps its order among the annotations.
    position = np.where(ends, np.searchsorted(times, time_ns, "right"), np.searchsorted(times, time_ns, "left"))
    position = start + np.maximum.accumulate(position) if len(position) else position
    names, which = np.unique(name[chosen], return_inverse=True)
    is_step = ends & np.array([is_step_name(tape.text(int(text_id))) for text_id in names], np.bool_)[which]
    repeat = 1 + is_step.astype(np.int64)
    kind = np.repeat(np.where(ends, MarkKind.PHASE_END, MarkKind.PHASE_BEGIN), repeat)
    kind[np.cumsum(repeat)[is_step] - 1] = MarkKind.STEP
    return (
        np.repeat(position, repeat),
        np.repeat(time_ns, repeat),
        kind,
        np.repeat(name[chosen], repeat),
    )
