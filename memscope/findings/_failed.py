"""Requests that failed, and that the program survived: it caught the error and went on."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, site_name
from memscope.findings.returned import Returned
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count, format_items

MAX_REPORTED = 3
_ROUNDED_BYTES = 512
"""What a failed request is rounded to at least, where one that was served has what was asked."""
_FIX = (
    "make room before the line is reached, or ask for less there; a retry belongs after the except block, where the "
    "exception holds nothing any more (memscope oom --at {event} says why it failed)"
)


def find_failed_requests(device: Device, _returned: Returned) -> list[Finding]:
    """Lines whose requests failed without ending the run, one finding for each, those that asked for most first."""
    fatal = device.lifetimes.fatal_oom_event
    events = device.oom_events[device.oom_events != (NONE_ID if fatal is None else fatal)]
    site = device.recording.sites.frames_of(device.trace.stack_id[events])
    found = [_failed(device, events[site == one], int(one), fatal) for one in np.unique(site)]
    found.sort(key=lambda finding: -(finding.bytes or 0))
    return found[:MAX_REPORTED]


def _failed(device: Device, events: Int64Array, site: int, fatal: int | None) -> Finding:
    sizes = device.trace.size_bytes[events]
    first = int(events[np.argmax(sizes)])
    asked = int(sizes.max())
    name = site_name(device, site)
    index = device.usage.index_of(first)
    held = f"{format_bytes(int(device.usage.allocated_bytes[index]))} were allocated then"
    reserved = device.usage.reserved_bytes
    if reserved is not None:
        held += f", {format_bytes(int(reserved[index]))} reserved"
    n = len(events)
    what = f"A request of {format_bytes(asked)}" if n == 1 else f"{n} requests of {format_bytes(asked)} at most"
    served = _next_served(device, int(events[-1]), site)
    return Finding(
        kind="failed-request",
        severity=Severity.WARNING,
        device=device.index,
        title=f"{what} failed, and the program went on: {name}",
        text=f"{held}. {_what_followed(device, int(events[-1]), site, served, fatal)}",
        bytes=asked,
        event=first,
        rows=() if served is None else (served,),
        sites=(name,),
        evidence={
            "n_failed": n,
            "requested_bytes": asked,
            "last_event": int(events[-1]),
            "served_event": None if served is None else int(device.allocations.alloc_event[served]),
            "served_bytes": None if served is None else int(device.allocations.requested_bytes[served]),
            "ended_at_event": fatal,
        },
        fix=_FIX.format(event=first),
    )


def _next_served(device: Device, event: int, site: int) -> int | None:
    """The row that the same line allocated next of at least half the size: it was tried again; None for none."""
    table = device.allocations
    size = int(device.trace.size_bytes[event])
    rows = np.flatnonzero((table.alloc_event > event) & (2 * table.requested_bytes >= size))
    rows = rows[device.site_frames_of(rows) == site]
    return int(rows[np.argmin(table.alloc_event[rows])]) if len(rows) and site != NONE_ID else None


def _what_followed(device: Device, event: int, site: int, served: int | None, fatal: int | None) -> str:
    """Whether it was tried again, and how that ended."""
    if served is not None:
        at, size = int(device.allocations.alloc_event[served]), int(device.allocations.requested_bytes[served])
        asked = int(device.trace.size_bytes[event])
        what = "the same" if asked - size < _ROUNDED_BYTES else format_bytes(size)
        before = int(device.usage.allocated_bytes[device.usage.index_of(event)])
        freed = before - int(device.usage.allocated_bytes[device.usage.index_of(at - 1)])
        after = f", after {format_bytes(freed)} were let go of" if freed > 0 else ""
        return f"Its line asked again for {what} at event {format_count(at)}, and got it{after}."
    if fatal is not None and site in device.recording.sites.frames_of(device.trace.stack_id[[fatal]]):
        return f"Its line asked again and failed again, at event {format_count(fatal)}, which ended the run."
    within = device.trace.action[event : device.lifetimes.end_event]
    n_after = int(np.count_nonzero(within == Action.ALLOC))
    return f"It was not tried again: {format_items(n_after, 'request')} of other lines or sizes followed."
