"""Reading a part of a snapshot's events in the memory that the part needs, and what is in use around it.

A snapshot's events are nearly all of it. It is passed over three times: for which of its objects are named again, for
an outline (the events of segments, the state at its end, how many events there are), and for the part. Where only all
events together tell what a part of them is, nothing is read, and the caller reads the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memscope._core import snapshot as core
from memscope.errors import InputFileError
from memscope.trace.schema import Action
from memscope.trace.snapshot._byte_source import Content, content_of, open_source
from memscope.trace.snapshot._keys import EVENT_KEYS, EVENT_SEEN_KEYS, KNOWN_TEXTS, TEXT_ID
from memscope.trace.snapshot._parts import choose_snapshot
from memscope.trace.snapshot._pickle_reader import NotSlicedError, fill_tape, find_memo_use
from memscope.trace.snapshot.read import FoundSnapshot, trace_of
from memscope.trace.tables import BoolArray, Int32Array, Int64Array
from memscope.trace.trace import Trace
from memscope.trace.zip_members import choose_member

_EVENT_WORDS = ("device_traces", "action", "addr", "size", "time_us", "pool_id", "frames")


@dataclass(frozen=True, slots=True)
class InUse:
    """What is in use at a moment: (n,) each, in no order. Stacks are those of the trace that it came with."""

    address: Int64Array
    requested_bytes: Int64Array
    block_bytes: Int64Array
    is_pending: BoolArray
    stack_id: Int32Array


@dataclass(frozen=True, slots=True)
class Outline:
    """A snapshot without most of its events.

    Attributes
    ----------
    trace
        The events of segments alone, and the state at the end.
    n_events
        How many events each device has, by index.
    places
        Where each event of the trace stands in its device's list, by device.
    in_use
        What was allocated among the events and is in use after the last of them, by device.
    """

    trace: Trace
    n_events: tuple[int, ...]
    places: tuple[Int64Array, ...]
    in_use: tuple[InUse, ...]
    _file: _File


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events ``begin <= event < end`` of a device's list, and what must be known to follow its blocks up to there.

    Attributes
    ----------
    start_ranges
        Start, end and key of each segment before the first event: int64 (m,).
    segment_event_keys
        int64: the key of each event of a segment.
    address, block_bytes
        int64 (n,): what is in use before the first event and after the last.
    roundup_divisions, max_split_bytes, is_expandable
        How sizes are rounded and blocks split.
    """

    begin: int
    end: int
    start_ranges: tuple[Int64Array, Int64Array, Int64Array]
    segment_event_keys: Int64Array
    address: Int64Array
    block_bytes: Int64Array
    roundup_divisions: tuple[int, ...]
    max_split_bytes: int
    is_expandable: bool


@dataclass(frozen=True, slots=True)
class ReadPart:
    """The events wanted, with one on either side of each device's, and what was in use after its last."""

    trace: Trace
    places: tuple[Int64Array, ...]
    in_use: tuple[InUse, ...]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    member: str | None
    part: str | None
    use: core.MemoUse


def read_outline(path: Path, part: str | None = None) -> Outline | None:
    """Pass over a snapshot for its outline; None where only all of it tells what a part of it is.

    That is so for what is no pickle; where memory is freed that was in use before the first event, whose size other
    events tell; with private pools, which may hand out whole blocks only; where a ring was stored rotated; and where
    anything is wrong, which reading the whole says.
    """
    try:
        member, part = choose_member(path, part)
        with open_source(path, member) as source:
            if content_of(source.peek()) in (Content.RMM_LOG, Content.JSON):
                return None
            file = _File(path, member, part, find_memo_use(source))
        sieve = _new_sieve()
        trace, places, in_use, n_annotations = _sieved(file, sieve)
    except (InputFileError, NotSlicedError, IndexError):  # of an index: the pickle names what was passed over
        return None
    counts = [sieve.counts(device) for device in range(sieve.n_devices)]
    if not all(map(_is_regular, counts)) or not any(one.n_segment_events for one in counts):
        return None
    recorded = [one for one in counts if one.n_events]
    if n_annotations and (len(recorded) > 1 or any(one.n_times_back or one.n_without_time for one in recorded)):
        return None
    return Outline(trace, tuple(one.n_events for one in counts), places, in_use, file)


def read_part(outline: Outline, wanted: Mapping[int, Wanted]) -> ReadPart | None:
    """Pass over a snapshot for some of its events; None where only all of it tells what was in use."""
    sieve = _new_sieve()
    try:
        for device, part in wanted.items():
            sieve.want(
                device,
                part.begin,
                part.end,
                part.start_ranges,
                part.address,
                part.block_bytes,
                part.segment_event_keys,
                part.roundup_divisions,
                part.max_split_bytes,
                part.is_expandable,
            )
        trace, places, in_use, _ = _sieved(outline._file, sieve)
    except (core.Refused, InputFileError, NotSlicedError, IndexError):
        return None
    return ReadPart(trace, places, in_use)


def _new_sieve() -> core.EventSieve:
    actions = [TEXT_ID[action.name.lower()] for action in Action]
    return core.EventSieve([TEXT_ID[word] for word in _EVENT_WORDS], actions)


def _is_regular(counts: core.EventCounts) -> bool:
    """Whether completions of frees were recorded, and the events are stored from the oldest to the newest."""
    is_rotated = counts.n_times_back == 1 and counts.last_time <= counts.first_time
    return not is_rotated and (counts.n_completions > 0 or counts.n_requests == 0)


def _sieved(file: _File, sieve: core.EventSieve) -> tuple[Trace, tuple[Int64Array, ...], tuple[InUse, ...], int]:
    """What a sieve keeps: the trace, the places of its events, what is in use, and how many annotations there are."""
    with open_source(file.path, file.member) as source:
        tape = fill_tape(file.path, source, KNOWN_TEXTS, (file.use, sieve))
        found = FoundSnapshot(tape, choose_snapshot(tape, file.part), source.notes)
    top = found.snapshot.top
    if "segments" not in top or top.get("device_traces") != sieve.outer_list:
        raise NotSlicedError
    n_annotations = len(tape.sequence(top["external_annotations"])) if "external_annotations" in top else 0
    devices = range(sieve.n_devices)
    held = [sieve.in_use(device) for device in devices]
    frames = np.concatenate([one[4] for one in held]) if held else np.empty(0, np.int64)
    trace, stack_id = trace_of(found, event_keys=_seen_keys(tape.in_core, sieve), more_frames=frames)
    bounds = np.cumsum([0, *(len(one[0]) for one in held)])
    in_use = tuple(
        InUse(*one[:4], stack_id[begin:end]) for one, begin, end in zip(held, bounds[:-1], bounds[1:], strict=True)
    )
    return trace, tuple(sieve.kept(device) for device in devices), in_use, n_annotations


def _seen_keys(tape: core.Tape, sieve: core.EventSieve) -> frozenset[str]:
    return frozenset(key for key in (*EVENT_KEYS, *EVENT_SEEN_KEYS) if sieve.is_seen(tape, TEXT_ID[key]))
