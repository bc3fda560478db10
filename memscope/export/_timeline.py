"""A timeline as Chrome's trace events in JSON, which Perfetto reads as well.

Each device is a process. It has a counter for each category and for what is allocated and reserved, a slice for each
step and phase, and an asynchronous slice for each allocation from its alloc to its free.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from memscope.analysis import Analysis
from memscope.device.device import Device
from memscope.trace.categories import Category
from memscope.trace.marks import phase_spans
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

COUNTER_KEY = "bytes"
STEPS_THREAD, PHASES_THREAD = 1, 2
_NS_PER_EVENT = 1000


def write_timeline(analysis: Analysis, file: BinaryIO) -> None:
    """Write the timeline of every device; one event of the timeline at a time is in memory as text."""
    clocks = {device.index: "time" if device.has_times else "event" for device in analysis.devices}
    head = {
        "displayTimeUnit": "ns",
        "otherData": {
            "source": "memscope",
            "trace": analysis.name,
            "clock": {str(index): clock for index, clock in clocks.items()},
            "note": "where the clock of a device is event, one microsecond is one event: no times were recorded",
        },
    }
    file.write(json.dumps(head)[:-1].encode() + b', "traceEvents": [\n')
    separator = b""
    for device in analysis.devices:
        for event in _events(device):
            text = json.dumps(event, ensure_ascii=True, separators=(",", ":"))
            file.write(separator + text.encode())
            separator = b",\n"
    file.write(b"\n]}\n")


def _events(device: Device) -> Iterator[dict[str, Any]]:
    pid = device.index + 1
    clock = _Clock(device)
    name = f"device {device.index}" + (f" ({device.name})" if device.name else "")
    yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}
    for thread, words in ((STEPS_THREAD, "steps"), (PHASES_THREAD, "phases")):
        yield {"ph": "M", "pid": pid, "tid": thread, "name": "thread_name", "args": {"name": words}}
    yield from _counters(device, pid, clock)
    yield from _spans(device, pid, clock)
    yield from _allocations(device, pid, clock)


class _Clock:
    """When events happened, in microseconds since a device's first."""

    def __init__(self, device: Device) -> None:
        lifetimes = device.lifetimes
        self._first, n = lifetimes.first_event, lifetimes.n_events
        if device.has_times:
            times = np.maximum.accumulate(device.trace.time_ns[self._first : lifetimes.end_event])
            self._ns = times - times[0]
        else:
            self._ns = np.arange(n, dtype=np.int64) * _NS_PER_EVENT
        self.end = float(self._ns[-1] / 1000) if n else 0.0

    def at(self, event: int) -> float:
        """When an event happened; the device's begin for what comes before it, its end for what comes after."""
        i = event - self._first
        if i < 0 or not len(self._ns):
            return 0.0
        return float(self._ns[i] / 1000) if i < len(self._ns) else self.end


def _counters(device: Device, pid: int, clock: _Clock) -> Iterator[dict[str, Any]]:
    usage = device.usage
    series: dict[str, Int64Array] = {"allocated": usage.allocated_bytes}
    if usage.reserved_bytes is not None:
        series["reserved"] = usage.reserved_bytes
    by_category = device.category_usage
    series |= {category.label: by_category[category] for category in Category if category in by_category}
    for name, values in series.items():
        changed = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
        for i in changed.tolist():
            at = clock.at(usage.event_at(i)) if i else 0.0
            yield {"ph": "C", "pid": pid, "ts": at, "name": name, "args": {COUNTER_KEY: int(values[i])}}


def _spans(device: Device, pid: int, clock: _Clock) -> Iterator[dict[str, Any]]:
    steps = device.steps
    if steps is not None:
        for begin, end, label in zip(steps.begin.tolist(), steps.end.tolist(), steps.labels, strict=True):
            words = label if label.lower().startswith("step") else f"step {label}"
            yield _span(pid, STEPS_THREAD, words, begin, end, clock)
    first, last = device.lifetimes.first_event, device.lifetimes.end_event
    for span in phase_spans(device.trace):
        begin, end = max(span.begin, first), min(span.end, last)
        if begin < end:
            yield _span(pid, PHASES_THREAD, span.label, begin, end, clock)


def _span(pid: int, thread: int, name: str, begin: int, end: int, clock: _Clock) -> dict[str, Any]:
    start = clock.at(begin)
    args = {"begin_event": begin, "end_event": end}
    return {
        "ph": "X",
        "pid": pid,
        "tid": thread,
        "ts": start,
        "dur": clock.at(end) - start,
        "cat": "program",
        "name": name,
        "args": args,
    }


def _allocations(device: Device, pid: int, clock: _Clock) -> Iterator[dict[str, Any]]:
    table, trace = device.allocations, device.trace
    rows = np.arange(len(table))
    sites = device.sites_of(rows)
    let_go = table.let_go_event.tolist()
    columns = (table.alloc_event, table.requested_bytes, table.block_bytes, device.attribution.category)
    for row, born, wanted, given, category in zip(rows.tolist(), *(c.tolist() for c in columns), strict=True):
        owner = device.owner_of(row)
        label = Category(category).label
        name = owner or sites[row] or "no stack recorded"
        args = {
            "category": label,
            "requested_bytes": wanted,
            "block_bytes": given,
            "address": trace.address_text(int(table.address[row])),
            "alloc_event": None if born == NONE_ID else born,
            "free_event": None if let_go[row] == NONE_ID else let_go[row],
            "line": sites[row],
        }
        same = {"pid": pid, "cat": "allocation", "id": f"{pid}.{row}", "name": name}
        yield {"ph": "b", "ts": clock.at(born), **same, "args": args}
        yield {"ph": "e", "ts": clock.end if let_go[row] == NONE_ID else clock.at(let_go[row]), **same}
