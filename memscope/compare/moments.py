"""Which two moments are compared: the peaks, those after given events, or two steps at their highest."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from memscope.analysis import Analysis
from memscope.device.device import Device, Moment
from memscope.errors import UsageError

_STEPS = re.compile(r"([^:]+):([^:]+)")


class StepPair(NamedTuple):
    """Two steps by their names."""

    a: str
    b: str


def parse_steps(text: str) -> StepPair:
    """Read ``I:J``.

    Raises
    ------
    UsageError
        If the text is not two steps.
    """
    match = _STEPS.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not two steps: write 3:5, or the names of two steps with a colon between them")
    return StepPair(match[1].strip(), match[2].strip())


def common_devices(a: Analysis, b: Analysis, index: int | None = None) -> list[tuple[Device, Device]]:
    """The devices of two recordings that are compared: those of the same number, or the only one of each.

    Raises
    ------
    UsageError
        If there is no device to compare: one that is asked for is missing, or they share none.
    """
    if index is not None:
        return [(a.device(index), b.device(index))]
    of_a, of_b = ({device.index: device for device in one.devices_asked()} for one in (a, b))
    shared = [(of_a[i], of_b[i]) for i in of_a if i in of_b]
    if not shared and len(of_a) == len(of_b) == 1:
        return list(zip(of_a.values(), of_b.values(), strict=True))
    if not shared:
        raise UsageError(
            f"{a.name} and {b.name} have no device in common: {_listed(of_a)} and {_listed(of_b)}; choose one of each "
            "trace, or record on devices of the same number"
        )
    return shared


def _listed(devices: dict[int, Device]) -> str:
    return ", ".join(map(str, devices))


def moment_asked(device: Device, event: int | None) -> Moment:
    """The moment after an event, or the peak of allocated memory where none is given.

    Raises
    ------
    UsageError
        If the device has no such event.
    """
    return device.peak() if event is None else device.at(event)


def highest_in_step(device: Device, name: str) -> Moment:
    """The first moment of a step at which most is allocated.

    Raises
    ------
    UsageError
        If the steps cannot be told, or there is none of that name.
    """
    position, usage = step_position(device, name), device.usage
    steps = device.steps
    assert steps is not None
    begin, end = usage.index_of(int(steps.begin[position])), usage.index_of(int(steps.end[position]))
    return Moment(device, usage.event_at(begin + int(np.argmax(usage.allocated_bytes[begin:end]))))


def step_position(device: Device, name: str) -> int:
    """Which step has a name; else the step of that number, counted from 0.

    Raises
    ------
    UsageError
        If the steps cannot be told, or there is none of that name.
    """
    steps, trace = device.steps, device.recording.name
    if steps is None:
        raise UsageError(
            f"the steps of {trace} cannot be told: it has no marks (rec.step()), no optimizer steps or backward "
            "passes, and nothing that repeats"
        )
    wanted = name.lower().removeprefix("step").strip()
    labels = [label.lower().removeprefix("step").strip() for label in steps.labels]
    if wanted in labels:
        return labels.index(wanted)
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 10 and int(wanted) < len(steps):
        return int(wanted)
    known = f"{steps.labels[0]} to {steps.labels[-1]}" if len(steps) > 1 else steps.labels[0]
    raise UsageError(f"{trace} has no step {name!r}: it has {known}")
