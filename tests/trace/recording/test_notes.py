"""Notes survive writing, dropping and joining."""

from __future__ import annotations

import json

import pytest

from memscope.trace.categories import Category
from memscope.trace.recording.notes import (
    AddressOwner,
    CacheLayerNote,
    MarkNote,
    OwnersNote,
    RecordingNotes,
    TagNote,
)

A = 4096
WEIGHTS = int(Category.WEIGHTS)


def _layer(calls: int, device: int = 0, layer: int = 0, n_sequences: int = 1) -> CacheLayerNote:
    return CacheLayerNote(calls, device, 1, layer, f"kind of {layer}", n_sequences, 64, 32, -1, 7)


def test_a_log_is_the_same_after_it_was_written_and_read() -> None:
    row = AddressOwner(0, A, WEIGHTS, 0, "w")
    log = RecordingNotes(
        marks=[MarkNote((1, 2), 3, 0, "0", True)],
        owners=[OwnersNote((1, 2), (row, row)), OwnersNote((5, 2), (row, row))],
        tags=[TagNote((0, 0), (1, 1), 9, "t")],
    )
    record = json.loads(json.dumps(log.to_json()))
    assert RecordingNotes.from_json(record) == log
    assert len(record["batches"]) == 1


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


def test_a_tag_that_was_open_at_a_drain_is_taken_from_where_it_ended() -> None:
    open_tag, closed = TagNote((1,), None, 9, "t"), TagNote((1,), (5,), 9, "t")
    first = RecordingNotes.from_json(RecordingNotes(open_tags=[open_tag]).to_json())
    assert RecordingNotes.joined([first, RecordingNotes(tags=[closed])]).tags == [closed]
    assert RecordingNotes.joined([RecordingNotes(), first]).tags == [open_tag]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ([[5, 2], [7], 9, "t"], "begins with the counts of 2 devices and ends with 1"),
        ([[5], [1 << 63], 9, "t"], "is no number that a recording notes"),
    ],
)
def test_a_tag_that_no_recording_notes_is_refused(tag: list[object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RecordingNotes.from_json({**RecordingNotes().to_json(), "spans": [tag]})
