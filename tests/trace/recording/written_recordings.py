"""Folders of recordings, written as the recorder writes them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.folder import (
    Counts,
    chunk_path,
    part_of,
    write_notes,
    write_recording,
)
from memscope.trace.recording.notes import RecordingNotes
from tests.trace.snapshot.snapshots import BASE, MIB, block, event, segment


class WrittenRecording:
    """A folder written as the recorder writes it: allocs of growing size, one after the other."""

    def __init__(self, target: Path) -> None:
        self.folder = part_of(target)
        self.folder.mkdir()
        write_recording(self.folder, _ended_process(), TraceMetadata(source="cuda"))
        self.n_allocs = self.n_chunks = 0

    def drain(self, n_allocs: int, n_overwritten: int = 0, notes: RecordingNotes | None = None) -> None:
        first = self.n_allocs
        self.n_allocs += n_allocs
        events = [event("alloc", BASE + 512 * i, i + 1, i) for i in range(first + n_overwritten, self.n_allocs)]
        path = chunk_path(self.folder, self.n_chunks)
        path.write_bytes(pickle.dumps({"segments": [self._segment()], "device_traces": [events]}))
        counts: Counts = ((self.n_allocs, 0, 0),)
        write_notes(path, counts, notes or RecordingNotes())
        self.n_chunks += 1

    def _segment(self) -> dict[str, Any]:
        used = [block(BASE + 512 * i, 512, "active_allocated", i + 1) for i in range(self.n_allocs)]
        return segment(BASE, [*used, block(BASE + 512 * self.n_allocs, 2 * MIB - 512 * self.n_allocs)])


def _ended_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid
