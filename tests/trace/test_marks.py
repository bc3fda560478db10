"""Steps and phases as spans of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


def _of_two_devices(*, timed: bool = True) -> Trace:
    """A step on both devices, a phase on the second alone, and another step; device 1 has more events."""
    builder = TraceBuilder()
    clock = iter(range(100, 200))

    def event(device: int) -> None:
        place = {"address": 512 * builder.n_events, "size_bytes": 100, "device": device}
        builder.add_event(Action.ALLOC, **place, time_ns=next(clock) if timed else -1)

    def mark(kind: MarkKind, label: str) -> None:
        builder.add_mark(kind, label, next(clock) if timed else -1)

    event(0)
    mark(BEGIN, "forward")
    event(1)
    event(0)
    event(1)
    mark(END, "forward")
    mark(STEP, "0")
    mark(BEGIN, "load")
    event(1)
    mark(END, "load")
    event(0)
    event(1)
    mark(STEP, "1")
    return builder.build(TraceMetadata(source="test"))


def test_every_device_has_the_marks_of_the_program() -> None:
    trace = _of_two_devices()  # events 0 to 2 are device 0's, 3 to 6 device 1's
    assert step_spans(trace, 0) == [Span("0", 0, 2), Span("1", 2, 3)]
    assert step_spans(trace, 1) == [Span("0", 3, 5), Span("1", 5, 7)]
    assert phase_spans(trace, 0) == [Span("forward", 1, 2), Span("load", 2, 2)]
    assert phase_spans(trace, 1) == [Span("forward", 3, 5), Span("load", 5, 6)]
    assert [describe_moment(trace, event) for event in range(7)] == [
        *("step 0", "step 0, forward", "step 1"),
        *("step 0, forward", "step 0, forward", "step 1, load", "step 1"),
    ]


def test_without_times_only_the_device_among_whose_events_they_stand_has_marks() -> None:
    trace = _of_two_devices(timed=False)
    assert (step_spans(trace, 0), phase_spans(trace, 0)) == ([], [])
    assert step_spans(trace, 1) == [Span("0", 3, 5), Span("1", 5, 7)]


def test_devices_with_marks_of_their_own_keep_them() -> None:
    builder = TraceBuilder()
    for event in range(6):
        builder.add_event(Action.ALLOC, address=512 * event, size_bytes=100, device=event // 3, time_ns=100 + event)
    for event, kind, label in ((0, BEGIN, "a"), (3, END, "a"), (3, BEGIN, "b"), (5, END, "b"), (6, STEP, "1")):
        builder.add_mark(kind, label, 100 + event, event=event)
    trace = builder.build(TraceMetadata(source="test"))
    assert (phase_spans(trace, 0), step_spans(trace, 0)) == ([Span("a", 0, 3)], [])
    assert (phase_spans(trace, 1), step_spans(trace, 1)) == ([Span("b", 3, 5)], [Span("1", 3, 6)])


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


def naive_phases(script: list[tuple[MarkKind, str]]) -> list[tuple[str, int, int, int]]:
    """The innermost open phase of its name ends, looked for one after the other; an event lies before every mark."""
    open_spans: list[tuple[str, int]] = []
    found = []
    for event, (kind, label) in enumerate(script, start=1):
        if kind == BEGIN:
            open_spans.append((label, event))
            continue
        for depth in range(len(open_spans) - 1, -1, -1):
            if open_spans[depth][0] == label:
                found.append((label, open_spans.pop(depth)[1], event, depth))
                break
    found += [(label, begin, len(script) + 1, depth) for depth, (label, begin) in enumerate(open_spans)]
    return sorted(found, key=lambda span: (span[1], span[3]))


@given(st.lists(st.tuples(st.sampled_from([BEGIN, END]), st.sampled_from("abc")), max_size=30))
def test_phases_are_those_that_a_search_through_all_open_ones_finds(script: list[tuple[MarkKind, str]]) -> None:
    parts = [part for mark in script for part in (1, mark)]
    found = phase_spans(trace_of(*parts, 1))
    assert [(span.label, span.begin, span.end, span.depth) for span in found] == naive_phases(script)


def test_phases_that_end_in_the_order_in_which_they_began_have_no_more_above_them_than_are_open() -> None:
    n = 5000
    trace = trace_of(1, *((BEGIN, f"range {i}") for i in range(n)), 1, *((END, f"range {i}") for i in range(n)), 1)
    found = phase_spans(trace)
    assert len(found) == n
    assert {(span.begin, span.end, span.depth) for span in found} == {(1, 2, 0)}
