"""Steps and phases of a trace as spans of events."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope.names import shown
from memscope.trace.schema import MarkKind
from memscope.trace.tables import Int8Array, Int32Array, Int64Array
from memscope.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Span:
    """Events ``begin <= event < end`` under one name; ``depth`` counts the spans it lies in."""

    label: str
    begin: int
    end: int
    depth: int = 0


class DeviceMarks(NamedTuple):
    """The marks of a program among one device's events, in order.

    Attributes
    ----------
    event
        int64: the event that each stands before; ``end`` where none of the device's comes after it.
    kind
        int8: :class:`~memscope.trace.schema.MarkKind`.
    label_id
        int32: what each says, in the trace's strings.
    begin, end
        The device's events are ``begin <= event < end``.
    """

    event: Int64Array
    kind: Int8Array
    label_id: Int32Array
    begin: int
    end: int


def marks_of_device(trace: Trace, device: int) -> DeviceMarks:
    """The marks as one device has them, which a program makes for all of its devices.

    A recording of several devices has them among the events of one. Among another's they are placed by time: a mark
    stands before the first event that is not earlier; without times on both sides the device has none. Where every
    device has marks of its own, as in snapshots with annotations, those are taken.
    """
    marks = trace.marks
    if not trace.n_events or trace.device[0] == trace.device[-1]:  # one device's events stand together
        return DeviceMarks(marks.event, marks.kind, marks.label_id, 0, trace.n_events)
    begin, end = trace.event_range(device)
    holder = trace.marked_device
    if holder is None:
        first = np.where(marks.kind == MarkKind.PHASE_BEGIN, begin, begin + 1)
        rows = np.flatnonzero((marks.event >= first) & (marks.event < first + (end - begin)))
        return DeviceMarks(marks.event[rows], marks.kind[rows], marks.label_id[rows], begin, end)
    event = marks.event if holder == device else _placed_by_time(trace, begin, end)
    return DeviceMarks(event, marks.kind[: len(event)], marks.label_id[: len(event)], begin, end)


def _placed_by_time(trace: Trace, begin: int, end: int) -> Int64Array:
    times, marked = trace.time_ns[begin:end], trace.marks.time_ns
    if not len(times) or int(times.min()) < 0 or (len(marked) and int(marked.min()) < 0):
        return np.empty(0, np.int64)
    placed = begin + np.searchsorted(np.maximum.accumulate(times), marked, "left")
    return np.maximum.accumulate(placed).astype(np.int64)


def step_spans(trace: Trace, device: int | None = None) -> list[Span]:
    """The steps of a device, of the first by default: each ends at its mark and begins where the one before ended."""
    marks = _marks(trace, device)
    spans = []
    begin = marks.begin
    for event, kind, label_id in zip(marks.event, marks.kind, marks.label_id, strict=True):
        if kind == MarkKind.STEP:
            spans.append(Span(shown(trace.strings[label_id]), begin, int(event)))
            begin = int(event)
    return spans


def phase_spans(trace: Trace, device: int | None = None) -> list[Span]:
    """The phases of a device, of the first by default, by their begin.

    One left open lasts to the device's last event, an end without a begin is left out.
    """
    marks = _marks(trace, device)
    # Marks of spans that are open, in order, and those of each label: none is looked for one after the other.
    open_marks: list[int] = []
    marks_of: dict[str, list[int]] = {}
    spans = []
    events, labels = marks.event.tolist(), [trace.strings[i] for i in marks.label_id.tolist()]
    for mark, (event, kind, text) in enumerate(zip(events, marks.kind.tolist(), labels, strict=True)):
        label = shown(text)
        if kind == MarkKind.PHASE_BEGIN:
            open_marks.append(mark)
            marks_of.setdefault(label, []).append(mark)
        elif kind == MarkKind.PHASE_END and marks_of.get(label):
            begun = marks_of[label].pop()
            depth = bisect_left(open_marks, begun)
            del open_marks[depth]
            spans.append(Span(label, events[begun], event, depth))
    spans += [Span(shown(labels[mark]), events[mark], marks.end, depth) for depth, mark in enumerate(open_marks)]
    return sorted(spans, key=lambda span: (span.begin, span.depth))


def _marks(trace: Trace, device: int | None) -> DeviceMarks:
    first = int(trace.device[0]) if trace.n_events else 0
    return marks_of_device(trace, first if device is None else device)


def describe_moment(trace: Trace, event: int) -> str:
    """Where an event lies: ``step 1, backward``; an empty text where neither steps nor phases were marked."""
    words = []
    device = int(trace.device[event]) if 0 <= event < trace.n_events else None
    steps = step_spans(trace, device)
    within = next((span for span in steps if span.begin <= event < span.end), None)
    if within is not None:
        words.append(within.label if within.label.lower().startswith("step") else f"step {within.label}")
    elif steps and event >= steps[-1].end:
        words.append("after the last step")
    phases = [span for span in phase_spans(trace, device) if span.begin <= event < span.end]
    if phases:
        words.append(max(phases, key=lambda span: span.depth).label)
    return ", ".join(words)
