"""Events of several devices as they come, and as a trace has them."""

from __future__ import annotations

import numpy as np

from memscope.trace._device_order import DeviceOrder, in_device_order
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind


def _column(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_each_devices_events_keep_their_order() -> None:
    order = DeviceOrder(_column(1, 0, 1, 0, 0))
    assert order.events({"size": _column(10, 20, 30, 40, 50)})["size"].tolist() == [20, 40, 50, 10, 30]
    assert [order.owner(event) for event in (0, 1, 2, 3, 4, -1)] == [3, 0, 4, 1, 2, -1]
    assert not order.is_as_added


def test_what_stands_before_an_event_stands_before_the_next_of_its_device() -> None:
    order = DeviceOrder(_column(1, 0, 1, 0, 0))
    marks = order.before_events({"event": _column(0, 2, 5), "label": _column(7, 8, 9)})
    assert marks["event"].tolist() == [0, 1, 3]  # by the device with most events, 0
    samples = order.before_events({"event": _column(2, 3), "device": _column(1, 0)})
    assert list(zip(samples["event"].tolist(), samples["device"].tolist(), strict=True)) == [(1, 0), (4, 1)]


def test_one_device_is_left_alone() -> None:
    tables = {"events": {"device": _column(0, 0)}, "marks": {"event": _column(1)}}
    assert in_device_order(tables, []) == (tables, [])


def test_a_trace_has_one_device_after_the_other() -> None:
    builder = TraceBuilder()
    for event, device in enumerate((0, 1, 0, 1)):
        builder.add_event(Action.ALLOC, address=512 * event, size_bytes=100 + event, device=device, time_ns=event)
        builder.set_owner(event, Category.WEIGHTS, f"w{event}")
    builder.add_mark(MarkKind.STEP, "1", 9, event=4)
    trace = builder.build(TraceMetadata(source="test"))
    assert trace.device.tolist() == [0, 0, 1, 1]
    assert trace.size_bytes.tolist() == [100, 102, 101, 103]
    assert trace.owners.alloc_event.tolist() == [0, 1, 2, 3]
    assert [trace.strings[label] for label in trace.owners.label_id] == ["w0", "w2", "w1", "w3"]
    assert trace.marks.event.tolist() == [2]
