"""The steps of one device as columns, and the steps of several recordings set side by side by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.names import shown
from memscope.trace.schema import NONE_ID, MarkKind
from memscope.trace.tables import Int64Array, frozen_array
from memscope.trace.trace import Trace

_NUMBERED = re.compile(r"(.*?)(\d{1,18})", re.ASCII | re.DOTALL)

StepKey = tuple[str, int]
"""A step's name, and how many steps before it had the same name."""


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """A step as one device's events ``begin <= event < end``.

    Attributes
    ----------
    label
        The step's name; None for what follows the last mark.
    occurrence
        How many steps of this name came before it.
    """

    label: str | None
    occurrence: int
    begin: int
    end: int

    @property
    def is_finished(self) -> bool:
        """Whether its end was marked."""
        return self.label is not None


def device_steps(trace: Trace, device: int) -> list[DeviceStep]:
    """The steps of a device in order; what follows the last mark comes last, where there are events after it.

    Marks carry positions among one device's events. Where a trace has several devices and the marks lie among
    another's, they are placed by time: a mark stands before the first event that is not earlier. Without times on both
    sides the device has no steps.
    """
    first, end = trace.event_range(device)
    positions, labels = _boundaries(trace, device, first, end)
    steps: list[DeviceStep] = []
    seen: Counter[str] = Counter()
    begin = first
    for position, label in zip(positions.tolist(), labels, strict=True):
        steps.append(DeviceStep(label, seen[label], begin, position))
        seen[label] += 1
        begin = position
    if steps and begin < end:
        steps.append(DeviceStep(None, 0, begin, end))
    return steps


def _boundaries(trace: Trace, device: int, first: int, end: int) -> tuple[Int64Array, list[str]]:
    """Where the steps of a device end, and their names."""
    marks = trace.marks
    rows = np.flatnonzero(marks.kind == MarkKind.STEP)
    if len(trace.devices) > 1:
        # A mark at the border of two devices ends the last step of the one before: a step has events.
        own = rows[(marks.event[rows] > first) & (marks.event[rows] <= end)]
        if not len(own) and len(rows):
            return _by_time(trace, device, rows)
        rows = own
    return np.clip(marks.event[rows], first, end), [shown(trace.strings[i]) for i in marks.label_id[rows]]


def _by_time(trace: Trace, device: int, rows: Int64Array) -> tuple[Int64Array, list[str]]:
    """The boundaries of the device that has most of the marks, found on another device by time."""
    marks = trace.marks
    ranges = {other: trace.event_range(other) for other in trace.devices if other != device}
    of_device = {d: rows[(marks.event[rows] > a) & (marks.event[rows] <= b)] for d, (a, b) in ranges.items()}
    rows = max(of_device.values(), key=len)
    first, end = trace.event_range(device)
    times, mark_times = trace.time_ns[first:end], marks.time_ns[rows]
    if not len(times) or int(times.min()) < 0 or (len(rows) and int(mark_times.min()) < 0):
        return np.empty(0, np.int64), []
    position = first + np.searchsorted(np.maximum.accumulate(times), mark_times, "left")
    return np.maximum.accumulate(position), [shown(trace.strings[i]) for i in marks.label_id[rows]]


def align_steps(
    recordings: Sequence[Sequence[DeviceStep]],
) -> tuple[list[StepKey | None], list[list[StepKey | None]]]:
    """Say which steps of several devices are the same one.

    What follows a device's last mark belongs to the step after it, if another device recorded that one: it began, and
    the recording ended before it did. Where no other did, its key is None, which comes after all steps.

    Returns
    -------
    order
        Every key once, None last.
    keys
        For each device, the key of each of its steps.
    """
    marked = [[(step.label, step.occurrence) for step in steps if step.label is not None] for steps in recordings]
    order: list[StepKey | None] = [*common_order(marked), None]
    following = dict(pairwise(order))
    keys: list[list[StepKey | None]] = []
    for steps, of_marks in zip(recordings, marked, strict=True):
        of_steps: list[StepKey | None] = list(of_marks)
        if len(steps) > len(of_marks):
            after = following[of_marks[-1]]
            of_steps.append(None if after in of_marks else after)
        keys.append(of_steps)
    return order, keys


def common_order(recordings: Sequence[Sequence[StepKey]]) -> list[StepKey]:
    """Every step of some recordings once, in an order that suits them all.

    Steps that are numbered (``3``, ``step 3``) are put in the order of their numbers. Others keep the order of the
    recording with most steps; one that it lacks goes behind the step that it follows in its own recording.
    """
    keys = {key for recording in recordings for key in recording}
    numbered = {key: match for key in keys if (match := _NUMBERED.fullmatch(key[0]))}
    if len(numbered) == len(keys) and len({match[1] for match in numbered.values()}) == 1:
        return sorted(keys, key=lambda key: (key[1], int(numbered[key][2])))
    order: list[StepKey] = []
    for recording in sorted(recordings, key=len, reverse=True):
        order = _with_steps_of(order, recording)
    return order


def _with_steps_of(order: list[StepKey], recording: Sequence[StepKey]) -> list[StepKey]:
    """An order with the steps of one more recording, each that is new behind the one that it follows there."""
    known = set(order)
    new_behind: dict[StepKey | None, list[StepKey]] = {}
    last: StepKey | None = None
    for key in recording:
        if key in known:
            last = key
        else:
            new_behind.setdefault(last, []).append(key)
    return [key for old in (None, *order) for key in (*([] if old is None else [old]), *new_behind.get(old, []))]


@dataclass(frozen=True, slots=True)
class Steps:
    """The whole steps of a device, in order; step k holds the events ``begin[k] <= event < end[k]``.

    Attributes
    ----------
    begin, end
        int64 (k,).
    labels
        A name each.
    source
        Where they come from: ``marks`` of the program.
    """

    begin: Int64Array
    end: Int64Array
    labels: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", frozen_array(self.begin, np.int64))
        object.__setattr__(self, "end", frozen_array(self.end, np.int64))

    def __len__(self) -> int:
        return len(self.begin)

    def step_of(self, events: Int64Array) -> Int64Array:
        """The step that each event lies in, −1 for none: int64."""
        step = np.searchsorted(self.begin, events, side="right") - 1
        inside = step >= 0
        if len(self):
            inside &= (events != NONE_ID) & (events < self.end[np.maximum(step, 0)])
        return np.where(inside, step, NONE_ID).astype(np.int64)


def marked_steps(lifetimes: DeviceLifetimes) -> Steps | None:
    """The steps that the program marked, as far as a device has events in them; None where it marked none.

    What follows the last mark is no whole step, and left out.
    """
    found = [step for step in device_steps(lifetimes.trace, lifetimes.device) if step.is_finished]
    found = [step for step in found if step.begin < step.end]
    if not found:
        return None
    return Steps(
        begin=np.array([step.begin for step in found], np.int64),
        end=np.array([step.end for step in found], np.int64),
        labels=tuple(str(step.label) for step in found),
        source="marks",
    )
