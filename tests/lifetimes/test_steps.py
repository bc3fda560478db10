"""Steps of one device, and their common order."""

from __future__ import annotations

from memscope.lifetimes.steps import DeviceStep, align_steps, common_order, device_steps
from tests.rank_traces import Alloc, Step, Wait, rank_trace


def keys(*labels: str) -> list[tuple[str, int]]:
    return [(label, labels[:i].count(label)) for i, label in enumerate(labels)]


def test_a_trace_without_step_marks_has_no_steps() -> None:
    assert device_steps(rank_trace([Alloc("a", 10)]), 0) == []


def test_a_step_ends_at_its_mark_and_what_follows_has_no_name() -> None:
    trace = rank_trace([Alloc("a", 10), Step("x"), Step("x"), Alloc("b", 10)])
    assert device_steps(trace, 0) == [DeviceStep("x", 0, 0, 2), DeviceStep("x", 1, 2, 2), DeviceStep(None, 0, 2, 4)]


def test_marks_among_another_devices_events_are_placed_by_time() -> None:
    # The step ends at 30 ms; device 1's events are at 10 and 40 ms, positions 4 and 5 being the first.
    one = [Alloc("a", 10), Alloc("b", 10), Step("0")]
    trace = rank_trace(one, [Alloc("a", 10), Wait(), Wait(), Alloc("b", 10)])
    assert device_steps(trace, 0) == [DeviceStep("0", 0, 0, 4)]
    assert device_steps(trace, 1) == [DeviceStep("0", 0, 4, 6), DeviceStep(None, 0, 6, 8)]


def test_each_device_keeps_its_own_marks() -> None:
    trace = rank_trace([Alloc("a", 10), Step("a")], [Alloc("b", 10), Step("b")])
    assert [[step.label for step in device_steps(trace, d)] for d in (0, 1)] == [["a"], ["b"]]


def test_numbered_steps_are_ordered_by_number_whatever_each_recording_has() -> None:
    assert common_order([keys("9", "10"), keys("2", "9")]) == keys("2", "9", "10")
    assert common_order([keys("step 10"), keys("step 9")]) == keys("step 9", "step 10")
    assert common_order([keys("0", "1", "0"), keys("0")]) == [("0", 0), ("1", 0), ("0", 1)]
    assert common_order([]) == []


def test_named_steps_keep_each_recordings_order() -> None:
    recordings = [keys("warm", "train", "test"), keys("load", "warm", "check", "test")]
    assert common_order(recordings) == keys("load", "warm", "train", "check", "test")


def test_a_rest_is_the_next_step_only_where_its_own_recording_lacks_that() -> None:
    rest = DeviceStep(None, 0, 9, 12)
    one = [DeviceStep("5", 0, 0, 3), DeviceStep("4", 0, 3, 9), rest]
    order, found = align_steps([one])
    assert order == [("4", 0), ("5", 0), None]
    assert found == [[("5", 0), ("4", 0), None]]
    order, found = align_steps([[DeviceStep("0", 0, 0, 3), rest], [DeviceStep("0", 0, 0, 3), DeviceStep("1", 0, 3, 5)]])
    assert order == [("0", 0), ("1", 0), None]
    assert found[0] == [("0", 0), ("1", 0)]
