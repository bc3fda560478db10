"""What a device had reserved over a range of events, no peak of it lost; and what stands beside it on the same axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from memscope.device.device import Device
from memscope.trace.marks import Span, phase_spans, step_spans
from memscope.trace.tables import Int64Array
from memscope_dashboard.canvas.packed import halves, packed

_N_BUCKETS = 4_096
_MAX_SPANS = 4_000
"""More steps or phases than this have no room on any screen."""


def bucket_maxima(
    values: Int64Array, low: int, high: int, n_buckets: int = _N_BUCKETS
) -> tuple[Int64Array, Int64Array]:
    """Beginnings of equal parts of ``low <= i <= high``, and the largest value in each: int64 (m,) each."""
    begin = np.unique(np.linspace(low, high + 1, min(n_buckets, high - low + 1), endpoint=False).astype(np.int64))
    return begin, np.maximum.reduceat(values[: high + 1], begin)


def _step_name(label: str) -> str:
    return label if label.lower().startswith("step") else f"step {label}"


def packed_series(device: Device, low: int, high: int) -> bytes:
    """The answer for the moments ``low <= i <= high``; without a column ``reserved`` where it was not recorded."""
    reserved = device.usage.reserved_bytes
    columns: dict[str, np.ndarray] = {}
    if reserved is not None:
        begin, most = bucket_maxima(reserved, low, high)
        columns = {"begin": begin.astype(np.uint32), **halves("reserved", most)}
    return packed({"low": low, "high": high, "is_exact": high - low < _N_BUCKETS}, columns)


def run_facts(device: Device) -> dict[str, Any]:
    """What a picture of the run needs to know at once: JSON-able; moments as the allocations have them."""
    trace, first, n_events = device.trace, device.lifetimes.first_event, device.n_events
    usage = device.usage

    def moments(spans: list[Span]) -> list[list[Any]]:
        found = [
            [span.label, max(span.begin - first, 0), min(span.end - first, n_events), span.depth]
            for span in spans
            if span.end > first and span.begin < first + n_events
        ]
        return found if len(found) <= _MAX_SPANS else []

    ooms = device.oom_events
    return {
        "n_events": n_events,
        "first_event": first,
        "n_allocations": len(device.allocations),
        "peak": usage.index_of(usage.peak_event) if usage.peak_event >= 0 else 0,
        "active_peak_bytes": int(usage.active_bytes.max()),
        "reserved_peak_bytes": None if usage.reserved_bytes is None else int(usage.reserved_bytes.max()),
        "total_bytes": device.total_bytes,
        "ooms": [[int(event) - first + 1, int(trace.size_bytes[event])] for event in ooms.tolist()],
        "steps": moments([replace(span, label=_step_name(span.label)) for span in step_spans(trace)]),
        "phases": moments(phase_spans(trace)),
    }
