"""A part of a trace read from its file: of a pickled snapshot in the memory that the part needs.

Nine tenths and more of what a snapshot takes are its events. Where a part of them is wanted, and nothing needs all of
them at once (:mod:`memscope.trace.snapshot.part` says what does), the others are only passed over, and what is in use
before the part is followed as they go by. Everything else is read whole, and cut. Both give the same slice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from memscope.analysis import Analysis, load
from memscope.attribution.rule import Rule
from memscope.attribution.rule_file import rules_with
from memscope.compare.moments import StepPair, parse_steps
from memscope.errors import UsageError
from memscope.export._used import only_used
from memscope.export.slices import (
    Part,
    cut,
    events_within,
    joined,
    metadata_of_slice,
    part_of_events,
    part_of_steps,
    slice_trace,
)
from memscope.lifetimes.rules import rules_of
from memscope.lifetimes.segments import SegmentTimeline, segment_timeline
from memscope.lifetimes.state import tile_segments
from memscope.trace.open import is_container, split_part
from memscope.trace.recording.folder import is_unfinished
from memscope.trace.schema import BlockState
from memscope.trace.snapshot.part import InUse, Outline, ReadPart, Wanted, read_outline, read_part
from memscope.trace.tables import BlockTable, Int32Array, Int64Array, SegmentTable
from memscope.trace.trace import Trace
from memscope.trace.validate import contradictions

_EVENTS = re.compile(r"(\d{1,18}):(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """What is wanted of a trace, both ends included: steps by their names, or events by their positions."""

    steps: StepPair | None = None
    events: tuple[int, int] | None = None


def parse_span(steps: str | None, events: str | None) -> Span | None:
    """Read ``--steps I:J`` or ``--events A:B``; None where neither is given.

    Raises
    ------
    UsageError
        If both are given, or one is no range.
    """
    if steps is not None and events is not None:
        raise UsageError("give --steps 3:5 or --events 1000:2000, one of them")
    if steps is not None:
        return Span(steps=parse_steps(steps))
    if events is None:
        return None
    match = _EVENTS.fullmatch(events.strip())
    if match is None:
        raise UsageError(f"{events!r} is no range of events: write 1000:2000")
    return Span(events=(int(match[1]), int(match[2])))


def parts_of(analysis: Analysis, span: Span) -> list[Part]:
    """Where a span lies in a trace, by device.

    Raises
    ------
    UsageError
        If the trace does not have it, or its steps cannot be told.
    ContradictionError
        If the trace contradicts itself.
    """
    analysis.require_consistent()
    if span.steps is not None:
        return part_of_steps(analysis, *span.steps)
    assert span.events is not None
    return part_of_events(analysis, *span.events)


def load_span(path: str | Path, span: Span, rules: str | Path | Sequence[Rule] | None = None) -> Analysis:
    """Open a part of a trace, as a trace of its own: what :func:`~memscope.export.slices.slice_trace` gives.

    Steps are found in the whole trace, which is read first; so is every trace but a pickled snapshot.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    UsageError
        If the trace does not have that part.
    TrustError
        If its segments were not recorded, so that no state can be simulated.
    """
    path = Path(path)
    found = None if span.events is None else read_events(path, *span.events)
    if found is not None:
        in_force = rules_with(rules) if rules is None or isinstance(rules, str | Path) else rules
        return Analysis(found, path, rules=in_force)
    whole = load(path, rules=rules)
    return Analysis(cut_out(whole, parts_of(whole, span)), path, rules=whole.rules)


def cut_out(analysis: Analysis, parts: list[Part]) -> Trace:
    """The slice of some parts, with the stacks and texts that it names and no others.

    Raises
    ------
    TrustError
        If the trace's segments were not recorded, so that no state can be simulated.
    """
    return only_used(slice_trace(analysis, parts))


def read_events(path: Path, first: int, last: int) -> Trace | None:
    """The slice from an event of a pickled snapshot to another, in the memory that it needs; None where all is needed.

    Raises
    ------
    UsageError
        If there are no such events.
    """
    file, part = split_part(path)
    if is_unfinished(file) or not file.is_file() or is_container(file):
        return None
    outline = read_outline(file, part)
    if outline is None or not _is_told_by_its_outline(outline):
        return None
    begins = np.cumsum([0, *outline.n_events]).tolist()
    events_within(path.name, begins[-1], first, last)
    if (first, last) == (0, begins[-1] - 1):
        return None
    parts = [
        Part(device, max(first, begins[device]), min(last + 1, begins[device + 1]))
        for device in range(len(outline.n_events))
    ]
    parts = [part for part in parts if part.begin < part.end]
    timelines = {part.device: segment_timeline(outline.trace, part.device) for part in parts}
    if any(timeline.n_misfits or not _ends_as_recorded(outline.trace, timeline) for timeline in timelines.values()):
        return None
    wanted = {part.device: _wanted(outline, part, begins[part.device], timelines[part.device]) for part in parts}
    read = read_part(outline, wanted)
    return None if read is None else _slice_of(outline, read, parts, begins, timelines)


def _is_told_by_its_outline(outline: Outline) -> bool:
    """Whether the state at its end is sound, has no private pools, and holds all that is in use after the events."""
    trace = outline.trace
    if contradictions(trace) or trace.segments.pool_id.any():
        return False
    return all(_holds(_active(trace, device), in_use) for device, in_use in enumerate(outline.in_use))


def _holds(blocks: BlockTable, in_use: InUse) -> bool:
    """Whether each allocation has its block, which says the same of it."""
    order = np.argsort(blocks.address, kind="stable")
    at = np.searchsorted(blocks.address[order], in_use.address)
    if (at >= len(order)).any():
        return False
    mine = blocks.take(order[at])
    is_pending = mine.state == BlockState.ACTIVE_PENDING_FREE
    return (
        np.array_equal(mine.address, in_use.address)
        and np.array_equal(mine.requested_bytes, in_use.requested_bytes)
        and np.array_equal(is_pending, in_use.is_pending)
    )


def _ends_as_recorded(trace: Trace, timeline: SegmentTimeline) -> bool:
    """Whether the segments that the events lead to are those that the snapshot has."""
    _, end = trace.event_range(timeline.device)
    derived, recorded = timeline.segments_at(end - 1), trace.segments.take(trace.segments.device == timeline.device)
    names = ("address", "size_bytes", "stream_id", "is_large", "is_expandable")
    return all(np.array_equal(getattr(derived, name), getattr(recorded, name)) for name in names)


def _active(trace: Trace, device: int) -> BlockTable:
    """The blocks of a device that are in use, or whose free is pending, at the end of a trace."""
    is_active = trace.blocks.state != BlockState.INACTIVE
    return trace.blocks.take(is_active & (trace.segments.device[trace.blocks.segment_id] == device))


def _lasting(trace: Trace, outline: Outline, device: int) -> BlockTable:
    """The blocks that were in use before the first event and still are after the last."""
    active = _active(trace, device)
    return active.take(~np.isin(active.address, outline.in_use[device].address))


def _wanted(outline: Outline, part: Part, begin: int, timeline: SegmentTimeline) -> Wanted:
    lasting, rules = _lasting(outline.trace, outline, part.device), rules_of(outline.trace.metadata)
    return Wanted(
        begin=part.begin - begin,
        end=part.end - begin,
        start_ranges=timeline.start_ranges,
        segment_event_keys=timeline.key,
        address=lasting.address,
        block_bytes=lasting.size_bytes,
        roundup_divisions=rules.roundup_divisions,
        max_split_bytes=rules.max_split_bytes,
        is_expandable=rules.is_expandable,
    )


def _slice_of(
    outline: Outline, read: ReadPart, parts: list[Part], begins: list[int], timelines: dict[int, SegmentTimeline]
) -> Trace:
    """The slice of what was read: parts of the whole trace become parts of the one that has little else."""
    trace, stream_ids = _with_streams(read.trace, outline.trace.stream_handles)
    states, local = [], []
    for part in parts:
        begin, places = begins[part.device], read.places[part.device]
        first, _ = trace.event_range(part.device)
        at = first + int(np.searchsorted(places, part.begin - begin))
        local.append(Part(part.device, at, at + part.end - part.begin))
        n_before = int(np.searchsorted(outline.places[part.device], part.end - begin))
        first_of_outline, _ = outline.trace.event_range(part.device)
        segments = timelines[part.device].segments_at(first_of_outline + n_before - 1)
        segments = SegmentTable.from_columns(segments.columns() | {"stream_id": stream_ids[segments.stream_id]})
        lasting = _lasting(trace, outline, part.device)
        states.append((segments, _blocks(segments, read.in_use[part.device], lasting)))
    found = cut(trace, local, joined(states))
    metadata = replace(trace.metadata, has_segment_events=outline.trace.metadata.has_segment_events)
    return only_used(replace(found, metadata=metadata_of_slice(metadata, parts)))


def _with_streams(trace: Trace, handles: Int64Array) -> tuple[Trace, Int32Array]:
    """A trace that knows further streams, too, and the id that each of these has in it: int32."""
    known = {handle: i for i, handle in enumerate(trace.stream_handles.tolist())}
    ids = np.array([known.setdefault(handle, len(known)) for handle in handles.tolist()], np.int32)
    return replace(trace, stream_handles=np.array(list(known), np.int64)), ids


def _blocks(segments: SegmentTable, in_use: InUse, lasting: BlockTable) -> BlockTable:
    """The blocks that tile segments, of what was allocated among the events and what lasts through all of them."""
    address = np.concatenate([in_use.address, lasting.address])
    order = np.argsort(address, kind="stable")
    pending = np.concatenate([in_use.is_pending, lasting.state == BlockState.ACTIVE_PENDING_FREE])
    states = np.where(pending, BlockState.ACTIVE_PENDING_FREE, BlockState.ACTIVE_ALLOCATED).astype(np.int8)
    blocks, _, _ = tile_segments(
        segments,
        address[order],
        np.concatenate([in_use.block_bytes, lasting.size_bytes])[order],
        np.concatenate([in_use.requested_bytes, lasting.requested_bytes])[order],
        states[order],
        np.concatenate([in_use.stack_id, lasting.stack_id])[order],
        np.arange(len(address), dtype=np.int64),
    )
    return blocks
