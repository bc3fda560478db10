"""A recording's folder: what is written is read back, and one under way is told from one that was cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memscope.errors import InputFileError
from memscope.trace.metadata import TraceMetadata
from memscope.trace.open import open_trace
from memscope.trace.recording.assembling import read_unfinished
from memscope.trace.recording.folder import (
    CALLS_NAME,
    chunk_path,
    cut_off_message,
    is_being_made,
    last_counted,
    read_chunks,
    write_recording,
)
from memscope.trace.recording.notes import MarkNote, RecordingNotes
from memscope.trace.schema import MarkKind
from tests.trace.recording.written_recordings import WrittenRecording


def test_a_recording_under_way_is_told_from_one_that_was_cut_off(tmp_path: Path) -> None:
    target = tmp_path / "run.memscope"
    assert cut_off_message(target) is None
    recording = WrittenRecording(target)
    assert cut_off_message(target) == (
        "an earlier recording was cut off; what it had drained is kept with: memscope import "
        f"{tmp_path / 'run.memscope.part'}"
    )
    write_recording(recording.folder, os.getpid(), TraceMetadata(source="cuda"))
    assert is_being_made(recording.folder)
    assert cut_off_message(target) is None


def test_chunks_are_read_back_in_order_with_what_was_noted_between_them(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    notes = RecordingNotes(marks=[MarkNote((2,), 7, int(MarkKind.STEP), "0", True)])
    recording.drain(2, notes=notes)
    recording.drain(1)
    chunks, metadata = read_chunks(recording.folder)
    assert [chunk.path for chunk in chunks] == [chunk_path(recording.folder, 0), chunk_path(recording.folder, 1)]
    assert [chunk.counts for chunk in chunks] == [((2, 0, 0),), ((3, 0, 0),)]
    assert [chunk.notes for chunk in chunks] == [notes, RecordingNotes()]
    assert metadata == TraceMetadata(source="cuda")


def test_the_calls_counted_last_are_none_where_they_were_not_written(tmp_path: Path) -> None:
    assert last_counted(tmp_path) == 0
    (tmp_path / CALLS_NAME).write_bytes(np.array([5, 0, 7], "<i8").tobytes())
    assert last_counted(tmp_path) == 12
    (tmp_path / CALLS_NAME).write_bytes(b"cut")
    assert last_counted(tmp_path) == 0


def test_a_process_that_cannot_be_is_not_alive(tmp_path: Path) -> None:
    folder = WrittenRecording(tmp_path / "run.memscope").folder
    for pid in (10**30, 1 << 31, 0, -1, "1", None, 1.5):
        (folder / "recording.json").write_text(json.dumps({"pid": pid, "metadata": {}}))
        assert not is_being_made(folder)


@pytest.mark.parametrize("name", ["recording.json", "chunk-000000.json", "chunk-000000.pickle", "samples.npy"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_of_the_folder_is_refused_and_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(3)
    place = recording.folder / name
    content = place.read_bytes() if place.exists() else b""
    place.unlink(missing_ok=True)
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        place.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(InputFileError) as caught:
        open_trace(recording.folder) if name != "recording.json" else read_unfinished(recording.folder)
    assert "\n" not in str(caught.value)


def changed_notes(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "chunk-000000.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed_notes(counts=[]), "counts what no recording does"),
        (changed_notes(counts=[[0, 0, -1]]), "counts what no recording does"),
        (changed_notes(counts=[[0, 0, 1 << 70]]), "no number that a recording notes"),
        (changed_notes(counts=[[0, 0, 0]] * 2), "different numbers of devices"),
        (changed_notes(counts=[[0, 0, 0]] * 100_000), "counts what no recording does"),
        (changed_notes(marks=[[[1], 1e999, 0, "x", False]]), "no number of JSON"),
        (changed_notes(marks=[[[1], 1, 9, "x", False]]), "9 is not a valid MarkKind"),
        (changed_notes(batches=[[[0, 1, 77, 1, 0]]], labels=["x"], claims=[]), "77 is not a valid Category"),
        (changed_notes(cache_layers=[[1, 0, 1 << 40, 0, "K", 1, 1, 1, 1, 1]]), "numbers nothing"),
        (changed_notes(cache_lengths=[1, 2, 1 << 40, 0, 1]), "numbers nothing"),
        (changed_notes(batches=[[[0, 1, 1, 1, 0]] * 40_000], labels=["x"], claims=[[[1], 0]] * 30_000), "owners, more"),
        (lambda folder: (folder / "recording.json").write_text('{"pid": 1, "metadata": []}'), "not a readable"),
        (lambda folder: (folder / "recording.json").write_text("[" * 100_000), "not a readable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_that_no_recording_has_are_refused(tmp_path: Path, change: Callable[[Path], None], reason: str) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(3)
    recording.drain(3)
    change(recording.folder)
    with pytest.raises(InputFileError) as caught:
        open_trace(recording.folder)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
