"""What the mutations begin with: sound snapshots, containers, and the folder of a recording that was cut off."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from memscope.trace.recording.folder import CALLS_NAME
from memscope.trace.recording.notes import (
    AddressOwner,
    CacheLayerNote,
    MarkNote,
    OwnersNote,
    RecordingNotes,
    TagNote,
)
from memscope.trace.recording.sampling import write_samples
from tests.oracles import ORACLE
from tests.trace.recording.written_recordings import WrittenRecording
from tests.trace.snapshot.snapshots import BASE, small

TRACES = Path(__file__).resolve().parents[2] / "traces"
_ORACLES = ("torch-2.11.0/streams_default", "torch-2.15.0/oom_exp")


def containers() -> list[Path]:
    """The traces that come with the project."""
    return sorted(TRACES.glob("*.memscope"))


def snapshots() -> list[dict[str, Any]]:
    """A small snapshot, and PyTorch's own where they are at hand."""
    paths = [ORACLE / f"{name}.pickle.gz" for name in _ORACLES]
    return [small(), *(pickle.loads(gzip.decompress(path.read_bytes())) for path in paths if path.exists())]


def part_folder(folder: Path) -> Path:
    """A recording of three drains with a note of every kind, as far as it came."""
    recording = WrittenRecording(folder / "run.memscope")
    for _ in range(3):
        recording.drain(10, notes=_notes(recording.n_allocs + 5))
    names = ("device", "time_ns", "device_free_bytes", "device_used_bytes", "process_used_bytes", "others_used_bytes")
    write_samples(recording.folder, {name: np.zeros(3, np.int64) for name in names})
    (recording.folder / CALLS_NAME).write_bytes(np.array([32], "<i8").tobytes())
    return recording.folder


def _notes(n: int) -> RecordingNotes:
    return RecordingNotes(
        marks=[MarkNote((n,), 5, 0, "step"), MarkNote((n,), 6, 1, "f", True), MarkNote((n + 1,), 7, 2, "f", True)],
        owners=[OwnersNote((n,), (AddressOwner(0, BASE, 0, 1, "w"), AddressOwner(0, BASE + 512, 1, 1, "g")))],
        tags=[TagNote((n,), (n + 1,), 4, "tag")],
        visits=[5, "m", 6, ""],
        cache_layers=[CacheLayerNote(n, 0, 0, 0, "DynamicLayer", 1, 2, 2, -1, -1)],
        cache_lengths=[n, 5, 0, 0, 3],
    )
