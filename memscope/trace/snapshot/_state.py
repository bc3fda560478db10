"""Segments and blocks of a torch snapshot, as columns in order of device and address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memscope.trace.schema import BLOCK_STATE_BY_NAME, NONE_ID, BlockState
from memscope.trace.snapshot._events import MAX_DEVICES
from memscope.trace.snapshot._keys import BLOCK_KEYS, HISTORY_KEYS, SEGMENT_KEYS, TEXT_ID
from memscope.trace.snapshot._pickle_reader import NO_VALUE, BoolArray, Int64Array, Tape
from memscope.trace.snapshot._tape_rows import TapeRows
from memscope.trace.tables import Int8Array, Int32Array

MAX_MISMATCHES = 20


@dataclass(frozen=True)
class SnapshotSegments:
    """Segments; ids are still the tape's."""

    device: Int64Array
    address: Int64Array
    size_bytes: Int64Array
    stream: Int64Array
    pool: tuple[Int64Array, Int64Array, BoolArray]
    is_large: BoolArray
    is_expandable: BoolArray
    frames: Int64Array
    keys: frozenset[str]


@dataclass(frozen=True)
class SnapshotBlocks:
    """Blocks, ordered by segment and address; ``requested_bytes`` of inactive ones is 0."""

    segment_id: Int32Array
    address: Int64Array
    size_bytes: Int64Array
    requested_bytes: Int64Array
    state: Int8Array
    frames: Int64Array


@dataclass(frozen=True)
class SnapshotState:
    """The address space at the snapshot."""

    segments: SnapshotSegments
    blocks: SnapshotBlocks
    total_mismatches: tuple[dict[str, Any], ...]
    """Segments whose recorded sums are not those of their blocks: device, address, field, recorded, summed."""
    n_total_mismatches: int


def read_state(tape: Tape, segments: int | None) -> SnapshotState:
    """Read ``segments``; what contradicts itself is kept as it is, for :mod:`memscope.trace.validate`.

    Raises
    ------
    InputFileError
        If a segment or a block lacks a key, or has one of the wrong type.
    """
    values = np.empty(0, np.int64) if segments is None else tape.sequence(segments)
    rows = TapeRows(tape, values, SEGMENT_KEYS, TEXT_ID, lambda row: f"segments[{row}]")
    for key in ("address", "total_size", "segment_type", "blocks"):
        rows.require(key)
    lengths, bad = tape.lengths(rows.values("blocks"))
    if bad >= 0:
        raise rows.error(bad, "'blocks' is not a list")
    unordered = _segments(rows)
    order = np.lexsort((unordered.address.view(np.uint64), unordered.device))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    blocks = _blocks(tape, rows, lengths, unordered.address)
    mismatches, n_mismatches = _total_mismatches(rows, unordered, blocks, lengths)
    return SnapshotState(
        segments=_ordered_segments(unordered, order),
        blocks=_ordered_blocks(blocks, rank),
        total_mismatches=tuple(mismatches),
        n_total_mismatches=n_mismatches,
    )


def _segments(rows: TapeRows) -> SnapshotSegments:
    device = rows.integers("device", missing=0)
    if ((device < 0) | (device >= MAX_DEVICES)).any():
        row = int(((device < 0) | (device >= MAX_DEVICES)).argmax())
        raise rows.error(row, f"'device' {int(device[row])} is no device index")
    kind = rows.text_ids("segment_type")
    is_large = kind == TEXT_ID["large"]
    if (bad := ~is_large & (kind != TEXT_ID["small"])).any():
        raise rows.error(int(bad.argmax()), "'segment_type' is neither small nor large")
    return SnapshotSegments(
        device=device,
        address=rows.integers("address", missing=0, wrap=True),
        size_bytes=rows.integers("total_size", missing=0),
        stream=rows.integers("stream", missing=0, wrap=True),
        pool=rows.pairs("segment_pool_id"),
        is_large=is_large,
        is_expandable=rows.booleans("is_expandable"),
        frames=rows.values("frames"),
        keys=rows.keys,
    )


def _ordered_segments(segments: SnapshotSegments, order: Int64Array) -> SnapshotSegments:
    first, second, there = segments.pool
    return SnapshotSegments(
        device=segments.device[order],
        address=segments.address[order],
        size_bytes=segments.size_bytes[order],
        stream=segments.stream[order],
        pool=(first[order], second[order], there[order]),
        is_large=segments.is_large[order],
        is_expandable=segments.is_expandable[order],
        frames=segments.frames[order],
        keys=segments.keys,
    )


def _blocks(tape: Tape, segments: TapeRows, lengths: Int64Array, segment_address: Int64Array) -> SnapshotBlocks:
    """Blocks as listed, ``segment_id`` being the position of the segment in the file."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])

    def where(row: int) -> str:
        segment = int(np.searchsorted(offsets, row, side="right")) - 1
        return f"segments[{segment}]['blocks'][{row - int(offsets[segment])}]"

    rows = TapeRows(tape, tape.items(segments.values("blocks")), BLOCK_KEYS, TEXT_ID, where)
    rows.require("size")
    rows.require("state")
    size = rows.integers("size", missing=0)
    state = _states(tape, rows)
    history_bytes, history_frames = _history(tape, rows)
    before = np.concatenate(([0], np.cumsum(size)))
    running = np.repeat(segment_address, lengths) + before[:-1] - np.repeat(before[offsets[:-1]], lengths)
    requested = rows.integers("requested_size", missing=np.where(history_bytes >= 0, history_bytes, size))
    frames = rows.values("frames")
    return SnapshotBlocks(
        segment_id=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        address=rows.integers("address", missing=running, wrap=True),
        size_bytes=size,
        requested_bytes=np.where(state == BlockState.INACTIVE, 0, requested),
        state=state,
        frames=np.where(rows.has("frames"), frames, history_frames),
    )


def _states(tape: Tape, rows: TapeRows) -> Int8Array:
    state_of_text = np.full(max(TEXT_ID.values()) + 1, NONE_ID, np.int8)
    for name, state in BLOCK_STATE_BY_NAME.items():
        state_of_text[TEXT_ID[name]] = state
    texts = rows.text_ids("state")
    states = state_of_text[np.minimum(texts, len(state_of_text) - 1)]
    unknown = (states == NONE_ID) | (texts >= len(state_of_text))
    if unknown.any():
        row = int(unknown.argmax())
        raise rows.error(row, f"unknown block state {tape.text(int(texts[row]))[:40]!a}")
    return states


def _history(tape: Tape, blocks: TapeRows) -> tuple[Int64Array, Int64Array]:
    """Requested bytes (−1 none) and frames (``NO_VALUE`` none) of the newest entry of each block's ``history``.

    Torch up to 2.0 wrote a list of past uses in place of ``frames``, the newest first.
    """
    requested = np.full(len(blocks), NONE_ID, np.int64)
    frames = np.full(len(blocks), NO_VALUE, np.int64)
    there = np.flatnonzero(blocks.has("history"))
    values = blocks.values("history")[there]
    lengths, bad = tape.lengths(values)
    if bad >= 0:
        raise blocks.error(int(there[bad]), "'history' is not a list")
    there, values = there[lengths > 0], values[lengths > 0]
    rows = TapeRows(
        tape,
        tape.items(values, limit=1),
        HISTORY_KEYS,
        TEXT_ID,
        lambda row: f"the 'history' of block {int(there[row])}",
    )
    requested[there] = rows.integers("real_size", missing=NONE_ID)
    frames[there] = np.where(rows.has("frames"), rows.values("frames"), NO_VALUE)
    return requested, frames


def _ordered_blocks(blocks: SnapshotBlocks, rank: Int64Array) -> SnapshotBlocks:
    segment_id = rank[blocks.segment_id]
    order = np.lexsort((blocks.address.view(np.uint64), segment_id))
    return SnapshotBlocks(
        segment_id=segment_id[order].astype(np.int32),
        address=blocks.address[order],
        size_bytes=blocks.size_bytes[order],
        requested_bytes=blocks.requested_bytes[order],
        state=blocks.state[order],
        frames=blocks.frames[order],
    )


def _total_mismatches(
    rows: TapeRows, segments: SnapshotSegments, blocks: SnapshotBlocks, lengths: Int64Array
) -> tuple[list[dict[str, Any]], int]:
    """Compare each segment's recorded sums with its blocks: the first that differ, and how many do."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    active = blocks.state != BlockState.INACTIVE
    terms = {
        "allocated_size": np.where(blocks.state == BlockState.ACTIVE_ALLOCATED, blocks.size_bytes, 0),
        "active_size": np.where(active, blocks.size_bytes, 0),
        "requested_size": blocks.requested_bytes,
    }
    found: list[dict[str, Any]] = []
    n_found = 0
    for key, term in terms.items():
        sums = np.concatenate(([0], np.cumsum(term)))
        summed = sums[offsets[1:]] - sums[offsets[:-1]]
        recorded = rows.integers(key, missing=summed)
        wrong = np.flatnonzero(recorded != summed)
        found += [
            {
                "device": int(segments.device[i]),
                "address": int(segments.address[i]),
                "field": key,
                "recorded": int(recorded[i]),
                "summed": int(summed[i]),
            }
            for i in wrong[: MAX_MISMATCHES - len(found)]
        ]
        n_found += len(wrong)
    return found, n_found
