"""A trace out of a recording's chunks: what its drains left in its folder, joined, with the notes where they belong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memscope.errors import InputFileError, UsageError
from memscope.trace import schema
from memscope.trace.builder import StackInterner, StringTable
from memscope.trace.container import read_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording._placing import place_notes
from memscope.trace.recording.folder import WHOLE_NAME, Chunk, is_being_made, last_counted, read_chunks, require_own
from memscope.trace.recording.notes import COUNTED, RecordingNotes
from memscope.trace.recording.sampling import placed_samples, read_samples
from memscope.trace.schema import NONE_ID
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.tables import (
    CacheLayerTable,
    CacheLengthTable,
    Int32Array,
    Int64Array,
    MarkTable,
    OwnerTable,
    SampleTable,
)
from memscope.trace.trace import Trace


def join_traces(parts: Sequence[Trace]) -> Trace:
    """Put traces of one process one after the other; the final segments and blocks, and the metadata, are the last's.

    Each device's events follow each other in the order of the parts. Positions in marks, samples and owners are moved
    along; an owner that a later part names by address (an allocation from before that part) is left out.

    Raises
    ------
    UsageError
        If there is no part.
    """
    if not parts:
        raise UsageError("there is nothing to join")
    ids = _Ids()
    columns = [ids.columns(part) for part in parts]
    places = _places(parts)
    events = {name: _scattered([c[name] for c in columns], places) for name in schema.EVENT_COLUMNS}
    last, of_last = parts[-1], ids.maps[-1]
    placed = [_Placed(*of_part) for of_part in zip(parts, places, ids.maps, strict=True)]
    return Trace(
        **events,
        segments=_replaced(last.segments, of_last),
        blocks=_replaced(last.blocks, of_last),
        stacks=ids.stacks.table(),
        strings=ids.strings.strings(),
        stream_handles=np.array(list(ids.streams), np.int64),
        pools=np.array(list(ids.pools), np.int64).reshape(-1, 2),
        metadata=last.metadata,
        samples=SampleTable.stacked([_at(of.part.samples, of.place) for of in placed]),
        marks=MarkTable.stacked([_marks(of, len(events["action"])) for of in placed]),
        owners=_sorted_owners(OwnerTable.stacked([_owners(of, is_first=of is placed[0]) for of in placed])),
        cache_layers=CacheLayerTable.stacked([_cache_layers(of) for of in placed]),
        cache_lengths=CacheLengthTable.stacked([_at(of.part.cache_lengths, of.place) for of in placed]),
    )


class _Placed(NamedTuple):
    """A part, where its events go, and what its ids become."""

    part: Trace
    place: Int64Array
    maps: dict[str, Int32Array]


def _marks(of: _Placed, n_events: int) -> MarkTable:
    marks = of.part.marks
    event = _moved(marks.event, of.place, n_events)
    return replace(marks, event=event, label_id=_mapped(marks.label_id, of.maps["label_id"]))


def _owners(of: _Placed, *, is_first: bool) -> OwnerTable:
    owners = of.part.owners
    moved = replace(
        owners,
        alloc_event=_moved(owners.alloc_event, of.place, place_end=0),
        label_id=_mapped(owners.label_id, of.maps["label_id"]),
        tensor_id=_mapped(owners.tensor_id, of.maps["label_id"]),
    )
    return moved if is_first else moved.take(owners.alloc_event != NONE_ID)


def _cache_layers(of: _Placed) -> CacheLayerTable:
    layers: CacheLayerTable = _at(of.part.cache_layers, of.place)
    return replace(layers, kind_id=_mapped(layers.kind_id, of.maps["label_id"]))


class _Ids:
    """Strings, frames, stacks, streams and pools of all parts, each once; ``maps`` leads from a part's ids to them."""

    def __init__(self) -> None:
        self.strings = StringTable()
        self.stacks = StackInterner(self.strings)
        self.streams: dict[int, int] = {}
        self.pools: dict[tuple[int, int], int] = {}
        self.maps: list[dict[str, Int32Array]] = []

    def columns(self, part: Trace) -> dict[str, np.ndarray[Any, Any]]:
        """A part's event columns in the ids of all."""
        frames = [
            self.stacks.frame(part.strings[name], part.strings[file], line)
            for name, file, line in zip(
                part.stacks.name_id.tolist(), part.stacks.filename_id.tolist(), part.stacks.line.tolist(), strict=True
            )
        ]
        maps = {
            "label_id": _int32([self.strings.intern(text) for text in part.strings]),
            "stack_id": _int32(
                [
                    self.stacks.stack([frames[f] for f in part.stacks.frames_of(stack).tolist()])
                    for stack in range(len(part.stacks))
                ]
            ),
            "stream_id": _int32(
                [self.streams.setdefault(handle, len(self.streams)) for handle in part.stream_handles.tolist()]
            ),
            "pool_id": _int32(
                [self.pools.setdefault((a, b), len(self.pools)) for a, b in part.pools.tolist()],
            ),
        }
        self.maps.append(maps)
        return {
            name: _mapped(getattr(part, name), maps[name]) if name in maps else getattr(part, name)
            for name in schema.EVENT_COLUMNS
        }


def _places(parts: Sequence[Trace]) -> list[Int64Array]:
    """Where each part's events go: int64 (n_i,) positions in the joined trace, device by device."""
    devices = sorted({int(device) for part in parts for device in np.unique(part.device)})
    places = [np.empty(len(part), np.int64) for part in parts]
    n = 0
    for device in devices:
        for part, place in zip(parts, places, strict=True):
            here = np.flatnonzero(part.device == device)
            place[here] = n + np.arange(len(here))
            n += len(here)
    return places


def _scattered(columns: Sequence[np.ndarray[Any, Any]], places: Sequence[Int64Array]) -> np.ndarray[Any, Any]:
    joined = np.empty(sum(map(len, columns)), columns[0].dtype)
    for column, place in zip(columns, places, strict=True):
        joined[place] = column
    return joined


def _moved(position: Int64Array, place: Int64Array, place_end: int) -> Int64Array:
    """Positions of a part in the joined trace; −1 stays, and one past the part's end becomes ``place_end``."""
    moved = np.full(len(position), NONE_ID, np.int64)
    inside = (position >= 0) & (position < len(place))
    moved[inside] = place[position[inside]]
    after = position >= len(place)
    moved[after] = place.max() + 1 if len(place) else place_end
    return moved


def _mapped(ids: np.ndarray[Any, Any], new: Int32Array) -> Int32Array:
    found = np.full(len(ids), NONE_ID, np.int32)
    known = ids != NONE_ID
    found[known] = new[ids[known]]
    return found


def _replaced(table: Any, maps: dict[str, Int32Array]) -> Any:
    """A table of segments or blocks in the ids of all."""
    changes = {name: _mapped(getattr(table, name), new) for name, new in maps.items() if hasattr(table, name)}
    return replace(table, **changes)


def _at(table: Any, place: Int64Array) -> Any:
    """A table whose rows stand at events, in the positions of all."""
    return replace(table, event=_moved(table.event, place, 0))


def _sorted_owners(owners: OwnerTable) -> OwnerTable:
    return owners.take(np.lexsort((owners.address, owners.device, owners.alloc_event)))


def _int32(values: Sequence[int]) -> Int32Array:
    return np.array(values, np.int32)


def read_unfinished(folder: str | Path) -> Trace:
    """Read what a recording that was cut off had drained.

    Raises
    ------
    InputFileError
        If the folder is not a recording's, nothing was drained, or a part of it cannot be read.
    """
    folder = Path(folder)
    try:
        return _read_unfinished(folder)
    except InputFileError:
        # One that is being made writes chunks anew: one may have gone while it was read.
        if not is_being_made(folder):
            raise
    return _read_unfinished(folder)


def _read_unfinished(folder: Path) -> Trace:
    if (folder / WHOLE_NAME).exists():
        return _read_whole(folder)
    chunks, metadata = read_chunks(folder)
    if not chunks:
        raise InputFileError(folder, "is a recording that was cut off before anything was drained")
    trace = assemble(chunks, metadata, read_samples(folder))
    drained = sum(sum(device) for device in chunks[-1].counts)
    return _cut_off(trace, folder, max(last_counted(folder) - drained, 0))


def _read_whole(folder: Path) -> Trace:
    """What a dry run that was cut off had kept."""
    try:
        require_own(folder / WHOLE_NAME)
    except ValueError as error:
        raise InputFileError(folder, f"is not a readable recording folder: {error}") from error
    trace = read_container(folder / WHOLE_NAME)
    return _cut_off(trace, folder, max(last_counted(folder) - len(trace), 0))


def _cut_off(trace: Trace, folder: Path, n_after: int) -> Trace:
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
        address_bases=read.address_bases,
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
