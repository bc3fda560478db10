"""KV caches that grow by copying: each token makes them anew, one entry longer, while the old one is still there."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np

from memscope.findings.finding import Finding, Severity
from memscope.findings.subject import Subject
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count

MIN_COPIES = 8
"""Fewer are a prompt in a few pieces, not a loop over tokens."""
WARNING_PEAK_FRAC = 0.05
"""Share of the peak from which the cache, and what copying it adds, is worth a change of the program."""


def find_kv_growth(subject: Subject) -> list[Finding]:
    """KV caches whose allocations were replaced by larger ones again and again."""
    table = subject.lifetimes.allocations
    rows = np.flatnonzero((subject.attribution.category == Category.KV_CACHE) & (table.alloc_event != NONE_ID))
    old, new = _replacements(subject, rows)
    if len(old) < MIN_COPIES:
        return []
    copy_peak, copy_event = _most_at_once(table.alloc_event[new], subject.died_event[old], table.block_bytes[old])
    held = subject.lifetimes.weighted_usage(rows, table.block_bytes[rows])
    index = int(np.argmax(held))
    most, moved = int(held[index]), int(table.requested_bytes[old].sum())
    event = subject.lifetimes.usage.event_at(index)
    grown = table.requested_bytes[new] - table.requested_bytes[old]
    is_costly = most + copy_peak >= WARNING_PEAK_FRAC * subject.peak_allocated_bytes
    pinned = None
    if subject.series is not None:
        overall = subject.series.overall
        pinned = int(overall.free_in_split_segments_bytes[overall.row_of(event)])
    holes = "" if pinned is None else f" {format_bytes(pinned)} were free but pinned then, over all of the device."
    return [
        Finding(
            kind="kv-growth",
            severity=Severity.WARNING if is_costly else Severity.INFO,
            device=subject.device,
            title=f"KV cache grows by copying: {format_count(len(old))} copies moved {format_bytes(moved)}",
            text=(
                f"The cache held {format_bytes(most)} at most. Each of its tensors is made anew as it grows, "
                f"{format_bytes(int(np.median(grown)))} at a time, beside the old one: {format_bytes(copy_peak)} "
                f"more at once.{holes} A static or paged cache is allocated once."
            ),
            bytes=most,
            event=event,
            view="allocations",
            rows=subject.largest(np.flatnonzero(table.active_at(event) & np.isin(np.arange(len(table)), rows))),
            sites=subject.sites_by_bytes(new, table.block_bytes[new]),
            evidence={
                "n_copies": len(old),
                "moved_bytes": moved,
                "most_held_bytes": most,
                "copy_peak_bytes": copy_peak,
                "copy_peak_event": copy_event,
                "median_growth_bytes": int(np.median(grown)),
                "pinned_free_bytes_then": pinned,
            },
        )
    ]


def _replacements(subject: Subject, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Pairs of allocations of which the second replaced the first: int64 (m,) each.

    Of one owner (of one place in the program where owners are not known) the oldest allocation that is smaller, and
    freed only after the new one was made, is what the new one replaced. Linear in the rows.
    """
    table, owner = subject.lifetimes.allocations, subject.attribution.owner_id
    died = subject.died_event
    waiting: dict[tuple[int, int], deque[int]] = defaultdict(deque)
    old, new = [], []
    for row in rows.tolist():
        key = (int(owner[row]), NONE_ID) if owner[row] != NONE_ID else (NONE_ID, int(table.stack_id[row]))
        queue = waiting[key]
        while queue and died[queue[0]] < table.alloc_event[row]:
            queue.popleft()
        if queue and table.requested_bytes[queue[0]] < table.requested_bytes[row]:
            candidate = queue[0]
            if died[candidate] != np.iinfo(np.int64).max:
                old.append(candidate)
                new.append(row)
            queue.popleft()
        queue.append(row)
    return np.array(old, np.int64), np.array(new, np.int64)


def _most_at_once(begin: Int64Array, end: Int64Array, size_bytes: Int64Array) -> tuple[int, int]:
    """Most bytes at once of some things that exist from ``begin`` to before ``end``, and the event when."""
    event = np.concatenate([begin, end])
    order = np.lexsort((np.concatenate([np.ones(len(begin)), np.zeros(len(end))]), event))
    total = np.cumsum(np.concatenate([size_bytes, -size_bytes])[order])
    most = int(np.argmax(total))
    return int(total[most]), int(event[order[most]])
