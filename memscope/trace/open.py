"""Opening a trace file of any kind, by its content."""

from __future__ import annotations

import zipfile
from pathlib import Path

from memscope.errors import InputFileError
from memscope.trace.container import META_NAME, ZIP_MAGIC, read_container
from memscope.trace.recording.assembling import read_unfinished
from memscope.trace.recording.folder import is_unfinished, part_of
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.trace import Trace


def open_trace(path: str | Path) -> Trace:
    """Read a ``.memscope`` file or a torch memory snapshot; what it is, its first bytes tell, not its name.

    A folder in which a recording was cut off is read as far as the recording came, also by the name of the file that
    it would have become.

    Raises
    ------
    InputFileError
        If it is neither, or cannot be read; the message is one line that names the file and the reason.
    """
    path = Path(path)
    if is_unfinished(path):
        return read_unfinished(path)
    if is_unfinished(part_of(path)) and not path.exists():
        return read_unfinished(part_of(path))
    if is_container(path):
        _check_is_container(path)
        return read_container(path)
    return read_snapshot(path)


def is_container(path: Path) -> bool:
    """Whether a file begins as a ``.memscope`` file does: a zip archive."""
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    except (OSError, ValueError):
        return False  # read_snapshot says why


def _check_is_container(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return  # read_container says why
    if META_NAME in names:
        return
    if any(name.endswith("data.pkl") for name in names):
        raise InputFileError(
            path, "is an archive made by torch.save, not a memory snapshot: use torch.cuda.memory._dump_snapshot"
        )
    raise InputFileError(path, "is a zip archive, but neither a .memscope file nor a memory snapshot")
