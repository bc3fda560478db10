"""Contradictions inside a recording: what no real allocator state can be, found without replaying anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from memscope.units import format_count

MAX_LISTED = 20
MAX_DEVICE_BYTES = 1 << 50
"""One pebibyte: far above any GPU's memory, far below where sums of sizes could overflow int64."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One thing that cannot be; ``event`` and ``address`` are None where it has none."""

    device: int
    event: int | None
    address: int | None
    text: str

    def __str__(self) -> str:
        return self.text


def contradictions(trace: Trace) -> list[Contradiction]:
    """List what the recording says that cannot be true, in its final state and in its single events.

    Checked: sizes are positive and no larger than any device; segments of a device do not overlap; blocks tile their
    segment; a segment's recorded sums are those of its blocks; requested bytes fit their block. What only the order of
    events can show (frees of nothing, overlapping allocations) is :mod:`memscope.lifetimes`'s to find.

    Returns
    -------
    list
        Empty if nothing was found; at most the first ``MAX_LISTED`` of each kind, and one more entry that counts the
        rest of them.
    """
    found: list[Contradiction] = []
    for check in (_absurd_events, _absurd_segments, _overlapping_segments, _untiled_segments, _unfit_blocks):
        found += _capped(check(trace))
    n_totals = int(trace.metadata.extra.get("n_segment_total_mismatches", 0))
    return found + _capped(_totals(trace), n_all=n_totals)


def _capped(found: Iterable[Contradiction], n_all: int = 0) -> list[Contradiction]:
    """The first few, and how many more there are; ``n_all`` counts those too that ``found`` does not list."""
    listed: list[Contradiction] = []
    n_more = 0
    for contradiction in found:
        if len(listed) < MAX_LISTED:
            listed.append(contradiction)
        else:
            n_more += 1
    n_more = max(n_more, n_all - len(listed))
    if listed and n_more:
        listed.append(Contradiction(listed[0].device, None, None, f"and {format_count(n_more)} more of the same kind"))
    return listed


def _rows(mask: npt.NDArray[np.bool_]) -> Iterator[int]:
    return (int(row) for row in np.flatnonzero(mask))


def _absurd_events(trace: Trace) -> Iterator[Contradiction]:
    size = trace.size_bytes
    needs_size = (trace.action != Action.SNAPSHOT) & (trace.action != Action.ANNOTATE)
    absurd_size = (size < 0) | (size > MAX_DEVICE_BYTES) | (needs_size & (size == 0))
    absurd_address = (trace.address < 0) & (trace.action != Action.OOM)
    for event in _rows(absurd_size | absurd_address):
        device, address = int(trace.device[event]), int(trace.address[event])
        name = Action(int(trace.action[event])).name.lower()
        shown = trace.address_text(address) if address >= 0 else str(address)
        what = f"a size of {int(size[event])} bytes" if absurd_size[event] else f"the address {shown}"
        yield Contradiction(device, event, address, f"device {device}: event {event} ({name}) has {what}")


def _absurd_segments(trace: Trace) -> Iterator[Contradiction]:
    segments = trace.segments
    absurd = (segments.size_bytes <= 0) | (segments.size_bytes > MAX_DEVICE_BYTES) | (segments.address < 0)
    for row in _rows(absurd):
        size = int(segments.size_bytes[row])
        yield _at_segment(trace, row, f"has a size of {size} bytes")


def _at_segment(trace: Trace, row: int, text: str) -> Contradiction:
    device, address = int(trace.segments.device[row]), int(trace.segments.address[row])
    return Contradiction(device, None, address, f"device {device}: segment {trace.address_text(address)} {text}")


def _overlapping_segments(trace: Trace) -> Iterator[Contradiction]:
    segments = trace.segments
    for device in trace.devices:
        mine = np.flatnonzero(segments.device == device)
        mine = mine[np.argsort(segments.address[mine], kind="stable")]
        start, size = segments.address[mine], segments.size_bytes[mine]
        for i in _rows(start[1:] - start[:-1] < size[:-1]):
            other = int(start[i])
            inside = f"starts inside segment {trace.address_text(other)} of {int(size[i])} bytes"
            yield _at_segment(trace, int(mine[i + 1]), inside)


def _untiled_segments(trace: Trace) -> Iterator[Contradiction]:
    """Blocks must start where the segment does, follow one another without gap or overlap, and end with it."""
    if not trace.metadata.block_layout_recorded:
        return
    segments, blocks = trace.segments, trace.blocks
    first = np.searchsorted(blocks.segment_id, np.arange(len(segments) + 1))
    expected = np.empty(len(blocks) + 1, np.int64)
    expected[1:] = np.append(blocks.address, 0)[:-1] + blocks.size_bytes
    ends = expected[first[1:]].copy()
    starts = first[:-1][first[:-1] < first[1:]]
    has_blocks = first[:-1] < first[1:]
    expected[starts] = segments.address[has_blocks]
    for i in _rows(blocks.address != expected[:-1]):
        step = int(blocks.address[i]) - int(expected[i])
        address = int(blocks.address[i])
        what = f"leaves a gap of {step} bytes" if step > 0 else f"overlaps {-step} bytes"
        text = f"is not tiled: block {trace.address_text(address)} {what} before it"
        yield _at_segment(trace, int(blocks.segment_id[i]), text)
    for row in _rows(~has_blocks):
        yield _at_segment(trace, row, "has no blocks")
    wrong_end = has_blocks & (ends != segments.address + segments.size_bytes)
    for row in _rows(wrong_end):
        size = int(segments.size_bytes[row])
        covered = int(ends[row]) - int(segments.address[row])
        yield _at_segment(trace, row, f"of {size} bytes is not tiled: its blocks end after {covered}")


def _unfit_blocks(trace: Trace) -> Iterator[Contradiction]:
    blocks = trace.blocks
    size, requested = blocks.size_bytes, blocks.requested_bytes
    for i in _rows((size <= 0) | (size > MAX_DEVICE_BYTES) | (requested < 0) | (requested > size)):
        shown = trace.address_text(int(blocks.address[i]))
        text = f"block {shown} has {int(size[i])} bytes for a request of {int(requested[i])}"
        yield _at_segment(trace, int(blocks.segment_id[i]), f"holds a block that cannot be: {text}")


def _totals(trace: Trace) -> Iterator[Contradiction]:
    """Sums that torch wrote beside the blocks; the reader of snapshots keeps the ones that differ."""
    listed: list[dict[str, Any]] = trace.metadata.extra.get("segment_total_mismatches", [])
    for entry in listed:
        device, address = int(entry["device"]), int(entry["address"])
        what = f"records {entry['field']} {int(entry['recorded'])}, but its blocks sum to {int(entry['summed'])}"
        yield Contradiction(device, None, address, f"device {device}: segment {trace.address_text(address)} {what}")
