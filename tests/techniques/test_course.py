"""The course of a changed program: its peaks are the answer's, and its steps stand where they were recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import load
from memscope.techniques.course import Course, applied_together, course_before
from memscope.techniques.registry import technique_named
from memscope.techniques.whatif import Start, what_if
from tests.techniques.programs import train

TRACES = Path(__file__).resolve().parents[2] / "traces"


@pytest.fixture(scope="module")
def start() -> Start:
    return Start.of(load(TRACES / "tiny-llama-train.memscope").device(0))


def bytes_at(course: Course, event: float) -> int:
    """What is allocated after an event of the recording."""
    return int(course.allocated_bytes[np.searchsorted(course.at, event, side="right") - 1])


@pytest.mark.parametrize(
    "names",
    [
        ["micro-batch:2"],
        ["checkpoint:every=1", "optimizer:8bit"],
        ["micro-batch:2", "offload:optimizer"],
        ["set-to-none"],
        ["conf:expandable_segments:True"],
    ],
)
def test_the_answer_is_that_of_what_if_and_its_peaks_are_those_of_the_course(start: Start, names: list[str]) -> None:
    changes = start.apply([technique_named(name) for name in names])
    found = applied_together(start, " + ".join(names), changes)
    truth = what_if(start.device, names)
    assert found.result == (truth.together or truth.results[0])
    assert found.course.reserved_bytes.max() == found.result.peaks.reserved_bytes
    assert found.course.allocated_bytes.max() == found.result.peaks.allocated_bytes
    assert len(found.changes) == len(names)


def test_the_run_as_it_was_has_the_baselines_peaks_over_all_events(start: Start) -> None:
    course = course_before(start)
    assert (course.allocated_bytes.max(), course.reserved_bytes.max()) == (
        start.baseline.allocated_bytes,
        start.baseline.reserved_bytes,
    )
    assert (course.at[0], course.at[-1]) == (0, start.device.n_events)


def test_steps_stand_where_they_were_recorded(start: Start) -> None:
    steps, usage = start.device.steps, start.device.usage
    assert steps is not None
    changed = applied_together(start, "", start.apply([technique_named("micro-batch:2")])).course
    before = course_before(start)
    for end in steps.end.tolist():
        # Weights and states alone are left at the end of a step, whatever became of the batch.
        assert bytes_at(before, end) == usage.allocated_bytes[end]
        assert bytes_at(changed, end) == usage.allocated_bytes[end]
    assert len(changed.at) > len(before.at)
    assert np.all(np.diff(changed.at) >= 0)


def test_without_steps_the_whole_run_is_one() -> None:
    start = Start.of(load(TRACES / "tiny-gpt2-generate.memscope").device(0))
    assert not len(start.program.step_ends)
    course = applied_together(start, "", start.apply([technique_named("kv:int4")])).course
    assert np.allclose(np.diff(course.at), start.device.n_events / (len(course.at) - 1))


def test_every_request_has_its_time_in_order() -> None:
    program = Start.of(train()).program
    times = program.event_times
    assert len(times) == len(program.to_requests().op)
    assert np.all(np.diff(times) >= 0)
