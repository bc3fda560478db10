"""Steps and phases as spans of events."""

from __future__ import annotations

from memscope.trace.builder import TraceBuilder
from memscope.trace.marks import Span, describe_moment, phase_spans, step_spans
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from memscope.trace.trace import Trace


def trace_of(*script: tuple[MarkKind, str] | int) -> Trace:
    """A trace of marks and runs of events; an integer is that many events."""
    builder = TraceBuilder()
    for part in script:
        if isinstance(part, int):
            for _ in range(part):
                builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0)
        else:
            builder.add_mark(*part)
    return builder.build(TraceMetadata(source="synthetic"))


BEGIN, END, STEP = MarkKind.PHASE_BEGIN, MarkKind.PHASE_END, MarkKind.STEP


def test_a_step_reaches_from_the_one_before_to_its_mark() -> None:
    trace = trace_of(3, (STEP, "0"), 2, (STEP, "1"), 4)
    assert step_spans(trace) == [Span("0", 0, 3), Span("1", 3, 5)]
    assert describe_moment(trace, 2) == "step 0"
    assert describe_moment(trace, 3) == "step 1"
    assert describe_moment(trace, 7) == "after the last step"


def test_phases_nest_and_an_open_one_lasts_to_the_end() -> None:
    trace = trace_of(1, (BEGIN, "forward"), 2, (BEGIN, "attention"), 2, (END, "attention"), 1, (END, "forward"), 1)
    assert phase_spans(trace) == [Span("forward", 1, 6, 0), Span("attention", 3, 5, 1)]
    assert describe_moment(trace, 4) == "attention"
    assert describe_moment(trace, 5) == "forward"
    assert phase_spans(trace_of((BEGIN, "load"), 3)) == [Span("load", 0, 3, 0)]


def test_an_end_without_a_begin_is_left_out() -> None:
    assert phase_spans(trace_of(2, (END, "backward"), 1)) == []


def test_phases_that_cross_keep_their_own_ends() -> None:
    trace = trace_of((BEGIN, "a"), 1, (BEGIN, "b"), 1, (END, "a"), 1, (END, "b"))
    assert [(span.label, span.begin, span.end) for span in phase_spans(trace)] == [("a", 0, 2), ("b", 1, 3)]


def test_a_trace_without_marks_says_nothing() -> None:
    assert describe_moment(trace_of(3), 1) == ""
    assert describe_moment(trace_of((STEP, "step 4"), 1), 0) == "after the last step"
