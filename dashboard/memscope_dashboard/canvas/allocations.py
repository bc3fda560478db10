"""The allocations of a range of events, the largest of them, and what the others hold together.

Moments are counted as in :class:`~memscope.lifetimes.tables.UsageSeries`: 0 is before the device's first event, i after
its i-th. An allocation is in use at the moments ``start <= i < end``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memscope.attribution.sites import module_of_owner
from memscope.device.device import Device
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.words.labels import stream_label
from memscope_dashboard.canvas.packed import halves, packed
from memscope_dashboard.live_allocations import text_column

MAX_ALLOCATIONS = 80_000
"""Rows of one answer: with them it stays below 4 MB."""
_N_SAMPLES = 2_048
"""Moments at which it is said what the allocations that are left out hold."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The allocations of a range of moments.

    Attributes
    ----------
    rows
        int64 (n,): rows of the device's allocations, in the order in which they were made.
    start, end
        int64 (n,): the moments of each.
    sample
        int64 (m,): moments at which what is left out was summed, from the range's first to its last.
    left_out_bytes, left_out_counts
        int64 (m,): what the allocations that are not among the rows held then, and how many they were.
    n_left_out
        How many allocations of the range are not among the rows.
    """

    rows: Int64Array
    start: Int64Array
    end: Int64Array
    sample: Int64Array
    left_out_bytes: Int64Array
    left_out_counts: Int64Array
    n_left_out: int


def moments_of(device: Device) -> tuple[Int64Array, Int64Array]:
    """First moment of each allocation, and the first at which it is no longer in use: int64 (rows,) each."""
    table, first, n_events = device.allocations, device.lifetimes.first_event, device.n_events
    start = np.where(table.alloc_event == NONE_ID, 0, table.alloc_event - first + 1)
    end = np.where(table.free_event == NONE_ID, n_events + 1, table.free_event - first + 1)
    return start.astype(np.int64), end.astype(np.int64)


def drawn_allocations(device: Device, low: int, high: int, limit: int = MAX_ALLOCATIONS) -> Drawn:
    """What to draw of the moments ``low <= i <= high``: those that cover most bytes × events. O(rows)."""
    start, end = moments_of(device)
    rows = np.flatnonzero((start <= high) & (end > low))
    left = np.empty(0, np.int64)
    if len(rows) > limit:
        seen = np.minimum(end[rows], high + 1) - np.maximum(start[rows], low)
        area = device.allocations.block_bytes[rows].astype(np.float64) * seen
        order = np.argpartition(-area, limit)
        left, rows = np.sort(rows[order[limit:]]), np.sort(rows[order[:limit]])
    sample = np.unique(np.linspace(low, high, min(_N_SAMPLES, high - low + 1)).astype(np.int64))
    sizes = device.allocations.block_bytes[left]
    return Drawn(
        rows=rows,
        start=start[rows],
        end=end[rows],
        sample=sample,
        left_out_bytes=_in_use_at(sample, start[left], end[left], sizes),
        left_out_counts=_in_use_at(sample, start[left], end[left], np.ones(len(left), np.int64)),
        n_left_out=len(left),
    )


def _in_use_at(sample: Int64Array, start: Int64Array, end: Int64Array, amount: Int64Array) -> Int64Array:
    """Sum of the amounts in use at each of some moments, in order: int64 (samples,)."""
    change = np.zeros(len(sample) + 1, np.int64)
    np.add.at(change, np.searchsorted(sample, start), amount)
    np.subtract.at(change, np.searchsorted(sample, end), amount)
    total: Int64Array = np.cumsum(change)[:-1]
    return total


def packed_allocations(device: Device, low: int, high: int, limit: int = MAX_ALLOCATIONS) -> bytes:
    """The answer for a range of moments (:mod:`memscope_dashboard.canvas.packed`)."""
    drawn = drawn_allocations(device, low, high, limit)
    rows, table, attribution, trace = drawn.rows, device.allocations, device.attribution, device.trace
    owner = text_column(attribution.owner_id[rows], rows, lambda row: device.owner_of(row) or "")
    site = text_column(table.stack_id[rows], rows, lambda row: device.site_of(row) or "")
    streams, stream = np.unique(table.stream_id[rows], return_inverse=True)
    handles = trace.stream_handles
    header: dict[str, Any] = {
        "low": low,
        "high": high,
        "n_left_out": drawn.n_left_out,
        "categories": [category.label for category in Category],
        "owners": owner.texts,
        "modules": [module_of_owner(text) if text else "" for text in owner.texts],
        "sites": site.texts,
        "streams": [stream_label(None if one < 0 else int(handles[one])) for one in streams.tolist()],
    }
    columns = {
        "row": rows.astype(np.uint32),
        "start": drawn.start.astype(np.uint32),
        "end": drawn.end.astype(np.uint32),
        **halves("size", table.block_bytes[rows]),
        **halves("address", trace.real_addresses(table.address[rows])),
        "owner": owner.codes.astype(np.uint32),
        "site": site.codes.astype(np.uint32),
        "stream": stream.reshape(-1).astype(np.uint16),
        "category": attribution.category[rows].astype(np.uint8),
        "sample": drawn.sample.astype(np.uint32),
        **halves("left_out", drawn.left_out_bytes),
        "left_out_count": drawn.left_out_counts.astype(np.uint32),
    }
    return packed(header, columns)
