"""What a recording notes of key/value caches, and where in the events it belongs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, CacheLayerTable, CacheLengthTable, Int64Array

LENGTH_WIDTH = 5
"""Numbers of a noted length: calls of its device until then, nanoseconds since the epoch, device, cache, tokens."""


class CacheLayerNote(NamedTuple):
    """How a layer keeps its tokens from a moment on; ``calls`` are the allocator calls of its device until then."""

    calls: int
    device: int
    cache_id: int
    layer: int
    kind: str
    n_sequences: int
    key_token_bytes: int
    value_token_bytes: int
    capacity_tokens: int
    window_tokens: int


class Placing(NamedTuple):
    """Where a device's notes go: the calls before its first event, and the event after so many calls (−1: none)."""

    first_call: int
    events_after: Callable[[Int64Array], Int64Array]


def read_layer_notes(record: Sequence[Sequence[Any]]) -> list[CacheLayerNote]:
    """Read what was written as JSON.

    Raises
    ------
    TypeError, ValueError
        If that is not what it is.
    """
    notes = []
    for calls, device, cache_id, layer, kind, *sizes in record:
        n_sequences, key_bytes, value_bytes, capacity, window = map(int, sizes)
        of = int(calls), int(device), int(cache_id), int(layer), str(kind)
        notes.append(CacheLayerNote(*of, n_sequences, key_bytes, value_bytes, capacity, window))
    return notes


def read_length_notes(record: Sequence[Any]) -> list[int]:
    """Read what was written as JSON.

    Raises
    ------
    TypeError, ValueError
        If that is not what it is.
    """
    flat = [int(value) for value in record]
    if len(flat) % LENGTH_WIDTH:
        raise ValueError("the lengths of caches are cut off")
    return flat


def place_layers(
    notes: Sequence[CacheLayerNote], devices: dict[int, Placing], intern: Callable[[str], int]
) -> CacheLayerTable:
    """The notes of layers at their events; of those from before the first event each layer's last holds from there."""
    numbers = np.array([[*note[:4], intern(note.kind), *note[5:]] for note in notes], np.int64).reshape(-1, 10)
    event, rows = _placed(numbers[:, 0], numbers[:, 1], numbers[:, 1:4], devices)
    device, cache_id, layer, kind_id, *sizes = numbers[rows, 1:].T
    names = ("n_sequences", "key_token_bytes", "value_token_bytes", "capacity_tokens", "window_tokens")
    columns = {"event": event, "device": device, "cache_id": cache_id, "layer": layer, "kind_id": kind_id}
    return CacheLayerTable.from_columns({**columns, **dict(zip(names, sizes, strict=True))})


def place_lengths(flat: Sequence[int], devices: dict[int, Placing]) -> CacheLengthTable:
    """The notes of lengths at their events; of those from before the first event each cache's last holds from there."""
    numbers = np.array(flat, np.int64).reshape(-1, LENGTH_WIDTH)
    event, rows = _placed(numbers[:, 0], numbers[:, 2], numbers[:, 2:4], devices)
    _, time_ns, device, cache_id, n_tokens = numbers[rows].T
    return CacheLengthTable.from_columns(
        {"event": event, "time_ns": time_ns, "device": device, "cache_id": cache_id, "n_tokens": n_tokens}
    )


def _placed(
    calls: Int64Array, device: Int64Array, subject: Int64Array, devices: dict[int, Placing]
) -> tuple[Int64Array, Int64Array]:
    """Events, and rows of the notes that are in the trace, in order of events.

    Parameters
    ----------
    calls, device
        int64 (notes,): when and where.
    subject
        int64 (notes, k): what each note is of.
    devices
        By device.
    """
    event = np.full(len(calls), NONE_ID, np.int64)
    is_early = np.zeros(len(calls), np.bool_)
    for index, placing in devices.items():
        here = device == index
        is_early |= here & (calls < placing.first_call)
        event[here] = placing.events_after(np.maximum(calls[here], placing.first_call))
    event[is_early & ~_is_last_of_each(subject, is_early)] = NONE_ID
    rows = np.flatnonzero(event != NONE_ID)
    rows = rows[np.argsort(event[rows], kind="stable")]
    return event[rows], rows


def _is_last_of_each(subject: Int64Array, among: BoolArray) -> BoolArray:
    """Which of some rows are the last of their subject."""
    found = np.zeros(len(subject), np.bool_)
    rows = np.flatnonzero(among)[::-1]
    if len(rows):
        found[rows[np.unique(subject[rows], axis=0, return_index=True)[1]]] = True
    return found
