"""The ``.memscope`` file: a stored zip of ``meta.json`` and one Parquet table (zstd) for each part of the trace."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from memscope.errors import InputFileError, InvariantError, first_line
from memscope.files import whole_file
from memscope.parquet_pages import unpacked_bytes
from memscope.trace import schema
from memscope.trace.metadata import TraceMetadata
from memscope.trace.tables import (
    BlockTable,
    CacheLayerTable,
    CacheLengthTable,
    MarkTable,
    OwnerTable,
    SampleTable,
    SegmentTable,
    StackTable,
    Table,
)
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIX = ".memscope"
ZIP_MAGIC = b"PK\x03\x04"
META_NAME = "meta.json"
_MAX_META_BYTES = 16 << 20
_FREE_BYTES = 64 << 20
_MAX_BYTES_PER_BYTE = 128
"""Past the first 64 MiB a file's tables may not unpack to more than 128 bytes for each of the file's. Those of traces
unpack to less than 20; repeated values could be packed ten thousand times, and are then made to fill memory."""
_WIDTHS = {"INT64": 8, "INT32": 4, "BOOLEAN": 1}
"""Bytes of a value, by the name that Parquet gives its type."""
_WRITER = "parquet-cpp-arrow"
_BYTES_PER_TEXT = 56
"""Of a text in Python's memory beside its characters, at least."""
_TABLES: dict[str, type[Table]] = {
    "segments": SegmentTable,
    "blocks": BlockTable,
    "samples": SampleTable,
    "marks": MarkTable,
    "owners": OwnerTable,
    "cache_layers": CacheLayerTable,
    "cache_lengths": CacheLengthTable,
}
_INT64, _INT32 = np.dtype(np.int64), np.dtype(np.int32)
_PLAIN_PARTS: dict[str, schema.Columns] = {
    "events": schema.EVENT_COLUMNS,
    "stacks": {"n_frames": _INT64},
    "frames": schema.FRAME_COLUMNS,
    "ids": {"frame_id": _INT32},
    "strings": {},
    "streams": {"handle": _INT64},
    "pools": {"first": _INT64, "second": _INT64},
}
"""Parts that are no tables of their own in a trace, with the columns that hold numbers."""
_OWNERS_BY_ADDRESS = 2
"""Schema version since which an owner may be named by an address."""
_SINCE = {"cache_layers": 3, "cache_lengths": 3}
"""Schema version since which a table is there."""

_DELTA_COLUMNS = ("time_ns", "address", "event", "alloc_event")


_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    InvariantError,
)
"""What a damaged zip, JSON or table raises: wrong types, missing parts, encrypted or nested beyond all reading."""


def write_container(trace: Trace, path: str | Path, *, overwrite: bool = False, is_synced: bool = True) -> Path:
    """Write a trace to a ``.memscope`` file; the file appears whole or not at all.

    Parameters
    ----------
    is_synced
        Whether it is on disk when it appears, so that it outlives the machine's failure and not the process's alone.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false.
    InputFileError
        If it cannot be written there.
    """
    metadata = _encode_metadata(trace.metadata, Path(path))
    with (
        whole_file(path, overwrite=overwrite, is_synced=is_synced) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr(_undated(META_NAME), metadata)
        tables = {name: _encode(columns) for name, columns in _parts(trace).items()}
        if not _are_readable(tables, sum(len(_utf8(text)) for text in trace.strings)):
            # So even are the events that the reader would take the file for one made to fill memory.
            tables = {name: _encode(columns, is_packed=False) for name, columns in _parts(trace).items()}
        for name, data in tables.items():
            archive.writestr(_undated(f"{name}.parquet"), data)
    return Path(path)


def _encode_metadata(metadata: TraceMetadata, path: Path) -> bytes:
    """The metadata as the reader takes it.

    Raises
    ------
    InputFileError
        If it would not.
    """
    try:
        data = json.dumps(_record(metadata), indent=1, allow_nan=False).encode()
        _check_metadata(data)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputFileError(path, f"cannot be written: no reader would take it: {first_line(error)}") from error
    return data


def _check_metadata(data: bytes) -> None:
    if len(data) > _MAX_META_BYTES:
        raise ValueError(f"what is recorded beside the events takes {len(data):,} bytes")
    TraceMetadata.from_json(json.loads(data))


def _are_readable(tables: Mapping[str, bytes], n_text_bytes: int) -> bool:
    """Whether a reader has room for what the tables unpack to, and for the characters of their texts."""
    import pyarrow.parquet as pq

    room = _Room(sum(map(len, tables.values())))
    try:
        for name, data in tables.items():
            room.take(name, pq.read_metadata(io.BytesIO(data)), data)
            if name == "strings":
                room.take_texts(name, n_text_bytes)
    except ValueError:
        return False
    return True


def _record(metadata: TraceMetadata) -> dict[str, Any]:
    record = metadata.to_json()
    if not metadata.address_bases:
        record["schema_version"] = schema.SCHEMA_VERSION_WITHOUT_BASES
    return record


def _undated(name: str) -> zipfile.ZipInfo:
    """A member without a time of its own, so that the same trace always gives the same bytes."""
    return zipfile.ZipInfo(name)


def read_container(path: str | Path) -> Trace:
    """Read a ``.memscope`` file.

    Raises
    ------
    InputFileError
        If it is not one, is damaged, or was written by a newer memscope.
    """
    import pyarrow as pa

    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = _read_metadata(archive, path)
            names = [n for n in (*_PLAIN_PARTS, *_TABLES) if metadata.schema_version >= _SINCE.get(n, 0)]
            room = _Room(path.stat().st_size)
            parts = {name: _decode(archive, name, room) for name in names}
            if metadata.schema_version < _OWNERS_BY_ADDRESS:
                nowhere = np.full(len(parts["owners"]["alloc_event"]), schema.NONE_ID)
                parts["owners"] |= {"device": nowhere, "address": nowhere}
            # A column that came without a new version: readers that do not know it pass it over.
            not_measured = np.full(len(parts["samples"]["event"]), schema.NONE_ID)
            parts["samples"].setdefault("others_used_bytes", not_measured)
            not_seen = np.full(len(parts["owners"]["alloc_event"]), schema.NONE_ID)
            parts["owners"].setdefault("tensor_id", not_seen)
            metadata = dataclasses.replace(metadata, schema_version=schema.SCHEMA_VERSION)
            pa.default_memory_pool().release_unused()
            return _trace(parts, metadata)
    except (pa.ArrowException, *_UNREADABLE) as error:
        raise InputFileError(path, f"not a readable .memscope file: {first_line(error)}") from error
    except OSError as error:  # pyarrow has no numbers for what it finds damaged
        if error.strerror is None:
            raise InputFileError(path, f"not a readable .memscope file: {first_line(error)}") from error
        raise InputFileError(path, f"cannot be read: {error.strerror}") from error


def _read_metadata(archive: zipfile.ZipFile, path: Path) -> TraceMetadata:
    if archive.getinfo(META_NAME).file_size > _MAX_META_BYTES:
        raise InputFileError(path, "not a readable .memscope file: its meta.json is larger than any real one")
    record = json.loads(_member(archive, META_NAME), parse_constant=_refuse_constant)
    version = record["schema_version"]
    if version > schema.SCHEMA_VERSION:
        raise InputFileError(
            path,
            f"written by a newer memscope (schema {version}, this one reads up to {schema.SCHEMA_VERSION}): "
            "upgrade with pip install -U torch-memscope",
        )
    return TraceMetadata.from_json(record)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} in its meta.json, which is no number of JSON")


def _parts(trace: Trace) -> dict[str, dict[str, Any]]:
    stacks = trace.stacks
    parts: dict[str, dict[str, Any]] = {
        "events": {name: getattr(trace, name) for name in schema.EVENT_COLUMNS},
        "stacks": {"n_frames": np.diff(stacks.offsets)},
        "frames": {"name_id": stacks.name_id, "filename_id": stacks.filename_id, "line": stacks.line},
        "ids": {"frame_id": stacks.frame_ids},
        "strings": {"text": list(trace.strings)},
        "streams": {"handle": trace.stream_handles},
        "pools": {"first": trace.pools[:, 0], "second": trace.pools[:, 1]},
    }
    parts |= {name: getattr(trace, name).columns() for name in _TABLES}
    return parts


def _encode(columns: Mapping[str, Any], *, is_packed: bool = True) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {
        name: pa.array([_utf8(text) for text in values], pa.binary()) if isinstance(values, list) else pa.array(values)
        for name, values in columns.items()
    }
    delta = {name: "DELTA_BINARY_PACKED" for name in arrays if name in _DELTA_COLUMNS}
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(arrays),
        buffer,
        compression="zstd" if is_packed else "none",
        compression_level=9 if is_packed else None,
        use_dictionary=[name for name in arrays if name not in delta] if is_packed else False,
        column_encoding=(delta or None) if is_packed else None,
        write_statistics=False,
        store_schema=False,
    )
    return buffer.getvalue()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's bytes; all are stored as they are, so none can unpack to more than the file has."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its member {name} is compressed")
    return archive.read(name)


def _decode(archive: zipfile.ZipFile, name: str, room: _Room) -> dict[str, Any]:
    import pyarrow.parquet as pq

    # Texts stay in their dictionary until it is known what they are together: a long one may be named by many rows.
    texts = ["text"] if name == "strings" else None
    data = _member(archive, f"{name}.parquet")
    file = pq.ParquetFile(io.BytesIO(data), read_dictionary=texts)
    room.take(name, file.metadata, data)
    # In this thread: those of pyarrow's that have just been started abort a process that ends at once.
    table = file.read(use_threads=False)
    if len(set(table.column_names)) != len(table.column_names):
        raise ValueError(f"its table {name} has a column twice")
    dtypes = _PLAIN_PARTS[name] if name in _PLAIN_PARTS else _TABLES[name].COLUMNS
    return {
        column: _texts(name, table.column(column), room)
        if column == "text"
        else _in_range(column, _numbers(column, table.column(column)), dtypes.get(column))
        for column in table.column_names
    }


def _in_range(name: str, values: npt.NDArray[Any], dtype: np.dtype[Any] | None) -> npt.NDArray[Any]:
    """A column as it is, if its numbers fit the type that it will have; a column that is not known is not looked at."""
    if dtype is None or values.dtype == dtype or not len(values):
        return values
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if int(values.min()) < low or int(values.max()) > high:
        raise ValueError(f"its column {name} has numbers that do not fit {dtype}")
    return values


class _Room:
    """What the tables of a file may still unpack to, in proportion to the file; asked before one is unpacked."""

    def __init__(self, n_file_bytes: int) -> None:
        self._n_file_bytes = n_file_bytes
        self._left_bytes = _FREE_BYTES + _MAX_BYTES_PER_BYTE * n_file_bytes

    def take(self, table: str, metadata: pq.FileMetaData, data: bytes) -> None:
        """Take what a table needs: by the footer, and by the header of each page, which need not agree.

        Raises
        ------
        ValueError
            If a column is of a type that no table has, or there is not so much room.
        """
        if not metadata.created_by.startswith(_WRITER):
            # Of old files of others Arrow reads more than they say.
            raise ValueError(f"its table {table} was not written by Arrow")
        for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
            for column in (group.column(i) for i in range(group.num_columns)):
                if column.num_values != group.num_rows:
                    raise ValueError(f"its column {column.path_in_schema} has not one value a row")
                if (table, column.path_in_schema) == ("strings", "text"):
                    needed = _BYTES_PER_TEXT * column.num_values
                elif column.physical_type in _WIDTHS:
                    needed = _WIDTHS[column.physical_type] * column.num_values
                else:
                    raise ValueError(f"its column {column.path_in_schema} is of type {column.physical_type}")
                # The file says these numbers: a negative one makes no room.
                self._left_bytes -= max(needed, _unpacked_bytes(column, data), 0)
                self._check(table)

    def take_texts(self, table: str, n_bytes: int) -> None:
        """Take what the characters of texts need.

        Raises
        ------
        ValueError
            If there is not so much room.
        """
        self._left_bytes -= n_bytes
        self._check(table)

    def _check(self, table: str) -> None:
        if self._left_bytes < 0:
            raise ValueError(f"its table {table} unpacks to far more than any real one in {self._n_file_bytes:,} bytes")


def _unpacked_bytes(column: pq.ColumnChunkMetaData, data: bytes) -> int:
    """What a column's pages unpack to; they begin with its dictionary, where it has one. Of no rows none is read."""
    if not column.num_values:
        return 0
    begin = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < begin:
        begin = column.dictionary_page_offset
    return unpacked_bytes(data, begin, column.total_compressed_size)


def _texts(table: str, column: pa.ChunkedArray, room: _Room) -> list[str]:
    """The texts of a column; equal ones are one object."""
    if column.null_count:
        raise ValueError(f"its table {table} has missing texts")
    texts: list[str] = []
    for chunk in column.chunks:
        packed: list[bytes] = chunk.dictionary.to_pylist()
        indices: list[int] = chunk.indices.to_pylist()
        room.take_texts(table, int(np.array([len(text) for text in packed], np.int64)[indices].sum()))
        known = [text.decode("utf-8", "surrogatepass") for text in packed]
        texts += [known[i] for i in indices]
    return texts


def _numbers(name: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column; pyarrow's own conversion would import pandas, for half a second."""
    if column.null_count:
        raise ValueError(f"its column {name} has missing values")
    is_bits = str(column.type) == "bool"
    dtype = np.dtype(np.uint8 if is_bits else str(column.type))
    if dtype.kind not in "iu":
        raise ValueError(f"its column {name} is of type {column.type}")
    parts = []
    for chunk in column.chunks:
        buffer, first, n = chunk.buffers()[1], chunk.offset, len(chunk)
        if is_bits and n:
            parts.append(np.unpackbits(np.frombuffer(buffer, dtype), bitorder="little")[first : first + n])
        elif n:
            parts.append(np.frombuffer(buffer, dtype, n, first * dtype.itemsize))
    values = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, dtype)])
    return values.view(np.bool_) if is_bits else values


def _trace(parts: Mapping[str, dict[str, Any]], metadata: TraceMetadata) -> Trace:
    lengths = parts["stacks"]["n_frames"]
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    tables: dict[str, Any] = {name: kind.from_columns(parts[name]) for name, kind in _TABLES.items() if name in parts}
    return Trace(
        **{name: parts["events"][name] for name in schema.EVENT_COLUMNS},
        stacks=StackTable(offsets=offsets, frame_ids=parts["ids"]["frame_id"], **parts["frames"]),
        strings=tuple(parts["strings"]["text"]),
        stream_handles=parts["streams"]["handle"],
        pools=np.column_stack([parts["pools"]["first"], parts["pools"]["second"]]),
        metadata=metadata,
        **tables,
    )
