"""Bytes of a snapshot, wherever they are: in a plain or a packed file, an archive, or a MemoryViz page; in steps."""

from __future__ import annotations

import base64
import binascii
import bz2
import io
import lzma
import mmap
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from memscope.errors import InputFileError, UnsafePickleError, first_line
from memscope.trace.snapshot._old_pages import snapshot_in_old_page
from memscope.trace.snapshot._other_kinds import named_by_page, named_by_start, named_by_suffix
from memscope.trace.zip_members import UNREADABLE_ZIP, ZIP_MAGIC, open_member

STEP_BYTES = 1 << 20
"""How much is read, inflated or decoded at once."""
FREE_INFLATED_BYTES = 16 << 20
MAX_GZIP_RATIO = 100
"""Past the first 16 MiB a gzip may not hold more than 100 times its own size. Real snapshots hold 4 to 25 times, one
of 300 kB 69 times; the most that gzip can do is 1,032 times, and a bomb comes close to that."""
MAX_PACKED_RATIO = 400
"""The same for formats that pack better; memory has a bound of its own, of what was read of the file."""
GZIP_MAGIC = b"\x1f\x8b"
_PACKED_MAGIC = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_PICKLE_STARTS = b"\x80(]})"
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/]{32,}={0,2}")
_BASE64_PICKLE_STARTS = (b"gA", b"H4sI", b"KG", b"XX", b"fX", b"fQ")
_JSON_IN_PAGE = re.compile(rb"\{\s*\"(?:segments|device_traces)\"\s*:\s*\[")
_MIN_PEEK_BYTES = 512
BOM = b"\xef\xbb\xbf"
_RMM_COLUMNS = frozenset({b"thread", b"time", b"action", b"pointer", b"size", b"stream"})
_RMM_EVENT = re.compile(rb"\d+,[\d:.]+,(?:allocate|allocate failure|free|deallocate),", re.IGNORECASE)
"""The first event of a log of RMM, where a framework printed it without the names of the columns."""


class Content(Enum):
    """What the bytes of a source are, by the first of them."""

    PICKLE = "pickle"
    JSON = "JSON"
    RMM_LOG = "RMM log"


def content_of(start: bytes) -> Content | None:
    """What bytes that begin so may be; None for everything else."""
    if start[:1] and start[0] in _PICKLE_STARTS:
        return Content.PICKLE
    text = start.removeprefix(BOM).lstrip()
    if text[:1] in (b"{", b"["):
        return Content.JSON
    names = {name.strip(b' "').lower() for name in text.splitlines()[0].split(b",")} if text else set()
    is_log = names >= _RMM_COLUMNS or _RMM_EVENT.match(text)
    return Content.RMM_LOG if is_log else None


class ByteSource(Protocol):
    """Where a snapshot's bytes come from."""

    n_file_bytes: int
    """How much of the file has been read so far."""
    is_whole: bool
    """Whether the snapshot is all there is; false where it stands in a page."""
    notes: tuple[str, ...]
    """What is to be known of where it was found."""

    def peek(self) -> bytes:
        """The first bytes, before any were read; those stay to be read."""

    def read(self) -> bytes:
        """The next bytes, at most about ``STEP_BYTES``; none at the end."""


@contextmanager
def open_source(path: Path, member: str | None = None) -> Iterator[ByteSource]:
    """Open what a file holds: a pickle, JSON, or a log.

    Parameters
    ----------
    member
        The member to read of a zip archive.

    Raises
    ------
    InputFileError
        If the file cannot be opened, or is plainly something else; the reason names what.
    """
    try:
        if path.is_dir():
            raise InputFileError(path, "is a directory, not a file")
        file = path.open("rb")
    except OSError as error:
        raise InputFileError(path, _os_reason(error)) from error
    except ValueError as error:  # a null byte in the path
        raise InputFileError(ascii(str(path)), "is no file name") from error
    with file:
        try:
            yield _source(path, file) if member is None else _member_source(path, file, member)
        except OSError as error:
            raise InputFileError(path, _os_reason(error)) from error


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return f"cannot be read: {error.strerror or error}"


def _source(path: Path, file: BinaryIO) -> ByteSource:
    plain = _PlainSource(file)
    start = plain.peek()
    if start.startswith(GZIP_MAGIC):
        inflated = _GzipSource(path, plain)
        inner = inflated.peek()
        if inner.startswith(GZIP_MAGIC):
            raise InputFileError(path, "is a gzip inside a gzip: unpack it once")
        if _looks_like_html(inner):
            raise InputFileError(path, "is a gzipped HTML page: unpack it first")
        _check_start(path, inner, "the gzip holds ")
        return inflated
    for magic, kind in _PACKED_MAGIC.items():
        if start.startswith(magic):
            file.seek(0)
            unpacked = _StreamSource(path, file, kind)
            _check_start(path, unpacked.peek(), f"the {kind} file holds ")
            return unpacked
    if _looks_like_html(start):
        return _embedded_source(path, file)
    _check_start(path, start, "is ")
    return plain


def _check_start(path: Path, start: bytes, verb: str) -> None:
    """Refuse what cannot be a pickle by its first bytes."""
    if not start:
        raise InputFileError(path, f"{verb}empty" if verb.endswith("is ") else f"{verb}nothing")
    if start.startswith(ZIP_MAGIC):
        raise InputFileError(path, f"{verb}a zip archive, not a memory snapshot")
    if start.startswith((GZIP_MAGIC, *_PACKED_MAGIC)):
        raise InputFileError(path, f"{verb}another packed file: unpack it once")
    named = named_by_start(start)
    if named is None and content_of(start) is None:
        named = named_by_suffix(path)
    if named is not None:
        raise InputFileError(path, verb + named)
    if content_of(start) is None:
        kind = "text" if _is_text(start) else "zeros" if not start.strip(b"\0") else "unknown data"
        shown = f", starting {start[:24].decode()!a}" if kind == "text" else ""
        raise InputFileError(path, f"{verb}{kind}{shown}: neither a memory snapshot (a pickle) nor a .memscope file")


def _is_text(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)


def _looks_like_html(start: bytes) -> bool:
    return start.removeprefix(BOM).lstrip()[:1] == b"<"


class _Steps(ABC):
    """Bytes that come in steps, of which the first can be looked at before they are read."""

    def __init__(self) -> None:
        self.n_file_bytes = 0
        self.is_whole = True
        self.notes: tuple[str, ...] = ()
        self._first = b""

    def peek(self) -> bytes:
        while len(self._first) < _MIN_PEEK_BYTES:
            more = self._next()
            if not more:
                break
            self._first += more
        return self._first[:_MIN_PEEK_BYTES]

    def read(self) -> bytes:
        first, self._first = self._first, b""
        return first or self._next()

    @abstractmethod
    def _next(self) -> bytes:
        """The next step, none at the end; counts what is read of the file."""


class _PlainSource(_Steps):
    """A file as it is."""

    def __init__(self, file: BinaryIO | mmap.mmap) -> None:
        super().__init__()
        self._file = file

    def _next(self) -> bytes:
        data = self._file.read(STEP_BYTES)
        self.n_file_bytes += len(data)
        return data


class _UnpackingSource(_Steps):
    """What a packed file holds, within a ratio to what was read of the file."""

    def __init__(self, path: Path, kind: str, max_ratio: int) -> None:
        super().__init__()
        self._path, self._kind, self._max_ratio = path, kind, max_ratio
        self._n_inflated = 0

    def _next(self) -> bytes:
        data = self._unpack()
        self._n_inflated += len(data)
        if self._n_inflated > FREE_INFLATED_BYTES and self._n_inflated > self._max_ratio * self.n_file_bytes:
            raise UnsafePickleError(
                self._path,
                f"its {self._kind} inflates more than {self._max_ratio} times, as no real snapshot does: "
                "refused as a bomb",
            )
        return data

    @abstractmethod
    def _unpack(self) -> bytes:
        """The next step of what is packed."""


class _GzipSource(_UnpackingSource):
    """A gzip of one or several members."""

    def __init__(self, path: Path, packed: ByteSource) -> None:
        super().__init__(path, "gzip", MAX_GZIP_RATIO)
        self._packed = packed
        self.n_file_bytes = packed.n_file_bytes
        self._inflater = zlib.decompressobj(wbits=31)
        self._pending = b""
        self._ended = False

    def _unpack(self) -> bytes:
        while not self._ended:
            if not self._pending and not self._inflater.eof:
                self._pending = self._packed.read()
                self.n_file_bytes = self._packed.n_file_bytes
                if not self._pending:
                    raise InputFileError(self._path, "truncated: its gzip stream ends early")
            if self._inflater.eof and not self._next_member():
                break
            try:
                data = self._inflater.decompress(self._pending, STEP_BYTES)
            except zlib.error as error:
                raise InputFileError(self._path, f"damaged: its gzip stream does not inflate ({error})") from error
            self._pending = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if data:
                return data
        return b""

    def _next_member(self) -> bool:
        """Start the next member, if what follows is one; anything else after the end is ignored, as gzip does."""
        if len(self._pending) < 2:
            more = self._packed.read()
            self.n_file_bytes = self._packed.n_file_bytes
            self._pending += more
        self._ended = not self._pending.startswith(GZIP_MAGIC)
        self._inflater = zlib.decompressobj(wbits=31)
        return not self._ended


def _member_source(path: Path, file: BinaryIO, member: str) -> ByteSource:
    """A member of a zip archive, gzipped or not."""
    info, stream = open_member(path, file, member)
    plain = _ZipSource(path, stream, min(info.compress_size, path.stat().st_size))
    source = _GzipSource(path, plain) if plain.peek().startswith(GZIP_MAGIC) else plain
    _check_start(path, source.peek(), f"is a zip archive, and its {info.filename[:60]!a} is ")
    return source


class _ZipSource(_UnpackingSource):
    """A member of a zip archive."""

    def __init__(self, path: Path, stream: IO[bytes], n_file_bytes: int) -> None:
        super().__init__(path, "zip archive", MAX_PACKED_RATIO)
        self._stream = stream
        self.n_file_bytes = n_file_bytes

    def _unpack(self) -> bytes:
        try:
            return self._stream.read(STEP_BYTES)
        except UNREADABLE_ZIP as error:
            reason = f"damaged: its zip archive does not unpack ({first_line(error)})"
            raise InputFileError(self._path, reason) from error


class _CountedFile(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.n_bytes += len(data)
        return len(data)


class _StreamSource(_UnpackingSource):
    """A file packed with bzip2, xz or zstd."""

    def __init__(self, path: Path, file: BinaryIO, kind: str) -> None:
        super().__init__(path, kind, MAX_PACKED_RATIO)
        self._counted = _CountedFile(file)
        self._stream = _unpacker(self._counted, kind)

    def _unpack(self) -> bytes:
        try:
            data: bytes = self._stream.read(STEP_BYTES)
        except (OSError, EOFError, lzma.LZMAError) as error:
            reason = first_line(error) if str(error) else "it ends early"
            raise InputFileError(self._path, f"damaged: its {self._kind} data does not unpack ({reason})") from error
        self.n_file_bytes = self._counted.n_bytes
        return data


def _unpacker(file: io.RawIOBase, kind: str) -> Any:
    """A stream of what a packed file holds."""
    if kind == "xz":
        return lzma.LZMAFile(io.BufferedReader(file))
    if kind == "bzip2":
        return bz2.BZ2File(io.BufferedReader(file))
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")


def _embedded_source(path: Path, file: IO[bytes]) -> ByteSource:
    """The first base64 text of an HTML page that decodes to the start of a pickle."""
    try:
        page = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputFileError(path, "is an HTML page that cannot be searched for a snapshot") from error
    for match in _BASE64_RUN.finditer(page):
        if not page[match.start() : match.start() + 4].startswith(_BASE64_PICKLE_STARTS):
            continue
        source = _Base64Source(path, page, match.start(), match.end())
        start = source.peek()
        if start.startswith(GZIP_MAGIC):
            inflated = _GzipSource(path, source)
            if inflated.peek()[:1] == b"\x80":
                return inflated
        elif start[:1] == b"\x80" and start[1:2] <= b"\x05":
            return source
    if (old := snapshot_in_old_page(path, page)) is not None:
        source_of_old = _PlainSource(io.BytesIO(old[0]))
        source_of_old.notes = (old[1],)
        return source_of_old
    if (json := _JSON_IN_PAGE.search(page)) is not None:
        page.seek(json.start())
        source_in_page = _PlainSource(page)
        source_in_page.is_whole = False
        return source_in_page
    reason = named_by_page(page) or "an HTML page that holds no memory snapshot (no base64 text in it is a pickle)"
    raise InputFileError(path, f"is {reason}")


class _Base64Source:
    """Base64 text between two positions of a page, decoded in steps."""

    def __init__(self, path: Path, page: mmap.mmap, start: int, stop: int) -> None:
        self._path = path
        self._page = page
        self._at = start
        self._stop = stop
        self.n_file_bytes = 0
        self.is_whole = True
        self.notes: tuple[str, ...] = ()

    def peek(self) -> bytes:
        return self._decode(self._at, min(self._stop, self._at + 4 * (_MIN_PEEK_BYTES // 4)))

    def read(self) -> bytes:
        end = min(self._stop, self._at + STEP_BYTES // 4 * 4)
        data = self._decode(self._at, end)
        self.n_file_bytes += end - self._at
        self._at = end
        return data

    def _decode(self, start: int, end: int) -> bytes:
        text = self._page[start:end]
        try:
            return base64.b64decode(text + b"=" * (-len(text) % 4))
        except binascii.Error as error:
            raise InputFileError(self._path, f"damaged: its embedded snapshot is not base64 ({error})") from error
