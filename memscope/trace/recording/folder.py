"""A recording that is being made, or that was cut off: a folder of chunks beside the file it will become.

The folder is called like the file with ``.part`` added. It holds ``recording.json`` (the process, and what does not
change: devices, versions) and, for each drain, ``chunk-N.pickle`` (a torch snapshot: the events since the drain before,
the segments then) and ``chunk-N.json`` (how many allocator calls each device had counted by then, and what was noted).
A chunk's pickle is put in place last, so that a chunk that is there is whole. ``samples.npy`` has the device's own
count until the last drain, ``calls.bin`` the calls that were counted last, a moment before the end at most.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memscope.errors import InputFileError
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.joining import join_traces
from memscope.trace.recording.notes import COUNTED, RecordingNotes, place_log
from memscope.trace.recording.sampling import placed_samples, read_samples
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace

SUFFIX = ".part"
RECORDING_NAME = "recording.json"
CALLS_NAME = "calls.bin"
Counts = tuple[tuple[int, int, int], ...]
"""For each device: allocs, free requests and free completions since the recording began."""


class Chunk(NamedTuple):
    """One drain: where its snapshot lies, what was counted until then, what was noted since the drain before."""

    path: Path
    counts: Counts
    log: RecordingNotes


def part_of(path: str | Path) -> Path:
    """The folder in which a recording of that name is made."""
    path = Path(path)
    return path.with_name(path.name + SUFFIX)


def chunk_path(folder: Path, number: int) -> Path:
    """Where a chunk's snapshot lies."""
    return folder / f"chunk-{number:06d}.pickle"


def write_recording(folder: Path, pid: int, metadata: TraceMetadata) -> None:
    """Write ``recording.json``, whole or not at all."""
    partial = folder / (RECORDING_NAME + ".partial")
    partial.write_text(json.dumps({"pid": pid, "metadata": metadata.to_json()}), encoding="utf-8")
    partial.replace(folder / RECORDING_NAME)


def write_notes(path: Path, counts: Counts, log: RecordingNotes) -> None:
    """Write what belongs to a chunk's snapshot, before that is put in place."""
    record = {"counts": [list(device) for device in counts], **log.to_json()}
    path.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")


def is_unfinished(path: str | Path) -> bool:
    """Whether a path is a recording's folder."""
    return (Path(path) / RECORDING_NAME).is_file()


def is_being_made(folder: str | Path) -> bool:
    """Whether the process that writes a folder is alive."""
    try:
        pid = int(json.loads((Path(folder) / RECORDING_NAME).read_text(encoding="utf-8"))["pid"])
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def cut_off_message(path: str | Path) -> str | None:
    """What to say before a recording is written to a path at which an earlier one was cut off; None if none was."""
    folder = part_of(path)
    if not is_unfinished(folder) or is_being_made(folder):
        return None
    return f"an earlier recording was cut off; what it had drained is kept with: memscope import {folder}"


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
    n_after = max(_last_counted(folder) - drained, 0)
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


def read_chunks(folder: Path) -> tuple[list[Chunk], TraceMetadata]:
    """The chunks of a recording's folder, in order, and what does not change.

    Raises
    ------
    InputFileError
        If they cannot be read.
    """
    try:
        record = json.loads((folder / RECORDING_NAME).read_text(encoding="utf-8"))
        metadata = TraceMetadata.from_json(record["metadata"])
        return [_read_notes(path) for path in sorted(folder.glob("chunk-*.pickle"))], metadata
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputFileError(folder, f"is not a readable recording folder: {error}") from error


def _read_notes(path: Path) -> Chunk:
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    counts = tuple((int(a), int(b), int(c)) for a, b, c in record["counts"])
    return Chunk(path, counts, RecordingNotes.from_json(record))


def _last_counted(folder: Path) -> int:
    """All calls that were counted last; 0 where that was not written."""
    try:
        return int(np.frombuffer((folder / CALLS_NAME).read_bytes(), "<i8").sum())
    except (OSError, ValueError):
        return 0


class _Run(NamedTuple):
    """Chunks between which nothing is missing, and the calls made before the first event of each device."""

    parts: list[Trace]
    first_calls: dict[int, int]


def assemble(chunks: Sequence[Chunk], metadata: TraceMetadata, samples: Mapping[str, Int64Array] | None) -> Trace:
    """Join chunks, count what is missing, and put marks, owners and samples where they belong.

    Where something is missing between two chunks, only the longest stretch without a gap is taken: what lay at an
    address on the other side of a gap cannot be known.
    """
    runs, found, counted = _runs(chunks)
    run = max(reversed(runs), key=lambda run: sum(map(len, run.parts)))
    trace = join_traces(run.parts)
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
        notes=(*metadata.notes, *read.notes, *_gap_notes(len(runs), counted - found, found - kept)),
        extra={**read.extra, **metadata.extra},
    )
    trace = dataclasses.replace(trace, metadata=merged)
    if samples:
        trace = dataclasses.replace(trace, samples=placed_samples(samples, trace))
    return place_log(trace, RecordingNotes.joined([chunk.log for chunk in chunks]), run.first_calls)


def _runs(chunks: Sequence[Chunk]) -> tuple[list[_Run], int, int]:
    """Stretches without a gap; all calls found in the chunks, and all that were counted."""
    runs: list[_Run] = []
    n_found = 0
    end = np.zeros((len(chunks[0].counts), len(COUNTED)), np.int64)
    for chunk in chunks:
        part = read_snapshot(chunk.path)
        found = _calls_in(part, len(end))
        counts = np.array(chunk.counts, np.int64).reshape(end.shape)
        # A call that came while the snapshot was taken is in it and was not yet counted.
        begin, end = end, np.maximum(counts, end + found)
        if not runs or (end - begin != found).any():
            runs.append(_Run([], dict(enumerate((end - found).sum(axis=1).tolist()))))
        runs[-1].parts.append(part)
        n_found += int(found.sum())
    return runs, n_found, int(end.sum())


def _calls_in(part: Trace, n_devices: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Calls of each kind among a part's events: int64 (devices, kinds)."""
    found = np.zeros((n_devices, len(COUNTED)), np.int64)
    for column, action in enumerate(COUNTED):
        found[:, column] = np.bincount(part.device[part.action == action], minlength=n_devices)[:n_devices]
    return found


def _gap_notes(n_runs: int, n_unrecorded: int, n_left_out: int) -> tuple[str, ...]:
    notes = []
    if n_unrecorded > 0:
        notes.append(
            f"{n_unrecorded:,} events are missing: they came faster than they were drained, or a drain failed."
        )
    if n_left_out > 0:
        notes.append(
            f"The trace is the longest of {n_runs} stretches without a gap; "
            f"the other stretches' {n_left_out:,} events were left out."
        )
    return tuple(notes)
