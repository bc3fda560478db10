"""Memory that is still held long after the last step that made such memory.

That it is not *read* any more cannot be seen in a trace, and neither can memory that is made too early.
"""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, site_name
from memscope.findings.over_steps.leaks import MIN_STEPS
from memscope.findings.over_steps.patterns import Patterns
from memscope.findings.returned import Returned
from memscope.lifetimes.steps import Steps
from memscope.trace.categories import Category
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count

MIN_BYTES = 1 << 20
MIN_PEAK_FRAC = 0.01
"""Less than a hundredth of the peak is not worth a look."""
MIN_STEPS_SINCE = 3
MIN_STEPS_SINCE_FRAC = 0.25
"""So many steps, and this share of all, must have passed without it."""
_LASTING = (Category.WEIGHTS, Category.GRADIENTS, Category.OPTIMIZER_STATE, Category.WORKSPACE, Category.KV_CACHE)
"""Meant to stay; a KV cache is reported by its own finding."""
MAX_REPORTED = 5


def find_held_late(device: Device, steps: Steps, patterns: Patterns, returned: Returned) -> list[Finding]:
    """Places that allocated in at least two steps, then no more, and of which something is still held at the end."""
    n_steps = len(steps)
    if n_steps < MIN_STEPS or not len(patterns):
        return []
    uses = patterns.n_born > 0
    last_use = n_steps - 1 - np.argmax(uses[:, ::-1], axis=1)
    since = n_steps - 1 - last_use
    old = (since >= MIN_STEPS_SINCE) & (since >= MIN_STEPS_SINCE_FRAC * n_steps) & (uses.sum(axis=1) >= 2)
    enough = max(MIN_BYTES, int(MIN_PEAK_FRAC * device.peak().allocated_bytes))
    found = []
    for pattern in np.flatnonzero(old & (patterns.live_bytes[:, -1] >= enough)).tolist():
        rows = patterns.live_rows(pattern, device, int(steps.end[-1]) - 1)
        if device.attribution.category[rows[-1]] not in _LASTING:
            found.append((rows, int(last_use[pattern])))
    found.sort(key=lambda one: -int(device.allocations.block_bytes[one[0]].sum()))
    return [_held(device, steps, rows, step, returned) for rows, step in found[:MAX_REPORTED]]


def _held(device: Device, steps: Steps, rows: Int64Array, last_use: int, returned: Returned) -> Finding:
    size = int(device.allocations.block_bytes[rows].sum())
    name = site_name(device, int(device.site_frames_of(rows[-1:])[0]))
    since = len(steps) - 1 - last_use
    return Finding(
        kind="held-late",
        severity=Severity.INFO,
        device=device.index,
        title=f"{format_bytes(size)} still held {since} steps after {name} last allocated",
        text=(
            f"{format_count(len(rows))} of its allocations outlived the last step that made any "
            f"({steps.labels[last_use]}). Whether they are still read cannot be seen in a trace."
        ),
        bytes=size,
        event=int(steps.end[-1]) - 1,
        view="allocations",
        rows=largest_rows(device, rows),
        sites=(name,),
        evidence={"n_steps_since": since, "last_step": steps.labels[last_use], "n_allocations": len(rows)},
        fix="let go of it when it is no longer needed (del)",
        returned_bytes=returned.freed_after(rows, np.full(len(rows), steps.end[last_use] - 1)),
    )
