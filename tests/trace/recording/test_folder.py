"""A recording's folder: what is written is read back, and one under way is told from one that was cut off."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from memscope.trace.metadata import TraceMetadata
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
