"""Notes of caches find their place among the events by counting, and survive writing, dropping and joining."""

from __future__ import annotations

import json

import pytest

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.cache_notes import CacheLayerNote
from memscope.trace.recording.notes import RecordingNotes, place_log
from memscope.trace.schema import Action
from memscope.trace.trace import Trace


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


def test_notes_stand_before_the_event_that_follows_their_count_on_their_device() -> None:
    lengths = [2, 50, 1, 1, 9, 1, 60, 0, 1, 5, 3, 70, 0, 1, 6]
    log = RecordingNotes(cache_layers=[_layer(2, device=1), _layer(1)], cache_lengths=lengths)
    placed = place_log(_trace(3, 2), log, {0: 0, 1: 0})
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
    placed = place_log(_trace(3), RecordingNotes(cache_layers=layers, cache_lengths=lengths), {0: 10})
    assert placed.cache_layers.event.tolist() == [0, 0, 1]
    assert placed.cache_layers.layer.tolist() == [1, 0, 0]
    assert placed.cache_layers.n_sequences.tolist() == [1, 2, 1]
    assert placed.cache_lengths.event.tolist() == [0, 0, 1]
    assert placed.cache_lengths.cache_id.tolist() == [1, 2, 1]
    assert placed.cache_lengths.n_tokens.tolist() == [4, 8, 5]


def test_a_log_keeps_them_through_writing_dropping_and_joining() -> None:
    log = RecordingNotes(cache_layers=[_layer(1)], cache_lengths=[1, 2, 0, 1, 5])
    read = RecordingNotes.from_json(json.loads(json.dumps(log.to_json())))
    assert read == log
    sizes = log.sizes()
    log.cache_layers.append(_layer(2, layer=1))
    log.cache_lengths.extend([2, 3, 0, 1, 6])
    log.drop(sizes)
    assert log.cache_layers == [_layer(2, layer=1)]
    assert log.cache_lengths == [2, 3, 0, 1, 6]
    joined = RecordingNotes.joined([read, log])
    assert joined.cache_layers == [_layer(1), _layer(2, layer=1)]
    assert joined.cache_lengths == [1, 2, 0, 1, 5, 2, 3, 0, 1, 6]
    with pytest.raises(ValueError, match="cut off"):
        RecordingNotes.from_json({**log.to_json(), "cache_lengths": [1, 2]})


def test_older_logs_have_none() -> None:
    record = {name: value for name, value in RecordingNotes().to_json().items() if not name.startswith("cache")}
    assert RecordingNotes.from_json(record) == RecordingNotes()
