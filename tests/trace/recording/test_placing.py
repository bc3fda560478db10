"""Marks and notes of caches find their place among the events by counting."""

from __future__ import annotations

import numpy as np

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording._placing import place_notes
from memscope.trace.recording.notes import (
    CacheLayerNote,
    MarkNote,
    RecordingNotes,
)
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.trace.recording.small_traces import A, B, trace_of


def _trace(*n_allocs: int) -> Trace:
    """So many allocs on each device, with a segment's event before each device's second."""
    builder = TraceBuilder()
    for device, n in enumerate(n_allocs):
        for i in range(n):
            if i == 1:
                builder.add_event(Action.SEGMENT_ALLOC, address=0, size_bytes=2 << 20, device=device)
            builder.add_event(Action.ALLOC, address=512 * i, size_bytes=512, device=device)
    return builder.build(TraceMetadata(source="cuda"))


def _layer(calls: int, device: int = 0, layer: int = 0, n_sequences: int = 1) -> CacheLayerNote:
    return CacheLayerNote(calls, device, 1, layer, f"kind of {layer}", n_sequences, 64, 32, -1, 7)


def test_steps_of_the_optimizer_count_only_where_the_program_names_none() -> None:
    trace = trace_of(("alloc", A), ("alloc", B))
    automatic, named = MarkNote((1,), 0, 0, "0", True), MarkNote((2,), 0, 0, "mine")
    alone = place_notes(trace, RecordingNotes(marks=[automatic]), {0: 0})
    both = place_notes(trace, RecordingNotes(marks=[automatic, named]), {0: 0})
    assert [alone.strings[i] for i in alone.marks.label_id] == ["0"]
    assert [both.strings[i] for i in both.marks.label_id] == ["mine"]
    assert both.marks.event.tolist() == [2]


def test_nothing_noted_changes_nothing() -> None:
    trace = trace_of(("alloc", A))
    placed = place_notes(trace, RecordingNotes(), {0: 0})
    assert len(placed.owners) == len(placed.marks) == 0
    assert np.array_equal(placed.action, trace.action)


def test_notes_stand_before_the_event_that_follows_their_count_on_their_device() -> None:
    lengths = [2, 50, 1, 1, 9, 1, 60, 0, 1, 5, 3, 70, 0, 1, 6]
    log = RecordingNotes(cache_layers=[_layer(2, device=1), _layer(1)], cache_lengths=lengths)
    placed = place_notes(_trace(3, 2), log, {0: 0, 1: 0})
    assert placed.cache_lengths.event.tolist() == [1, 4, 7]
    assert placed.cache_lengths.n_tokens.tolist() == [5, 6, 9]
    assert placed.cache_lengths.time_ns.tolist() == [60, 70, 50]
    assert placed.cache_layers.event.tolist() == [1, 7]
    assert placed.cache_layers.device.tolist() == [0, 1]
    assert [placed.strings[i] for i in placed.cache_layers.kind_id] == ["kind of 0"] * 2
    assert placed.cache_layers.value_token_bytes.tolist() == [32, 32]
    assert placed.cache_layers.window_tokens.tolist() == [7, 7]


def test_of_notes_from_before_the_trace_the_last_holds_from_its_begin_and_those_behind_it_are_left_out() -> None:
    layers = [_layer(4, n_sequences=1), _layer(6, layer=1), _layer(7, n_sequences=2), _layer(11), _layer(14)]
    lengths = [6, 0, 0, 1, 3, 8, 0, 0, 1, 4, 9, 0, 0, 2, 8, 11, 0, 0, 1, 5, 99, 0, 0, 1, 6, 11, 0, 3, 1, 7]
    placed = place_notes(_trace(3), RecordingNotes(cache_layers=layers, cache_lengths=lengths), {0: 10})
    assert placed.cache_layers.event.tolist() == [0, 0, 1]
    assert placed.cache_layers.layer.tolist() == [1, 0, 0]
    assert placed.cache_layers.n_sequences.tolist() == [1, 2, 1]
    assert placed.cache_lengths.event.tolist() == [0, 0, 1]
    assert placed.cache_lengths.cache_id.tolist() == [1, 2, 1]
    assert placed.cache_lengths.n_tokens.tolist() == [4, 8, 5]
