"""Temporaries of an optimizer that works on all parameters at once, where they make the peak."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, sites_by_bytes
from memscope.findings.returned import Returned
from memscope.trace.categories import Category
from memscope.trace.frames import FramePattern, StackSearch
from memscope.trace.tables import BoolArray
from memscope.units import format_bytes, format_fraction

MIN_BYTES = 64 << 20
WARNING_PEAK_FRAC = 0.05
"""Share of the peak that is worth another way of stepping."""
_ALL_AT_ONCE = FramePattern(r"torch/optim/[a-z_]+\.py$", r"^_multi_tensor_")
"""How torch's optimizers name their ``foreach`` ways."""
_HAVE_FUSED = FramePattern(r"torch/optim/(adam|adamw|sgd|adagrad)\.py$", r"^_multi_tensor_")


def find_foreach(device: Device, returned: Returned) -> list[Finding]:
    """Intermediate results of a ``foreach`` optimizer, for all parameters at once, that are live at the peak.

    A fused step makes none, and a loop over the parameters those of one at a time.
    """
    table, search = device.allocations, StackSearch(device.trace)
    made = _made_by(device, search, _ALL_AT_ONCE) & (device.attribution.category == Category.TEMPORARIES)
    peak = device.peak()
    at_peak = np.flatnonzero(made & table.active_at(peak.event))
    size = int(table.block_bytes[at_peak].sum())
    if size < max(MIN_BYTES, WARNING_PEAK_FRAC * peak.active_bytes):
        return []
    has_fused = bool(np.any(_made_by(device, search, _HAVE_FUSED)[at_peak]))
    share = format_fraction(size / peak.active_bytes)
    return [
        Finding(
            kind="foreach-temporaries",
            severity=Severity.WARNING,
            device=device.index,
            title=f"{format_bytes(size)} of the peak, {share}, are intermediate results of the optimizer",
            text=(
                "By default torch's optimizers work on all parameters in one call (foreach), and so make each "
                f"intermediate result for all of them at once: {len(at_peak):,} tensors, as large as the parameters "
                "together."
            ),
            bytes=size,
            event=peak.event,
            view="allocations",
            rows=largest_rows(device, at_peak),
            sites=sites_by_bytes(device, at_peak, table.block_bytes[at_peak]),
            evidence={"n_allocations": len(at_peak), "peak_active_bytes": peak.active_bytes},
            fix=(
                "give the optimizer fused=True, which makes none (foreach=False makes those of one parameter at a time)"
                if has_fused
                else "give the optimizer foreach=False, which makes those of one parameter at a time"
            ),
            returned_bytes=returned.without(np.flatnonzero(made)),
        )
    ]


def _made_by(device: Device, search: StackSearch, pattern: FramePattern) -> BoolArray:
    """Allocations with such a frame in their stack: bool (rows,)."""
    stack_id = device.allocations.stack_id
    found: BoolArray = np.zeros(len(stack_id), np.bool_)
    known = stack_id >= 0
    found[known] = search.stacks(pattern)[stack_id[known]]
    return found
