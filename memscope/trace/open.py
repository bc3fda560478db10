"""Opening a trace file of any kind, by its content."""

from __future__ import annotations

from pathlib import Path

from memscope.errors import InputFileError
from memscope.files import require_file
from memscope.trace.container import META_NAME, read_container
from memscope.trace.recording.assembling import read_unfinished
from memscope.trace.recording.folder import is_unfinished, part_of
from memscope.trace.snapshot.read import read_snapshot
from memscope.trace.trace import Trace
from memscope.trace.zip_members import is_zip, member_names


def open_trace(path: str | Path) -> Trace:
    """Read a ``.memscope`` file, a torch memory snapshot or a log of RMM; what it is, its first bytes tell.

    A folder in which a recording was cut off is read as far as the recording came, also by the name of the file that
    it would have become. Of a file of several snapshots, ``FILE#PART`` is one.

    Raises
    ------
    SeveralSnapshotsError
        If it holds several snapshots, and none of them was named.
    InputFileError
        If it is neither, or cannot be read; the message is one line that names the file and the reason.
    """
    path = Path(path)
    if is_unfinished(path):
        return read_unfinished(path)
    if is_unfinished(part_of(path)) and not path.exists():
        return read_unfinished(part_of(path))
    file, part = split_part(path)
    require_file(file)
    if not is_container(file):
        return read_snapshot(file, part)
    if part is not None:
        raise InputFileError(path, "a .memscope file has one trace and no parts: leave out the #")
    return read_container(file)


def split_part(path: Path) -> tuple[Path, str | None]:
    """The file, and which of its snapshots, that ``FILE#PART`` means; a file of that whole name goes first."""
    text = str(path)
    try:
        if "#" not in text or path.exists():
            return path, None
        for at in (i for i, character in enumerate(text) if character == "#"):
            if text[at + 1 :] and Path(text[:at]).is_file():
                return Path(text[:at]), text[at + 1 :]
    except (OSError, ValueError):
        pass  # no file's name at all, which its reader says
    return path, None


def is_container(path: Path) -> bool:
    """Whether a file is a ``.memscope`` file, or a zip archive so damaged that it may have been one."""
    if not is_zip(path):
        return False
    names = member_names(path)
    return names is None or META_NAME in names
