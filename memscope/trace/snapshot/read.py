"""Reading torch's CUDA memory snapshots (``torch.cuda.memory._dump_snapshot``), safely: 2.0 to 2.15, any protocol.

A snapshot is a pickle, and a pickle can run code. This reader has no way to: the file is turned into a tape of plain
values (``core/snapshot``) and the columns are taken from there.

The layout is written by ``torch/csrc/cuda/Module.cpp`` (``THCPModule_memorySnapshot``) and ``torch/cuda/memory.py``,
and read by ``torch/cuda/_memory_viz.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memscope.errors import InputFileError, SeveralSnapshotsError
from memscope.trace.metadata import CONF_VARIABLES, SNAPSHOT_SOURCE, AddressBases, TraceMetadata, check_settings
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.snapshot._addresses import rebase_addresses
from memscope.trace.snapshot._byte_source import Content, content_of, open_source
from memscope.trace.snapshot._events import SnapshotEvents, SnapshotMarks, read_events, read_marks
from memscope.trace.snapshot._keys import FRAME_KEYS, KNOWN_TEXTS, TEXT_ID, Keys, tie_rule, torch_version
from memscope.trace.snapshot._other_kinds import torch_save_archive
from memscope.trace.snapshot._parts import ChosenSnapshot, choose_snapshot
from memscope.trace.snapshot._pickle_reader import Int32Array, Int64Array, Tape, dense_ids, fill_from_json, fill_tape
from memscope.trace.snapshot._rmm_log import read_rmm_log
from memscope.trace.snapshot._state import SnapshotState, read_state
from memscope.trace.snapshot._tape_rows import TapeRows
from memscope.trace.tables import BlockTable, MarkTable, SegmentTable, StackTable
from memscope.trace.trace import Trace
from memscope.trace.zip_members import choose_member, is_of_torch_save

_INT32 = np.iinfo(np.int32)


class TextTable:
    """The texts that a trace uses, out of the many of a tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._used = np.zeros(tape.n_texts, np.bool_)

    def use(self, text_ids: Int64Array) -> None:
        """Keep these texts; −1 is none."""
        self._used[text_ids[text_ids >= 0]] = True

    def finish(self) -> tuple[tuple[str, ...], Int32Array]:
        """The texts kept, and the trace's string id of each text id of the tape (−1 for one not kept)."""
        kept = np.flatnonzero(self._used)
        ids = np.full(len(self._used) + 1, NONE_ID, np.int32)
        ids[kept] = np.arange(len(kept))
        return tuple(self._tape.text(int(text_id)) for text_id in kept), ids


class StackReader:
    """Numbers the lists of frames of a snapshot.

    A million events share a few thousand stacks: lists are told apart by identity first (one row for each list of the
    pickle), then by content.
    """

    def __init__(self, tape: Tape, columns: list[Int64Array]) -> None:
        """``columns`` are values of ``frames`` keys."""
        lists, bad = tape.sequences_in(columns)
        if bad >= 0:
            raise InputFileError(tape.path, "a 'frames' in it is not a list")
        frames, bad = tape.boxes_in(lists)
        if bad >= 0:
            raise InputFileError(tape.path, "a 'frames' in it holds something that is not a frame")
        rows = TapeRows(tape, frames, FRAME_KEYS, TEXT_ID, lambda _: "a frame of a stack")
        for key in ("name", "filename"):
            rows.require(key)
        name, filename = rows.text_ids("name"), rows.text_ids("filename")
        line = np.clip(rows.integers("line", missing=0, wrap=True), _INT32.min, _INT32.max)
        frame_ids, first = dense_ids(name, filename, line)
        self._stacks = tape.number_stacks(lists, frames, frame_ids)
        self._name, self._filename = name[first], filename[first]
        self._line = line[first].astype(np.int32)

    def ids(self, values: Int64Array) -> Int32Array:
        """Stack ids of ``frames`` values, −1 where there is none or an empty one."""
        return self._stacks.ids(values)

    def use_texts(self, texts: TextTable) -> None:
        """Keep the frames' texts."""
        texts.use(self._name)
        texts.use(self._filename)

    def table(self, string_ids: Int32Array) -> StackTable:
        """The stacks, with texts renumbered to the trace's strings."""
        return StackTable(
            offsets=self._stacks.offsets(),
            frame_ids=self._stacks.frame_ids(),
            name_id=string_ids[self._name],
            filename_id=string_ids[self._filename],
            line=self._line,
        )


_HIP_SETTING = re.compile(r"HIP|hip_host|hipmalloc")
_HIP_FRAME = re.compile(r"lib(?:torch_hip|c10_hip|amdhip64|hiprtc)\.so|\bc10::hip::|\bHIPCachingAllocator\b")
_ROCM_NOTE = (
    "A ROCm build of PyTorch recorded this: its allocator is the same code, but replays were checked against CUDA "
    "builds only."
)
_MAX_SETTINGS = 1 << 16
"""Entries of all tables of ``allocator_settings``; torch writes a few dozen."""


def read_snapshot(path: str | Path, part: str | None = None) -> Trace:
    """Read a torch memory snapshot into a trace.

    Takes the dictionary of ``_dump_snapshot()`` or the bare list of ``torch.cuda.memory_snapshot()``, as a pickle or as
    JSON, plain, packed or in a zip archive, or inside the HTML page that ``_memory_viz.py trace_plot`` writes. A
    recording that contradicts itself is read as it is; :func:`memscope.trace.validate.contradictions` tells.

    Parameters
    ----------
    part
        Which of several snapshots to read: a member of an archive, a key or a position of a dict or list of them.

    Raises
    ------
    InputFileError
        If the file is not a snapshot, is damaged, or lacks something that every snapshot has; the message says where.
    SeveralSnapshotsError
        If it holds several, and none of them was named.
    UnsafePickleError
        If it asks for code to be run, or for memory beyond its size. Nothing of it is executed, ever.
    """
    path = Path(path)
    member, part = choose_member(path, part)
    try:
        found = _find(path, member, part)
    except SeveralSnapshotsError:
        raise
    except InputFileError:
        if member is None or not is_of_torch_save(member):
            raise
        raise torch_save_archive(path) from None
    return found if isinstance(found, Trace) else trace_of(found)[0]


class FoundSnapshot(NamedTuple):
    """A snapshot on its tape, and what is to be known of where it was found."""

    tape: Tape
    snapshot: ChosenSnapshot
    notes: tuple[str, ...]


def _find(path: Path, member: str | None, part: str | None) -> FoundSnapshot | Trace:
    """The snapshot that a file holds, not looked into yet; a log is read at once."""
    with open_source(path, member) as source:
        content = content_of(source.peek())
        if content is Content.RMM_LOG:
            return read_rmm_log(path, source)
        fill = fill_from_json if content is Content.JSON else fill_tape
        tape = fill(path, source, KNOWN_TEXTS)
        return FoundSnapshot(tape, choose_snapshot(tape, part), source.notes)


def trace_of(
    found: FoundSnapshot, *, event_keys: Keys | None = None, more_frames: Int64Array | None = None
) -> tuple[Trace, Int32Array]:
    """The trace of a snapshot on its tape, and the stack ids of further values of ``frames`` keys.

    Parameters
    ----------
    event_keys
        Where only some of the events are on the tape: the keys that any of them has.

    Raises
    ------
    InputFileError
        If it lacks something that every snapshot has; the message says where.
    """
    tape, top = found.tape, found.snapshot.top
    for key in ("segments", "device_traces", "external_annotations"):
        if key in top and not tape.is_sequence(top[key]):
            raise InputFileError(tape.path, f"{key!r} is not a list")
    events = read_events(tape, top.get("device_traces"), is_in_order=event_keys is not None)
    events = events if event_keys is None else replace(events, keys=event_keys)
    state = read_state(tape, top.get("segments"))
    events, state, bases = rebase_addresses(tape.path, events, state)
    marks = read_marks(tape, top.get("external_annotations"), events)
    more = np.empty(0, np.int64) if more_frames is None else more_frames
    stacks = StackReader(tape, [events.frames, state.segments.frames, state.blocks.frames, more])
    trace = _trace(tape, top, events, state, marks, bases, stacks)
    metadata = replace(trace.metadata, rank=found.snapshot.rank, notes=(*found.notes, *trace.metadata.notes))
    return replace(trace, metadata=metadata), stacks.ids(more)


@dataclass(frozen=True)
class _Shared:
    """Ids that events and segments share, dense and of the trace."""

    event_stream: Int32Array
    segment_stream: Int32Array
    stream_handles: Int64Array
    event_pool: Int32Array
    segment_pool: Int32Array
    pools: Int64Array


def _shared(events: SnapshotEvents, state: SnapshotState) -> _Shared:
    n = len(events.action)
    streams = np.concatenate((events.stream, state.segments.stream))
    # The default stream and the default pool come first, as their ids are known to everybody.
    lead = [0] if (streams == 0).any() or not len(streams) else []
    stream_ids, first_stream = dense_ids(np.concatenate((np.array(lead, np.int64), streams)))
    handles = np.concatenate((np.array(lead, np.int64), streams))[first_stream]
    pairs = [np.concatenate(([0], events.pool[i], state.segments.pool[i])) for i in (0, 1)]
    pool_ids, first_pool = dense_ids(*pairs)
    event_pool = np.where(events.pool[2], pool_ids[1 : n + 1], np.int32(NONE_ID))
    return _Shared(
        event_stream=stream_ids[len(lead) :][:n],
        segment_stream=stream_ids[len(lead) :][n:],
        stream_handles=handles,
        event_pool=event_pool,
        segment_pool=pool_ids[n + 1 :],
        pools=np.column_stack([pair[first_pool] for pair in pairs]),
    )


def _trace(
    tape: Tape,
    top: dict[str, int],
    events: SnapshotEvents,
    state: SnapshotState,
    marks: SnapshotMarks,
    bases: AddressBases,
    stacks: StackReader,
) -> Trace:
    segments, blocks = state.segments, state.blocks
    texts = TextTable(tape)
    stacks.use_texts(texts)
    texts.use(events.label)
    texts.use(marks.label)
    strings, string_ids = texts.finish()
    shared = _shared(events, state)
    return Trace(
        time_ns=events.time_ns,
        action=events.action,
        device=events.device,
        address=events.address,
        size_bytes=events.size_bytes,
        stream_id=shared.event_stream,
        pool_id=shared.event_pool,
        stack_id=stacks.ids(events.frames),
        label_id=string_ids[events.label],
        segments=SegmentTable(
            device=segments.device.astype(np.int16),
            address=segments.address,
            size_bytes=segments.size_bytes,
            stream_id=shared.segment_stream,
            pool_id=shared.segment_pool,
            is_large=segments.is_large,
            is_expandable=segments.is_expandable,
            stack_id=stacks.ids(segments.frames),
        ),
        blocks=BlockTable(
            segment_id=blocks.segment_id,
            address=blocks.address,
            size_bytes=blocks.size_bytes,
            requested_bytes=blocks.requested_bytes,
            state=blocks.state,
            stack_id=stacks.ids(blocks.frames),
        ),
        stacks=stacks.table(string_ids),
        strings=strings,
        stream_handles=shared.stream_handles,
        pools=shared.pools,
        metadata=_noting_rocm(replace(_metadata(tape, top, events, state, marks), address_bases=bases), strings),
        samples=events.samples(),
        marks=MarkTable(event=marks.event, time_ns=marks.time_ns, kind=marks.kind, label_id=string_ids[marks.label]),
    )


def _metadata(
    tape: Tape, top: dict[str, int], events: SnapshotEvents, state: SnapshotState, marks: SnapshotMarks
) -> TraceMetadata:
    settings = _settings(tape, top.get("allocator_settings"))
    confs = [settings[name] for name in CONF_VARIABLES if name in settings] if settings else []
    evidence = (
        frozenset(top),
        events.keys,
        None if settings is None else frozenset(settings),
        state.segments.keys,
    )
    extra: dict[str, Any] = {}
    if state.n_total_mismatches:
        extra["segment_total_mismatches"] = list(state.total_mismatches)
        extra["n_segment_total_mismatches"] = state.n_total_mismatches
    return TraceMetadata(
        source=SNAPSHOT_SOURCE,
        source_file=tape.path.name,
        torch_version=torch_version(*evidence),
        tie_rule=tie_rule(*evidence),
        alloc_conf=confs[0] if confs else None,
        allocator_settings=settings or {},
        has_segment_events=not _skipped_segment_events(events, state),
        has_pool_ids="pool_id" in events.keys,
        block_layout_recorded="segments" in top,
        notes=_notes(tape, top) + events.notes + marks.notes,
        extra=extra,
    )


def _noting_rocm(metadata: TraceMetadata, strings: tuple[str, ...]) -> TraceMetadata:
    """Say that a ROCm build wrote the snapshot, where the names of its settings or of libraries in its stacks do."""
    names = list(metadata.allocator_settings)
    if not any(_HIP_SETTING.search(name) for name in names) and not any(_HIP_FRAME.search(text) for text in strings):
        return metadata
    return replace(metadata, notes=(*metadata.notes, _ROCM_NOTE), extra={**metadata.extra, "rocm": True})


def _settings(tape: Tape, value: int | None) -> dict[str, Any] | None:
    """``allocator_settings`` as plain values: scalars, and tables of scalars; None where it is not there.

    An integer beyond int64 means "no limit" and becomes −1: builds before 2.3 wrote ``max_split_size`` as 2⁶⁴−1.
    """
    if value is None:
        return None
    if not tape.is_dict(value):
        raise InputFileError(tape.path, "'allocator_settings' is not a dict")
    settings: dict[str, Any] = {}
    left = _MAX_SETTINGS
    for key, item in tape.mapping(value, limit=left).items():
        if tape.is_dict(item):
            settings[key] = {k: _plain(tape, v) for k, v in tape.mapping(item, limit=left).items()}
            left -= len(settings[key])
        elif not tape.is_sequence(item):
            settings[key] = _plain(tape, item)
    try:
        check_settings(settings)
    except ValueError as error:
        raise InputFileError(tape.path, str(error)) from error
    return settings


def _plain(tape: Tape, value: int) -> Any:
    scalar = tape.scalar(value)
    return -1 if tape.is_integer(value) and (scalar is None or scalar >= 1 << 63) else scalar


def _notes(tape: Tape, top: dict[str, int]) -> tuple[str, ...]:
    notes = []
    if "device_traces" not in top:
        notes.append("The snapshot has no events, only the segments and blocks at its moment.")
    if "segments" not in top:
        notes.append("The snapshot has no segments and blocks, only events.")
    for key, what in (("host_segments", "segments"), ("host_traces", "events")):
        if key in top and tape.is_sequence(top[key]) and (n := len(tape.sequence(top[key]))):
            notes.append(f"{n:,} pinned host memory {what} in the snapshot were not read: they are not device memory.")
    return tuple(notes)


def _skipped_segment_events(events: SnapshotEvents, state: SnapshotState) -> bool:
    """Whether segment events were plainly not recorded: there is none, and allocs lie outside the final segments."""
    is_segment_event = (events.action >= Action.SEGMENT_ALLOC) & (events.action <= Action.SEGMENT_UNMAP)
    allocs = events.action == Action.ALLOC
    if is_segment_event.any() or not allocs.any():
        return False
    segments = state.segments
    for device in np.flatnonzero(np.bincount(events.device[allocs])):
        mine = segments.device == device
        address = events.address[allocs & (events.device == device)]
        start = segments.address[mine]
        if not len(start):
            return True
        at = np.searchsorted(start, address, "right") - 1
        if ((at < 0) | (address >= start[at] + segments.size_bytes[mine][at])).any():
            return True
    return False
