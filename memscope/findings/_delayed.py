"""Frees that wait for another stream: memory that the program has let go of and that nothing can use yet."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, sites_by_bytes
from memscope.findings.returned import Returned
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import format_bytes, format_count, format_duration, format_fraction

MIN_PENDING_BYTES = 16 << 20
WARNING_PENDING_FRAC = 0.05
SEVERE_PENDING_FRAC = 0.20
"""Share of the peak of active memory. A prefetched batch that waits for its copy is a few per cent; a fifth of the peak
decides whether a model fits."""


def find_delayed_frees(device: Device, returned: Returned) -> list[Finding]:
    """Memory whose free waits for another stream, at the moment when it is most."""
    usage, table = device.usage, device.allocations
    waits = _waits(device)
    pending = _pending_bytes(device, np.flatnonzero(waits))
    index = int(np.argmax(pending))
    most, peak = int(pending[index]), int(usage.active_bytes.max())
    if most < max(MIN_PENDING_BYTES, WARNING_PENDING_FRAC * peak):
        return []
    event = usage.event_at(index)
    rows = np.flatnonzero(table.pending_at(event) & waits)
    waited = _waited_ns(device, waits)
    n_grown, grown_bytes = _taken_meanwhile(device, pending)
    time_words = "" if waited is None else f", after {format_duration(waited)} on average"
    more = (
        ""
        if not n_grown
        else (
            f" Meanwhile {format_count(n_grown)} segments ({format_bytes(grown_bytes)}) were taken from the driver "
            "although as much was only waiting."
        )
    )
    return [
        Finding(
            kind="stream-delayed-frees",
            severity=Severity.SEVERE if most >= SEVERE_PENDING_FRAC * peak else Severity.WARNING,
            device=device.index,
            title=f"{format_bytes(most)} freed but waiting for a stream, {format_fraction(most / peak)} of the peak",
            text=(
                f"Tensors used on a second stream (record_stream) are reused only once that stream is done{time_words}."
                f"{more}"
            ),
            bytes=most,
            event=event,
            view="timeline",
            rows=largest_rows(device, rows),
            sites=sites_by_bytes(device, rows, table.block_bytes[rows]),
            evidence={
                "n_pending": len(rows),
                "mean_wait_ns": waited,
                "n_segments_taken_meanwhile": n_grown,
                "segment_bytes_taken_meanwhile": grown_bytes,
            },
            fix="let go of them earlier, or make the first stream wait for the second (wait_stream) before",
            returned_bytes=returned.if_frees_complete(),
        )
    ]


def _waits(device: Device) -> BoolArray:
    """Rows whose free waited: its completion does not follow at once, as it does on one stream. bool (rows,)."""
    table = device.allocations
    requested = table.free_requested_event != NONE_ID
    completed = table.free_event != NONE_ID
    waits: BoolArray = requested & (~completed | (table.free_event > table.free_requested_event + 1))
    waits |= table.is_pending_at_start
    return waits


def _pending_bytes(device: Device, rows: Int64Array) -> Int64Array:
    """Bytes of rows between the request of their free and its completion, after each event: int64 (n + 1,)."""
    lifetimes, table = device.lifetimes, device.allocations
    change = np.zeros(lifetimes.n_events + 1, np.int64)
    # What was already waiting, or has no request among the events, counts from before the first event on.
    requested = table.free_requested_event[rows]
    begin = np.where(requested == NONE_ID, lifetimes.first_event - 1, requested)
    np.add.at(change, begin - lifetimes.first_event + 1, table.block_bytes[rows])
    done = rows[table.free_event[rows] != NONE_ID]
    np.subtract.at(change, table.free_event[done] - lifetimes.first_event + 1, table.block_bytes[done])
    return np.cumsum(change)


def _waited_ns(device: Device, waits: BoolArray) -> int | None:
    """Mean time from the request of a free to its completion, over those that waited; None where not measured."""
    table, trace = device.allocations, device.trace
    chosen = waits & (table.free_requested_event != NONE_ID) & (table.free_event != NONE_ID)
    begin, end = trace.time_ns[table.free_requested_event[chosen]], trace.time_ns[table.free_event[chosen]]
    known = (begin != NONE_ID) & (end != NONE_ID)
    if not device.recording.has_device_times or not np.any(known):
        return None
    return int(np.maximum(end - begin, 0)[known].mean())


def _taken_meanwhile(device: Device, pending: Int64Array) -> tuple[int, int]:
    """Segments taken, and their bytes, while at least as much was waiting as was taken."""
    lifetimes = device.lifetimes
    timeline = lifetimes.timeline
    takes = (timeline.action == Action.SEGMENT_ALLOC) | (timeline.action == Action.SEGMENT_MAP)
    before = timeline.event[takes] - lifetimes.first_event
    size = timeline.size_bytes[takes]
    covered = pending[before] >= size
    return int(np.count_nonzero(covered)), int(size[covered].sum())
