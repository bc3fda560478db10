"""A trace out of a recording's chunks: what its drains left in its folder, joined, with the notes where they belong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memscope.errors import InputFileError
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording._joining import join_traces
from memscope.trace.recording._placing import place_notes
from memscope.trace.recording.folder import Chunk, last_counted, read_chunks
from memscope.trace.recording.notes import COUNTED, RecordingNotes
from memscope.trace.recording.sampling import placed_samples, read_samples
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace


def read_unfinished(folder: str | Path) -> Trace:
    """Read what a recording that was cut off had drained.

    Raises
    ------
    InputFileError
        If the folder is not a recording's, nothing was drained, or a part of it cannot be read.
    """
    folder = Path(folder)
    chunks, metadata = read_chunks(folder)
    if not chunks:
        raise InputFileError(folder, "is a recording that was cut off before anything was drained")
    trace = assemble(chunks, metadata, read_samples(folder))
    drained = sum(sum(device) for device in chunks[-1].counts)
    n_after = max(last_counted(folder) - drained, 0)
    n_lost = trace.metadata.n_events_lost or 0
    words = f"at least {n_after:,} events" if n_after else "the events"
    note = f"The recording was cut off: {words} after its last drain are missing."
    changed = dataclasses.replace(
        trace.metadata,
        source_file=folder.name,
        n_events_lost=n_lost + n_after or None,
        notes=(*trace.metadata.notes, note),
    )
    return dataclasses.replace(trace, metadata=changed)


class _Stretch(NamedTuple):
    """Chunks between which nothing is missing, and the calls made before the first event of each device."""

    parts: list[Trace]
    first_calls: dict[int, int]


def assemble(chunks: Sequence[Chunk], metadata: TraceMetadata, samples: Mapping[str, Int64Array] | None) -> Trace:
    """Join chunks, count what is missing, and put marks, owners and samples where they belong.

    Where something is missing between two chunks, only the longest stretch without a gap is taken: what lay at an
    address on the other side of a gap cannot be known.
    """
    stretches, found, counted = _stretches(chunks)
    stretch = max(reversed(stretches), key=lambda stretch: sum(map(len, stretch.parts)))
    trace = join_traces(stretch.parts)
    kept = int(np.isin(trace.action, COUNTED).sum())
    n_lost = max(counted, found) - kept
    read = trace.metadata
    merged = dataclasses.replace(
        metadata,
        alloc_conf=read.alloc_conf if metadata.alloc_conf is None else metadata.alloc_conf,
        allocator_settings=read.allocator_settings,
        has_segment_events=read.has_segment_events,
        has_pool_ids=read.has_pool_ids,
        block_layout_recorded=read.block_layout_recorded,
        n_events_lost=n_lost,
        notes=(*metadata.notes, *read.notes, *_gap_notes(len(stretches), counted - found, found - kept)),
        extra={**read.extra, **metadata.extra},
    )
    trace = dataclasses.replace(trace, metadata=merged)
    if samples:
        trace = dataclasses.replace(trace, samples=placed_samples(samples, trace))
    return place_notes(trace, RecordingNotes.joined([chunk.notes for chunk in chunks]), stretch.first_calls)


def _stretches(chunks: Sequence[Chunk]) -> tuple[list[_Stretch], int, int]:
    """Stretches without a gap; all calls found in the chunks, and all that were counted."""
    stretches: list[_Stretch] = []
    n_found = 0
    end = np.zeros((len(chunks[0].counts), len(COUNTED)), np.int64)
    for chunk in chunks:
        part = read_snapshot(chunk.path)
        found = _calls_in(part, len(end))
        counts = np.array(chunk.counts, np.int64).reshape(end.shape)
        # A call that came while the snapshot was taken is in it and was not yet counted.
        begin, end = end, np.maximum(counts, end + found)
        if not stretches or (end - begin != found).any():
            stretches.append(_Stretch([], dict(enumerate((end - found).sum(axis=1).tolist()))))
        stretches[-1].parts.append(part)
        n_found += int(found.sum())
    return stretches, n_found, int(end.sum())


def _calls_in(part: Trace, n_devices: int) -> Int64Array:
    """Calls of each kind among a part's events: int64 (devices, kinds)."""
    found = np.zeros((n_devices, len(COUNTED)), np.int64)
    for column, action in enumerate(COUNTED):
        found[:, column] = np.bincount(part.device[part.action == action], minlength=n_devices)[:n_devices]
    return found


def _gap_notes(n_stretches: int, n_unrecorded: int, n_left_out: int) -> tuple[str, ...]:
    notes = []
    if n_unrecorded > 0:
        notes.append(
            f"{n_unrecorded:,} events are missing: they came faster than they were drained, or a drain failed."
        )
    if n_left_out > 0:
        notes.append(
            f"The trace is the longest of {n_stretches} stretches without a gap; "
            f"the other stretches' {n_left_out:,} events were left out."
        )
    return tuple(notes)
