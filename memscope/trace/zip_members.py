"""Which member of a zip archive is the snapshot: one of several that were packed together, or what torch.save wrote."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from memscope.errors import InputFileError, SeveralSnapshotsError, first_line

ZIP_MAGIC = b"PK\x03\x04"
UNREADABLE_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What a damaged archive raises, or one that is encrypted or packed in a way that Python does not know."""
_MAX_MEMBERS = 10_000
_TORCH_SAVE = "data.pkl"
_SNAPSHOT_SUFFIXES = (".pickle", ".pkl", ".json", ".gz", ".bin", ".dump", ".snapshot", ".csv", ".p", "")


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive does; false where it cannot be opened, which its reader says."""
    try:
        with path.open("rb") as file:
            return file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    except (OSError, ValueError):
        return False


def member_names(path: Path) -> list[str] | None:
    """The names in a zip archive, None if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (*UNREADABLE_ZIP, OSError):
        return None


def is_of_torch_save(name: str) -> bool:
    """Whether a member is the pickle in an archive of ``torch.save``."""
    return name.rpartition("/")[2] == _TORCH_SAVE


def choose_member(path: Path, part: str | None) -> tuple[str | None, str | None]:
    """The member to read and the part to take of it, of the part of a file that was asked for.

    What is no zip archive has no member.

    Raises
    ------
    SeveralSnapshotsError
        If the archive holds several and none was named.
    InputFileError
        If it holds none, or cannot be read.
    """
    if not is_zip(path):
        return None, part
    names = member_names(path)
    if names is None or len(names) > _MAX_MEMBERS:
        raise InputFileError(path, "damaged: its zip archive cannot be read")
    if part is not None:
        head, _, rest = part.partition("#")
        if part in names or head in names:
            return (part, None) if part in names else (head, rest)
    saved = [name for name in names if is_of_torch_save(name)]
    found = saved[:1] or [name for name in names if _may_be_snapshot(name)]
    if len(found) == 1:
        return found[0], part
    if found:
        raise SeveralSnapshotsError(path, found, part)
    raise InputFileError(path, "is a zip archive, but neither a .memscope file nor a memory snapshot")


def _may_be_snapshot(name: str) -> bool:
    last = name.rpartition("/")[2]
    return bool(last) and not last.startswith(".") and Path(last).suffix.lower() in _SNAPSHOT_SUFFIXES


def open_member(path: Path, file: BinaryIO, member: str) -> tuple[zipfile.ZipInfo, IO[bytes]]:
    """A member's record and its bytes as a stream.

    Raises
    ------
    InputFileError
        If it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(file)
        info = archive.getinfo(member)
        return info, archive.open(info)
    except UNREADABLE_ZIP as error:
        raise InputFileError(path, f"damaged: its zip archive cannot be read ({first_line(error)})") from error
