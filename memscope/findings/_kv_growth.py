"""KV caches that grow by copying: each token makes them anew, one entry longer, while the old one is still there."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, sites_by_bytes
from memscope.kv_cache.lens import KvLens
from memscope.units import format_bytes, format_count

MIN_COPIES = 8
"""Fewer are a prompt in a few pieces, not a loop over tokens."""
WARNING_PEAK_FRAC = 0.05
"""Share of the peak from which the cache, and what copying it adds, is worth a change of the program."""


def find_kv_growth(device: Device, lens: KvLens) -> list[Finding]:
    """KV caches whose allocations were replaced by larger ones again and again."""
    if len(lens.growth) < MIN_COPIES:
        return []
    table, rows = device.allocations, lens.parts.rows
    old, new = rows[lens.growth.old], rows[lens.growth.new]
    cost = lens.cost
    held = lens.series.block_bytes
    index = int(np.argmax(held))
    most, event = int(held[index]), lens.peak_event
    grown = table.requested_bytes[new] - table.requested_bytes[old]
    is_costly = most + cost.copy_peak_bytes >= WARNING_PEAK_FRAC * device.peak().allocated_bytes
    series = device.fragmentation_series
    pinned = None if series is None else series.at(event).overall.free_in_split_segments_bytes
    holes = "" if pinned is None else f" {format_bytes(pinned)} were free but pinned then, over all of the device."
    median = int(np.median(grown))
    how = f"as it grows, {format_bytes(median)} at a time," if median > 0 else "for every token,"
    return [
        Finding(
            kind="kv-growth",
            severity=Severity.WARNING if is_costly else Severity.INFO,
            device=device.index,
            title=f"KV cache grows by copying: {format_count(len(old))} copies moved {format_bytes(cost.moved_bytes)}",
            text=(
                f"The cache held {format_bytes(most)} at most. Each of its tensors is made anew {how} beside the old "
                f"one: {format_bytes(cost.copy_peak_bytes)} more at once.{holes}"
            ),
            bytes=most,
            event=event,
            view="kv",
            rows=largest_rows(device, np.flatnonzero(table.active_at(event) & np.isin(np.arange(len(table)), rows))),
            sites=sites_by_bytes(device, new, table.block_bytes[new]),
            evidence={
                "n_copies": cost.n_copies,
                "moved_bytes": cost.moved_bytes,
                "most_held_bytes": most,
                "copy_peak_bytes": cost.copy_peak_bytes,
                "copy_peak_event": cost.copy_peak_event,
                "median_growth_bytes": median,
                "pinned_free_bytes_then": pinned,
            },
            fix="a static or paged cache, which is allocated once (memscope kv replays the run without the copies)",
        )
    ]
