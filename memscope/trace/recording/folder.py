"""A recording that is being made, or that was cut off: a folder of chunks beside the file it will become.

The folder is called like the file with ``.part`` added. It holds ``recording.json`` (the process, and what does not
change: devices, versions) and, for each drain, ``chunk-N.pickle`` (a torch snapshot: the events since the drain before,
the segments then) and ``chunk-N.json`` (how many allocator calls each device had counted by then, and what was noted).
A chunk's pickle is put in place last, so that a chunk that is there is whole.
Of a chunk that goes on there are versions, ``chunk-N-V.pickle``, of which the newest counts. ``samples.npy`` has the
device's own count until the last drain, ``calls.bin`` the calls that were counted last, a moment before the end at
most. A dry run keeps ``whole.memscope`` instead, all that was recorded until some moment; its ``calls.bin`` has events.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from memscope.errors import InputFileError, first_line
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.notes import RecordingNotes, as_int64

SUFFIX = ".part"
RECORDING_NAME = "recording.json"
CALLS_NAME = "calls.bin"
WHOLE_NAME = "whole.memscope"
_MAX_DEVICES = 1024
Counts = tuple[tuple[int, int, int], ...]
"""For each device: allocs, free requests and free completions since the recording began."""


class Chunk(NamedTuple):
    """One drain: where its snapshot lies, what was counted until then, what was noted since the drain before."""

    path: Path
    counts: Counts
    notes: RecordingNotes


def part_of(path: str | Path) -> Path:
    """The folder in which a recording of that name is made."""
    path = Path(path)
    return path.with_name(path.name + SUFFIX)


def chunk_path(folder: Path, number: int, version: int = 0) -> Path:
    """Where a chunk's snapshot lies; a chunk that is not drained yet is written in version after version."""
    return folder / (f"chunk-{number:06d}" + (f"-{version:06d}" if version else "") + ".pickle")


def forget_versions(folder: Path, number: int, version: int) -> None:
    """Remove what was written of a chunk before a version of it was in place."""
    kept = chunk_path(folder, number, version).stem
    for path in sorted(folder.glob(f"chunk-{number:06d}*"), reverse=True):  # a snapshot before its notes
        if path.name.partition(".")[0] < kept:
            path.unlink(missing_ok=True)


def _newest_chunks(folder: Path) -> list[Path]:
    """Each chunk's snapshot in its newest version, in the order of the chunks."""
    newest: dict[str, Path] = {}
    for path in sorted(folder.glob("chunk-*.pickle"), key=lambda path: path.stem):
        newest["-".join(path.stem.split("-")[:2])] = path
    return list(newest.values())


def write_recording(folder: Path, pid: int, metadata: TraceMetadata) -> None:
    """Write ``recording.json``, whole or not at all."""
    partial = folder / (RECORDING_NAME + ".partial")
    partial.write_text(json.dumps({"pid": pid, "metadata": metadata.to_json()}), encoding="utf-8")
    partial.replace(folder / RECORDING_NAME)


def write_notes(path: Path, counts: Counts, notes: RecordingNotes) -> None:
    """Write what belongs to a chunk's snapshot, before that is put in place."""
    record = {"counts": [list(device) for device in counts], **notes.to_json()}
    path.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")


def is_unfinished(path: str | Path) -> bool:
    """Whether a path is a recording's folder."""
    # Unlike Path.is_file it answers also for a name that is too long or has a null byte.
    return os.path.isfile(Path(path) / RECORDING_NAME)  # noqa: PTH113


def is_being_made(folder: str | Path) -> bool:
    """Whether the process that writes a folder is alive."""
    try:
        pid = _record(Path(folder) / RECORDING_NAME)["pid"]
        if not isinstance(pid, int) or pid < 1:  # 0 and less are groups of processes
            return False
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return True


def cut_off_message(path: str | Path) -> str | None:
    """What to say before a recording is written to a path at which an earlier one was cut off; None if none was."""
    folder = part_of(path)
    if not is_unfinished(folder) or is_being_made(folder):
        return None
    return f"an earlier recording was cut off; what it had drained is kept with: memscope import {folder}"


def read_chunks(folder: Path) -> tuple[list[Chunk], TraceMetadata]:
    """The chunks of a recording's folder, in order, and what does not change.

    Raises
    ------
    InputFileError
        If they cannot be read.
    """
    try:
        metadata = TraceMetadata.from_json(_record(folder / RECORDING_NAME)["metadata"])
        chunks = [_read_notes(path) for path in _newest_chunks(folder)]
        _check_alike(chunks)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InputFileError(folder, f"is not a readable recording folder: {reason}") from error
    return chunks, metadata


def _check_alike(chunks: Sequence[Chunk]) -> None:
    if len({len(chunk.counts) for chunk in chunks}) > 1:
        raise ValueError("its chunks are of different numbers of devices")


def _read_notes(path: Path) -> Chunk:
    require_own(path)
    record = _record(path.with_suffix(".json"))
    counts = tuple((as_int64(a), as_int64(b), as_int64(c)) for a, b, c in record["counts"])
    if not 0 < len(counts) <= _MAX_DEVICES or min(map(min, counts)) < 0:
        raise ValueError(f"{path.stem} counts what no recording does")
    return Chunk(path, counts, RecordingNotes.from_json(record))


def _record(path: Path) -> Any:
    """What a JSON file of a folder holds."""
    require_own(path)
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def require_own(path: Path) -> None:
    """Refuse what is no file of the folder itself: a recording has no links, and a pipe would be waited for.

    Raises
    ------
    ValueError
        Naming it.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"its {path.name} is a link, or no file")


def last_counted(folder: Path) -> int:
    """All calls that were counted last; 0 where that was not written."""
    try:
        require_own(folder / CALLS_NAME)
        calls = np.frombuffer((folder / CALLS_NAME).read_bytes(), "<i8")
    except (OSError, ValueError):
        return 0
    return sum(calls.tolist()) if len(calls) <= _MAX_DEVICES and (calls >= 0).all() else 0
