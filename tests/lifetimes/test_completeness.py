"""What a trace cannot say, and that it is said."""

from __future__ import annotations

import dataclasses

import pytest

from memscope.lifetimes.completeness import Completeness, measure_completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout

MiB = 1 << 20


def completeness_of(trace: Trace) -> Completeness:
    return measure_completeness(trace, [DeviceLifetimes(trace, device) for device in trace.devices])


def test_a_recording_from_an_empty_device_lost_nothing() -> None:
    found = completeness_of(random_layout(1, 60).trace())
    assert found.is_complete
    assert (found.n_events_lost, found.n_unmatched_frees, found.preexisting_bytes) == (0, 0, 0)
    assert found.warnings == ()
    assert found.contradictions == ()


def test_a_recording_that_starts_late_cannot_tell_what_was_lost() -> None:
    layout = random_layout(1, 60)
    first = len(layout.events) // 2
    found = completeness_of(layout.trace(first))
    assert found.n_events_lost is None
    in_use = sum(size for _, size, state, _ in layout.states[first].blocks if state != BlockState.INACTIVE)
    assert 0 < found.preexisting_bytes <= in_use
    assert any("cannot be told" in warning for warning in found.warnings)
    assert any("before the first event" in warning for warning in found.warnings)


def test_events_that_the_recorder_counted_as_lost_are_reported() -> None:
    trace = random_layout(1, 20).trace()
    lossy = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, n_events_lost=7))
    found = completeness_of(lossy)
    assert found.n_events_lost == 7
    assert any(warning.startswith("7 events were lost") for warning in found.warnings)


def test_missing_stacks_are_counted() -> None:
    trace = random_layout(2, 20).trace()
    bare = dataclasses.replace(trace, stack_id=trace.stack_id * 0 - 1)
    found = completeness_of(bare)
    assert found.n_events_with_stack == 0
    assert found.n_events_without_stack == sum(action <= Action.FREE_COMPLETED for action in trace.action)
    assert any("without a stack" in warning for warning in found.warnings)


def test_what_follows_an_out_of_memory_is_marked() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.OOM, address=-1, size_bytes=MiB)
    for _ in range(3):
        builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0)
    assert completeness_of(builder.build(TraceMetadata(source="synthetic"))).n_events_after_oom == 3


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([(Action.SEGMENT_FREE, 1 << 30, 2 * MiB)], "contradict the final segments"),
        ([(Action.ALLOC, 1 << 35, 512), (Action.FREE_COMPLETED, 1 << 35, 512)], "does not fit"),
        ([(Action.ALLOC, 1 << 30, 512)], "no final block"),
    ],
)
def test_contradictions_say_where(events: list[tuple[Action, int, int]], text: str) -> None:
    builder = TraceBuilder()
    for action, address, size in events:
        builder.add_event(action, address=address, size_bytes=size)
    segment = builder.add_segment(address=1 << 30, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=1 << 30, size_bytes=2 * MiB, requested_bytes=0, state=BlockState.INACTIVE)
    found = completeness_of(builder.build(TraceMetadata(source="synthetic")))
    assert len(found.contradictions) >= 1
    assert text in found.contradictions[0]
    assert found.contradictions[0].startswith("device 0, event 0")
    assert not found.is_complete


def test_what_is_reserved_above_the_devices_size_is_never_called_accounted_for() -> None:
    whole = random_layout(1, 60).trace()
    reserved = DeviceLifetimes(whole, 0).usage.reserved_bytes
    assert reserved is not None
    most = int(reserved.max())

    def on_a_device_of(total_bytes: int) -> Completeness:
        metadata = dataclasses.replace(whole.metadata, device_total_bytes={0: total_bytes})
        return completeness_of(dataclasses.replace(whole, metadata=metadata))

    assert on_a_device_of(most).is_complete
    found = on_a_device_of(most - 4 * MiB)
    assert (found.is_complete, found.over_device_bytes) == (False, 4 * MiB)
    assert any("4.0 MiB cannot be there" in warning for warning in found.warnings)
