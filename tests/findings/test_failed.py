"""Requests that failed and that the program survived."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.findings.traces import analysed, of_kind
from tests.replay.recordings import Recorder

MiB = 1 << 20


def survived(*, then: int | None, ends: bool = False, n_failures: int = 1) -> Trace:
    """A line holds 60 MiB and asks for 40 more in vain; it lets go of the 60, and asks for so many MiB again."""
    builder = TraceBuilder()
    stacks = builder.stacks
    step = stacks.stack([stacks.frame("step", "/home/user/train.py", 7)])
    other = stacks.stack([stacks.frame("log", "/home/user/train.py", 20)])
    builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=60 * MiB, stack_id=step)
    for _ in range(n_failures):
        builder.add_event(Action.OOM, address=1 * MiB, size_bytes=40 * MiB, stack_id=step)
    builder.add_event(Action.FREE_COMPLETED, address=1 << 40, size_bytes=60 * MiB, stack_id=step)
    builder.add_event(Action.ALLOC, address=1 << 41, size_bytes=MiB, stack_id=other)
    if then is not None:
        builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=then * MiB, stack_id=step)
    if ends:
        builder.add_event(Action.OOM, address=1 * MiB, size_bytes=40 * MiB, stack_id=step)
    return builder.build(TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False))


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (40, "asked again for the same at event 4, and got it, after 59.0 MiB were let go of"),
        (20, "asked again for 20.0 MiB at event 4, and got it"),
        (None, "It was not tried again"),
    ],
)
def test_a_failure_that_is_survived_is_told_with_what_followed(then: int | None, words: str) -> None:
    (found,) = of_kind(Analysis(survived(then=then)).opinions(0).findings, "failed-request")
    assert found.title == "A request of 40.0 MiB failed, and the program went on: /home/user/train.py:7 step"
    assert found.text.startswith("60.0 MiB were allocated then")
    assert words in found.text
    assert (found.bytes, found.event) == (40 * MiB, 1)
    assert "memscope oom --at 1" in found.fix


def test_a_failure_that_came_again_and_ended_the_run_is_said_to() -> None:
    (found,) = of_kind(Analysis(survived(then=None, ends=True)).opinions(0).findings, "failed-request")
    assert "failed again, at event 4, which ended the run" in found.text


def test_failures_of_one_line_are_one_finding() -> None:
    (found,) = of_kind(Analysis(survived(then=40, n_failures=3)).opinions(0).findings, "failed-request")
    assert found.title.startswith("3 requests of 40.0 MiB at most failed")
    assert found.evidence["n_failed"] == 3


def test_the_failure_that_ended_the_run_is_the_verdicts_alone() -> None:
    recorder = Recorder(total=64 * MiB, knows_total=True)
    recorder.allocator.malloc(40 * MiB)
    with pytest.raises(SimulatedOutOfMemoryError):
        recorder.allocator.malloc(40 * MiB)
    assert not of_kind(analysed(recorder).opinions(0).findings, "failed-request")
