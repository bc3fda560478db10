"""Outputs that a loop joins piece by piece: each time all of them are made anew, beside those that are there."""

from __future__ import annotations

import numpy as np

from memscope.attribution.phases.lives import Life
from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, site_name
from memscope.findings.returned import Returned
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import format_bytes, format_count

MIN_PEAK_FRAC = 0.01
WARNING_PEAK_FRAC = 0.05
"""Shares of the peak from which what is joined is worth a word, and a change of the program."""
MAX_REPORTED = 3


def joined_rows_of(device: Device) -> BoolArray:
    """Which allocations are outputs that a loop joins: bool (rows,)."""
    attribution = device.attribution
    rules = [position for position, rule in enumerate(attribution.rules) if Life.JOINED in rule.lives]
    found: BoolArray = np.isin(attribution.rule_id, rules)
    return found


def find_joined(device: Device, returned: Returned) -> list[Finding]:
    """Lines that join outputs, one finding for each, those with most bytes at once first."""
    rows = np.flatnonzero(joined_rows_of(device))
    frames = device.site_frames_of(rows)
    peak = device.peak().allocated_bytes
    found = []
    for frame in np.unique(frames):
        of_line = rows[frames == frame]
        event, most = _fullest(device, of_line)
        if most >= MIN_PEAK_FRAC * peak:
            found.append((most, event, of_line, int(frame)))
    found.sort(key=lambda one: -one[0])
    return [_joined(device, *one, returned, peak) for one in found[:MAX_REPORTED]]


def _fullest(device: Device, rows: Int64Array) -> tuple[int, int]:
    """When some allocations hold most at once, and how much: what is made counts beside what it replaces."""
    table = device.allocations
    events = np.concatenate([table.alloc_event[rows], device.died_event[rows]])
    change = np.concatenate([table.block_bytes[rows], -table.block_bytes[rows]])
    order = np.argsort(events, kind="stable")
    held = np.cumsum(change[order])
    at = int(np.argmax(held))
    return int(events[order[at]]), int(held[at])


def _joined(
    device: Device, most: int, event: int, rows: Int64Array, frame: int, returned: Returned, peak: int
) -> Finding:
    table = device.allocations
    size = table.requested_bytes[rows]
    largest, n = int(size.max()), len(rows)
    name = site_name(device, frame)
    return Finding(
        kind="outputs-joined",
        severity=Severity.WARNING if most >= WARNING_PEAK_FRAC * peak else Severity.INFO,
        device=device.index,
        title=f"Outputs kept over a loop: {format_bytes(largest)} by its end, joined anew with each pass at {name}",
        text=(
            f"{format_count(n)} times a larger tensor was made beside the one that it replaces, "
            f"{format_bytes(most)} at once; {format_bytes(int(size.sum()))} were made in all."
        ),
        bytes=most,
        event=event,
        view="allocations",
        rows=largest_rows(device, rows),
        sites=(name,),
        evidence={"n_copies": n, "largest_bytes": largest, "most_at_once_bytes": most, "made_bytes": int(size.sum())},
        fix=(
            "move each pass's outputs to the host and join them once, at the end (in a Trainer: "
            "eval_accumulation_steps, or preprocess_logits_for_metrics to keep less of them)"
        ),
        returned_bytes=returned.without(rows),
    )
