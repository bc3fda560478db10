"""The trace: what it answers, and what it refuses to be."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from memscope.errors import InvariantError
from memscope.names import MAX_SHOWN
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState, MarkKind, TieRule
from memscope.trace.trace import Frame, Trace


def two_devices() -> Trace:
    builder = TraceBuilder()
    stack = builder.stacks.stack([builder.stacks.frame("f", "a.py", 1)])
    for device, n in ((1, 2), (4, 3)):
        for i in range(n):
            builder.add_event(Action.ALLOC, address=i, size_bytes=1, device=device, stack_id=stack, label="t")
    segment = builder.add_segment(address=0, size_bytes=512, is_large=False, device=7)
    builder.add_block(segment, address=0, size_bytes=512, requested_bytes=0, state=BlockState.INACTIVE)
    return builder.build(TraceMetadata(source="synthetic"))


def test_devices_are_those_of_events_and_segments() -> None:
    trace = two_devices()
    assert trace.devices == (1, 4, 7)
    assert [trace.event_range(device) for device in (1, 4, 7)] == [(0, 2), (2, 5), (0, 0)]
    assert (len(trace), trace.n_events) == (5, 5)
    assert repr(trace) == "<Trace of 5 events, 1 segments, source synthetic>"


def test_ids_resolve_to_text() -> None:
    trace = two_devices()
    assert trace.stack(0) == (Frame("f", "a.py", 1),)
    assert trace.stack(-1) == ()
    assert trace.string(int(trace.label_id[0])) == "t"
    assert trace.string(-1) is None


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("action", 10, r"Trace\.action"),
        ("stream_id", 1, r"Trace\.stream_id"),
        ("pool_id", -2, r"Trace\.pool_id"),
        ("stack_id", 1, r"Trace\.stack_id"),
        ("label_id", 99, r"Trace\.label_id"),
    ],
)
def test_ids_that_point_nowhere_are_refused(column: str, value: int, text: str) -> None:
    trace = two_devices()
    changed = getattr(trace, column).copy()
    changed[1] = value
    with pytest.raises(InvariantError, match=text):
        dataclasses.replace(trace, **{column: changed})


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [("blocks", "segment_id", 1), ("segments", "pool_id", 5), ("segments", "stack_id", 5), ("blocks", "stack_id", 5)],
)
def test_ids_of_the_tables_are_checked_too(table: str, column: str, value: int) -> None:
    trace = two_devices()
    changed: Any = dataclasses.replace(getattr(trace, table), **{column: np.array([value])})
    with pytest.raises(InvariantError, match=column):
        dataclasses.replace(trace, **{table: changed})


def test_frames_that_point_nowhere_are_refused() -> None:
    trace = two_devices()
    stacks = dataclasses.replace(trace.stacks, name_id=np.array([50]))
    with pytest.raises(InvariantError, match="name_id"):
        dataclasses.replace(trace, stacks=stacks)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvariantError, match=r"Trace\.address has shape"):
        dataclasses.replace(two_devices(), address=np.zeros(3))


def test_metadata_come_back_from_json() -> None:
    metadata = TraceMetadata(source="cuda", tie_rule=TieRule.BLOCK_AGE, device_names={3: "x"}, notes=("a",), rank=2)
    assert TraceMetadata.from_json(metadata.to_json()) == metadata
    assert TraceMetadata.from_json(metadata.to_json() | {"key of a later version": 1}) == metadata
    with pytest.raises(KeyError):
        TraceMetadata.from_json(metadata.to_json() | {"tie_rule": "luck"})


def test_a_frame_is_shown_on_one_line() -> None:
    assert str(Frame("f\n", "a" * 1000, 3)).startswith("aaa")
    assert str(Frame("f\n", "a", 3)) == "a:3 f\\n"
    assert len(str(Frame("f" * 1000, "a" * 1000, 3))) == 2 * MAX_SHOWN + 3


def test_the_ranges_of_thousands_of_devices_are_found_in_one_pass() -> None:
    builder = TraceBuilder()
    for device in range(3000):
        for i in range(device % 3):
            builder.add_event(Action.ALLOC, address=512 * i, size_bytes=1, device=device)
    trace = builder.build(TraceMetadata(source="synthetic"))
    for device in range(3000):
        first, end = trace.event_range(device)
        assert end - first == device % 3
        assert (trace.device[first:end] == device).all()
    assert len(trace._event_ranges) == 2000


def test_the_device_of_the_marks_is_the_one_that_has_them_all_or_of_two_with_a_border_the_larger() -> None:
    def marked(*events: int) -> Trace:
        builder = TraceBuilder()
        for device in (0, 1, 1):
            builder.add_event(Action.ALLOC, address=512, size_bytes=1, device=device)
        for event in events:
            builder.add_mark(MarkKind.STEP, "1", event=event)
        return builder.build(TraceMetadata(source="synthetic"))

    assert [marked(*events).marked_device for events in ((0,), (2, 3), (1,), (0, 2))] == [0, 1, 1, None]
    assert marked().marked_device == 1
