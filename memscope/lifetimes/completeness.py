"""What a trace cannot say: events lost, frees without allocs, bytes that predate it, stacks missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from memscope.units import format_bytes, format_count

_STACK_ACTIONS = (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED)


@dataclass(frozen=True, slots=True)
class Completeness:
    """How far a trace can be trusted.

    Attributes
    ----------
    n_events_lost
        Events that the recorder dropped; 0 only where that is proved, None where the trace cannot tell.
    n_unmatched_frees
        Frees whose alloc is not among the events.
    preexisting_bytes
        Block bytes in use before the first event, over all devices.
    n_events_without_stack, n_events_with_stack
        Allocs and frees without and with a stack.
    n_events_after_oom
        Events after the first ``oom``: what unwinding freed is not what the program held.
    over_device_bytes
        The most that was reserved above a device's whole memory, on any device: it cannot have been there.
    n_devices
        Devices with events or segments.
    warnings
        What weakens the answers, a sentence each.
    contradictions
        Where the trace contradicts itself; empty for every sound recording.
    """

    n_events_lost: int | None
    n_unmatched_frees: int
    preexisting_bytes: int
    n_events_without_stack: int
    n_events_with_stack: int
    n_events_after_oom: int
    over_device_bytes: int
    n_devices: int
    warnings: tuple[str, ...]
    contradictions: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing that the device did since its first allocation is missing, or counted that was not there."""
        is_missing = self.n_events_lost != 0 or self.n_unmatched_frees or self.preexisting_bytes
        return not is_missing and not self.over_device_bytes


def measure_completeness(trace: Trace, devices: Sequence[DeviceLifetimes]) -> Completeness:
    """Say what a trace lacks. Linear in the events."""
    n_unmatched = sum(device.n_unmatched_frees for device in devices)
    preexisting = sum(device.preexisting_bytes for device in devices)
    paired = np.isin(trace.action, _STACK_ACTIONS)
    n_without = int(np.count_nonzero(paired & (trace.stack_id == NONE_ID)))
    n_after_oom = sum(_events_after_oom(device) for device in devices)
    contradictions = tuple(text for device in devices for text in _contradictions(device))
    lost = trace.metadata.n_events_lost
    if lost is None and trace.n_events and not n_unmatched and not preexisting and not contradictions:
        # From an empty device to a final state that follows from the events: nothing can be missing in between.
        starts_empty = all(device.timeline.start_bytes == 0 for device in devices)
        lost = 0 if starts_empty else None
    completeness = Completeness(
        n_events_lost=lost,
        n_unmatched_frees=n_unmatched,
        preexisting_bytes=preexisting,
        n_events_without_stack=n_without,
        n_events_with_stack=int(np.count_nonzero(paired)) - n_without,
        n_events_after_oom=n_after_oom,
        over_device_bytes=max((_over_device_bytes(device) for device in devices), default=0),
        n_devices=len(trace.devices),
        warnings=(),
        contradictions=contradictions,
    )
    return _with_warnings(completeness, trace, devices)


def _events_after_oom(device: DeviceLifetimes) -> int:
    return int(device.last_event - device.oom_events[0]) if len(device.oom_events) else 0


def _over_device_bytes(device: DeviceLifetimes) -> int:
    total, reserved = device.trace.metadata.device_total_bytes.get(device.device), device.usage.reserved_bytes
    return 0 if total is None or reserved is None else max(int(reserved.max()) - total, 0)


def _contradictions(device: DeviceLifetimes) -> list[str]:
    found = [str(problem) for problem in device.problems]
    timeline = device.timeline
    if timeline.n_misfits:
        found.append(
            f"device {device.device}, event {timeline.first_misfit:,}: "
            f"{timeline.n_misfits:,} segment events contradict the final segments"
        )
    if device.n_misplaced:
        event = device.first_misplaced
        shown = device.trace.address_text(int(device.trace.address[event]))
        found.append(
            f"device {device.device}, event {event:,}: address {shown} does not fit "
            f"the recorded segments and settings ({device.n_misplaced:,} such events)"
        )
    difference = device.final_difference() if device.trace.metadata.block_layout_recorded and not found else None
    return found if difference is None else [*found, f"device {device.device}: {difference}"]


def _with_warnings(completeness: Completeness, trace: Trace, devices: Sequence[DeviceLifetimes]) -> Completeness:
    c = completeness
    warnings = []
    if not trace.n_events:
        warnings.append("no events were recorded: only the final state can be shown, nothing over time")
    elif c.n_events_lost is None:
        warnings.append(
            "the recording does not start from an empty device: whether earlier events were lost cannot be told"
        )
    elif c.n_events_lost:
        warnings.append(
            f"{format_count(c.n_events_lost)} events were lost: peaks before the first kept event are missing"
        )
    if c.preexisting_bytes:
        warnings.append(
            f"{format_bytes(c.preexisting_bytes)} were in use before the first event; "
            "where nothing tells their origin they are counted as unknown"
        )
    if c.n_unmatched_frees:
        warnings.append(f"frees without a recorded alloc: {format_count(c.n_unmatched_frees)}")
    n_paired = c.n_events_with_stack + c.n_events_without_stack
    if n_paired and c.n_events_without_stack:
        share = c.n_events_without_stack / n_paired
        warnings.append(
            f"allocs and frees without a stack: {format_count(c.n_events_without_stack)} ({100 * share:.0f} %)"
        )
    if c.n_events_after_oom:
        warnings.append(
            f"events after the first out-of-memory error: {format_count(c.n_events_after_oom)}; "
            "the end of the trace is not the state that ran out"
        )
    if c.n_devices > 1:
        warnings.append(f"{c.n_devices} devices are in this trace; each is reported on its own")
    warnings += [text for device in devices for text in _device_warnings(device)]
    return replace(c, warnings=tuple(warnings))


def _device_warnings(device: DeviceLifetimes) -> list[str]:
    warnings = []
    n_inexact = int(np.count_nonzero(~device.allocations.is_exact))
    if n_inexact:
        warnings.append(
            f"device {device.device}: allocations from before the events, of whose block only a lower bound is known "
            f"(the rounded request): {format_count(n_inexact)}"
        )
    over = _over_device_bytes(device)
    if over:
        total = device.trace.metadata.device_total_bytes[device.device]
        warnings.append(
            f"device {device.device}: at most {format_bytes(total + over)} are reserved on a device of "
            f"{format_bytes(total)}: {format_bytes(over)} cannot be there (a pool whose memory is unmapped while an "
            "engine sleeps, or memory that is shared or managed)"
        )
    if device.n_events and not device.segments_are_known:
        warnings.append(f"device {device.device}: segment events are missing, so reserved bytes are not measured")
    elif device.n_events and not len(device.timeline.event) and device.timeline.start_bytes:
        warnings.append(
            f"device {device.device}: no segment events; reserved bytes are taken as constant "
            f"({format_bytes(device.timeline.start_bytes)})"
        )
    return warnings
