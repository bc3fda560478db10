"""Recordings that were cut off are opened as far as they were drained, with the loss counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from memscope.errors import InputFileError
from memscope.trace.open import open_trace
from memscope.trace.recording.folder import (
    CALLS_NAME,
    chunk_path,
)
from memscope.trace.recording.notes import AddressOwner, CacheLayerNote, MarkNote, OwnersNote, RecordingNotes
from memscope.trace.schema import MarkKind
from tests.trace.recording.written_recordings import WrittenRecording
from tests.trace.snapshot.snapshots import BASE


def test_what_was_drained_can_be_opened_by_the_name_of_the_file_to_come(tmp_path: Path) -> None:
    target = tmp_path / "run.memscope"
    recording = WrittenRecording(target)
    recording.drain(0)
    recording.drain(3)
    recording.drain(2)
    for path in (target, recording.folder):
        trace = open_trace(path)
        assert trace.size_bytes.tolist() == [1, 2, 3, 4, 5]
        assert trace.metadata.n_events_lost is None
        assert trace.metadata.notes[-1] == ("The recording was cut off: the events after its last drain are missing.")
        assert trace.metadata.source == "cuda"


def test_what_was_counted_after_the_last_drain_is_stated(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(3)
    (recording.folder / CALLS_NAME).write_bytes(np.array([1003], "<i8").tobytes())
    metadata = open_trace(recording.folder).metadata
    assert metadata.n_events_lost == 1000
    assert metadata.notes[-1].startswith("The recording was cut off: at least 1,000 events")


def test_a_chunk_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(3)
    recording.drain(4)
    path = chunk_path(recording.folder, 1)
    path.with_name(path.name + ".partial").write_bytes(path.read_bytes()[:20])
    path.unlink()
    assert open_trace(recording.folder).size_bytes.tolist() == [1, 2, 3]


def test_of_stretches_with_a_gap_between_them_the_longest_is_taken(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(0)
    recording.drain(4)
    mark = MarkNote((4,), 0, int(MarkKind.STEP), "before the gap")
    inside = MarkNote((14,), 0, int(MarkKind.STEP), "after it")
    owners = [
        OwnersNote((15,), (AddressOwner(0, BASE + 512 * 13, 0, 0, "fourteenth"), AddressOwner(0, BASE, 0, 0, "first")))
    ]
    recording.drain(10, n_overwritten=5, notes=RecordingNotes(marks=[mark, inside]))
    recording.drain(3, notes=RecordingNotes(owners=owners))
    trace = open_trace(recording.folder)
    assert trace.size_bytes.tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    assert trace.metadata.n_events_lost == 9
    assert trace.metadata.notes[0].startswith("5 events are missing")
    assert trace.metadata.notes[1].startswith("The trace is the longest of 2 stretches without a gap")
    assert [trace.strings[i] for i in trace.marks.label_id] == ["after it"]
    assert trace.marks.event.tolist() == [5]
    assert trace.owners.alloc_event.tolist() == [-1, 4]
    assert [trace.strings[i] for i in trace.owners.label_id] == ["first", "fourteenth"]


def test_what_was_noted_of_caches_survives_a_recording_that_was_cut_off(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    layer = CacheLayerNote(2, 0, 1, 0, "DynamicLayer", 4, 64, 64, -1, -1)
    recording.drain(3, notes=RecordingNotes(cache_layers=[layer], cache_lengths=[2, 7, 0, 1, 10]))
    recording.drain(2, notes=RecordingNotes(cache_lengths=[5, 8, 0, 1, 11]))
    trace = open_trace(recording.folder)
    assert trace.cache_layers.event.tolist() == [2]
    assert trace.strings[trace.cache_layers.kind_id[0]] == "DynamicLayer"
    assert trace.cache_lengths.event.tolist() == [2, 5]
    assert trace.cache_lengths.n_tokens.tolist() == [10, 11]


@pytest.mark.parametrize("damage", ["nothing drained", "no JSON", "no list", "notes missing", "snapshot cut"])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    if damage != "nothing drained":
        recording.drain(2)
    path = chunk_path(recording.folder, 0)
    if damage == "no JSON":
        (recording.folder / "recording.json").write_text("{")
    elif damage == "no list":
        path.with_suffix(".json").write_text(json.dumps({"counts": 3}))
    elif damage == "notes missing":
        path.with_suffix(".json").unlink()
    elif damage == "snapshot cut":
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputFileError) as raised:
        open_trace(recording.folder)
    assert str(raised.value).count("\n") == 0
