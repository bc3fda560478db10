"""The training passes of a device: where forward, backward and the optimizer's step begin and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from typing_extensions import Self

from memscope.attribution.phases.phases import PHASE_BY_LABEL, Phase, find_phases
from memscope.device.device import Device
from memscope.trace.marks import phase_spans


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass with its backward pass and the optimizer's step, if one follows, as positions in the events.

    Attributes
    ----------
    forward, backward
        Where each begins; what lies between the end of the modules' forward pass and the backward pass (the loss) is
        the forward pass's.
    end
        Where the backward pass ends.
    step, step_end
        Where the optimizer's step begins and ends; both are ``end`` where none follows.
    has_step
        Whether the optimizer makes a step after it; it need not ask for anything.
    modules_end
        Where the modules' forward pass ends, before a loss that is none of theirs.
    """

    forward: int
    backward: int
    end: int
    step: int
    step_end: int
    has_step: bool = False
    modules_end: int = 0

    def times(self) -> tuple[int, int, int, int, int, int]:
        """All its borders, in order."""
        return self.forward, self.modules_end, self.backward, self.end, self.step, self.step_end

    def mapped(self, move: Callable[[int], int]) -> Self:
        """The same with its borders elsewhere."""
        forward, modules_end, backward, end, step, step_end = map(move, self.times())
        return type(self)(forward, backward, end, step, step_end, self.has_step, modules_end)


def find_passes(device: Device) -> tuple[Pass, ...]:
    """The passes of a device, by the program's marks, or else as its stacks tell; empty where there are none."""
    return _passes(device)[0]


def cut_forward(device: Device) -> int | None:
    """Where a forward pass begins that the recording ends in; None where it ends elsewhere."""
    return _passes(device)[1]


def _passes(device: Device) -> tuple[tuple[Pass, ...], int | None]:
    runs = _marked(device) or _told(device)
    found: list[Pass] = []
    forward: int | None = None
    modules_end = 0
    for phase, begin, end in runs:
        if phase is Phase.FORWARD:
            forward = begin if forward is None else forward
            modules_end = end
        elif phase is Phase.BACKWARD:
            if forward is not None:
                found.append(Pass(forward, begin, end, end, end, modules_end=min(modules_end, begin)))
            elif found and not found[-1].has_step:  # it goes on after a pause
                found[-1] = replace(found[-1], end=end, step=end, step_end=end)
            forward = None
        elif phase is Phase.OPTIMIZER and found and forward is None:
            last = found[-1]
            step = last.step if last.has_step else begin
            found[-1] = replace(last, step=step, step_end=end, has_step=True)
    return tuple(found), forward


def _marked(device: Device) -> list[tuple[Phase, int, int]]:
    """The phases that the program's watcher marked among this device's events."""
    first, end = device.lifetimes.first_event, device.lifetimes.end_event
    spans = [span for span in phase_spans(device.trace) if span.label in PHASE_BY_LABEL and span.depth == 0]
    return [
        (PHASE_BY_LABEL[span.label], max(span.begin, first), min(span.end, end))
        for span in spans
        if span.begin < end and span.end > first
    ]


def _told(device: Device) -> list[tuple[Phase, int, int]]:
    """The phases that stacks tell."""
    runs = find_phases(device.lifetimes)
    found = zip(runs.phase.tolist(), runs.begin.tolist(), runs.end.tolist(), strict=True)
    last = device.lifetimes.end_event
    return [(Phase(phase), begin, min(end, last)) for phase, begin, end in found]
