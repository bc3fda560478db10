"""Files: read where they are files, within bounds; written whole or not at all, and never over another one unasked."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from memscope.errors import InputFileError, UsageError, first_line
from memscope.units import MiB, format_bytes

try:
    import fcntl
except ImportError:  # Windows, where what a killed writer leaves stays
    fcntl = None  # type: ignore[assignment]

GZIP_MAGIC = b"\x1f\x8b"
FREE_UNPACKED_BYTES = 32 * MiB
MAX_UNPACKED_RATIO = 16
"""Past the first 32 MiB packed text may not have more than 16 times its size; request traces have 3 to 8 times."""
LEAST_FREE_BYTES = 16 * MiB
"""A disk with less is called full before long work whose result is to be written there."""
_N_ASIDE = 32
"""Characters that the name under which a file is written has beside the file's own."""
_MAX_NAME_BYTES = 255
_N_TRIES = 10
_UNFINISHED: set[Path] = set()
"""Under which names this process is writing."""
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_file(path: str | Path) -> None:
    """Refuse what would be waited for, or has no end: pipes, sockets, devices. What is not there its reader says.

    Raises
    ------
    InputFileError
        Naming what it is.
    """
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116 (which answers for any name)
    except (OSError, ValueError):
        return
    if kind is not None:
        raise InputFileError(path, f"is {kind}, not a file: write what it gives to a file first")


def unpacked(path: str | Path, content: bytes) -> bytes:
    """What a file holds: of a gzip what is packed in it, within bounds; of another its bytes.

    Parameters
    ----------
    path
        The file's name, for the message.

    Raises
    ------
    InputFileError
        If it is damaged, or unpacks to far more than a file of its size has.
    """
    if not content.startswith(GZIP_MAGIC):
        return content
    limit = FREE_UNPACKED_BYTES + MAX_UNPACKED_RATIO * len(content)
    parts: list[bytes] = []
    left = content
    try:
        while left.startswith(GZIP_MAGIC):
            inflater = zlib.decompressobj(wbits=31)
            parts.append(inflater.decompress(left, limit + 1))
            limit -= len(parts[-1])
            if limit < 0:
                raise InputFileError(path, f"unpacks to more than {MAX_UNPACKED_RATIO} times its size: unpack it first")
            if not inflater.eof:
                raise InputFileError(path, "cannot be read: its gzip stream ends early")
            left = inflater.unused_data
    except zlib.error as error:
        raise InputFileError(path, f"cannot be read: {first_line(error)}") from error
    return b"".join(parts)


@contextmanager
def whole_file(path: str | Path, *, overwrite: bool = False, is_synced: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name when the block ends without an error, synced or not.

    It is written beside its place under a name of its own, so that several may write to one place: one that may not
    overwrite and finds another's file there says so, else the last is kept. What a writer left there that was killed is
    removed by the next one.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false, or what is there is no file.
    InputFileError
        If it cannot be written there.
    """
    path = Path(path)
    require_place(path, overwrite=overwrite)
    try:
        aside, file = _open_aside(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    _UNFINISHED.add(aside)
    try:
        with file:
            yield file
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
        _put_in_place(aside, path, overwrite=overwrite)
        if is_synced:
            _sync_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, str(aside)):
            raise  # of what the block does beside writing
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        _UNFINISHED.discard(aside)


def remove_unfinished() -> None:
    """Remove what is being written, for a process that ends at once."""
    for aside in list(_UNFINISHED):
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def require_room(path: str | Path) -> None:
    """Find out, before long work, whether its result could be written there.

    Raises
    ------
    UsageError
        If what is there is no file.
    InputFileError
        If the folder is not there or cannot be written to, or its disk is full.
    """
    path = Path(path)
    require_place(path, overwrite=True)
    try:
        aside, file = _open_aside(path)
        try:
            with file:
                file.write(bytes(1 << 16))  # a quota is met by writing alone
                file.flush()
                if hasattr(os, "fstatvfs"):
                    disk = os.fstatvfs(file.fileno())
                    free_bytes = disk.f_bavail * disk.f_frsize
                    if free_bytes < LEAST_FREE_BYTES:
                        raise InputFileError(
                            path, f"cannot be written: {format_bytes(free_bytes)} of its disk are free"
                        )
        finally:
            with suppress(OSError):
                aside.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def require_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a place for an output that has something else.

    Raises
    ------
    UsageError
        If there is no file there but something else, or a file that may not be overwritten.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")
        raise UsageError(f"{path} is {kind}: choose another name for the file to write")
    if not overwrite:
        raise _exists(path)


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists already: choose another name, or overwrite it with -f")


def _unwritable(path: Path, error: OSError) -> InputFileError:
    return InputFileError(path, f"cannot be written: {error.strerror or error}")


def _open_aside(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside the place of another, hidden, with a name that nobody else has; it is held while it is open."""
    room = _MAX_NAME_BYTES - _N_ASIDE
    name = os.fsencode(path.name)[:room].decode("utf-8", "ignore")
    _remove_left(path.parent, name)
    for _ in range(_N_TRIES):
        aside = path.with_name(f".{name}.{secrets.token_hex(8)}.partial")
        file = open(aside, "xb")  # noqa: PTH123, SIM115 (the caller's with)
        # Before it was held another may have taken it for one that was left, and removed it.
        if _is_held(file) and os.fstat(file.fileno()).st_nlink:
            break
        file.close()
    return aside, file


def _remove_left(folder: Path, name: str) -> None:
    """Remove what killed writers of a file left: it has a name of theirs, and nobody holds it."""
    if fcntl is None:
        return
    theirs = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.partial")
    with suppress(OSError), os.scandir(folder) as entries:
        left = [
            entry.path for entry in entries if theirs.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        ]
        for path in left:
            with suppress(OSError), open(path, "r+b") as file:  # noqa: PTH123
                if _is_held(file, unless_unknown=False):
                    os.unlink(path)  # noqa: PTH108


def _is_held(file: BinaryIO, *, unless_unknown: bool = True) -> bool:
    """Hold a file until it is closed, or its process ends; false if another holds it."""
    if fcntl is None:
        return unless_unknown
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk that knows no locks
        return unless_unknown
    return True


def _put_in_place(aside: Path, path: Path, *, overwrite: bool) -> None:
    try:
        if overwrite or not _is_linked(aside, path):
            aside.replace(path)
    except FileExistsError as error:  # another has written it meanwhile
        raise _exists(path) from error


def _is_linked(aside: Path, path: Path) -> bool:
    """Give a file its name unless there is one of that name; false where the disk knows no such links."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT):
            raise
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Have the name on disk, too, where folders can be synced."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
