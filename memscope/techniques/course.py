"""The course of a changed program's memory, over the run that it was taken from.

A changed program asks for other things, more often or seldomer: its events are not those of the recording. So that both
can be seen over each other its steps are put where they were recorded, and within a step its events stand at even
distances. Where no steps are known the whole run is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope.replay.result import ReplayResult
from memscope.techniques.program import GAP, Program
from memscope.techniques.whatif import Applied, Start, WhatIf
from memscope.trace.tables import Int64Array


@dataclass(frozen=True, slots=True)
class Course:
    """Bytes after each event of a replayed program, as step functions.

    Attributes
    ----------
    at
        float64 (n + 1,): where each moment stands among the recorded ones, of which 0 is before the first event.
    allocated_bytes, reserved_bytes
        int64 (n + 1,): at those moments.
    """

    at: npt.NDArray[np.float64]
    allocated_bytes: Int64Array
    reserved_bytes: Int64Array


@dataclass(frozen=True, slots=True)
class Together:
    """What several techniques make of a program, one after the other, with its course.

    Attributes
    ----------
    result
        As :func:`~memscope.techniques.whatif.what_if` has it.
    changes
        Each technique that was asked for with its cost, what to write, and why it changes nothing where it does not.
    """

    result: WhatIf
    changes: tuple[Applied, ...]
    course: Course


def course_before(start: Start) -> Course:
    """The course of the program as it was."""
    return _course(start, start.program, start.served([]))


def applied_together(start: Start, text: str, changes: list[Applied]) -> Together:
    """What came of some changes, of which each was applied to what the one before had made."""
    served = start.served(changes)
    return Together(start.answer(text, changes, served), tuple(changes), _course(start, changes[-1][1].program, served))


def _course(start: Start, program: Program, served: ReplayResult) -> Course:
    usage = served.usage
    assert usage.reserved_bytes is not None, "a replay knows what it reserves"
    n_recorded = len(start.device.usage) - 1
    ends, recorded_ends = _step_ends(program), start.program.step_ends // GAP
    if len(ends) != len(recorded_ends):
        ends = recorded_ends = np.empty(0, np.int64)
    indices = np.concatenate([[0], np.minimum(ends, len(usage) - 1), [len(usage) - 1]])
    events = np.concatenate([[0], np.minimum(recorded_ends, n_recorded), [n_recorded]])
    at = np.interp(np.arange(len(usage)), indices, events)
    return Course(at, usage.allocated_bytes, usage.reserved_bytes)


def _step_ends(program: Program) -> Int64Array:
    """How many events of a program lie before the end of each of its steps."""
    times = program.event_times
    found: Int64Array = np.searchsorted(times, program.step_ends).astype(np.int64)
    return found
