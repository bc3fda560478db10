"""Reading the logs of RMM, the RAPIDS Memory Manager: CSV as its ``logging_resource_adaptor`` writes it.

A log knows requests and frees: when, where, how many bytes, on which stream, by which thread. What RMM took from the
driver for them is not in it, nor any stack. Times are of the day, without a date (``HH:MM:SS.ffffff``; older releases
write ``:`` before the microseconds), or seconds since the epoch.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memscope.errors import InputFileError, first_line
from memscope.trace.metadata import RMM_SOURCE, TraceMetadata
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.snapshot._addresses import rebased
from memscope.trace.snapshot._byte_source import BOM, ByteSource
from memscope.trace.snapshot._events import MAX_DEVICES
from memscope.trace.snapshot._pickle_reader import BoolArray, Int64Array, dense_ids
from memscope.trace.tables import BlockTable, SegmentTable, StackTable
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("thread", "time", "action", "pointer", "size", "stream")
_ACTIONS = {
    "allocate": Action.ALLOC,
    "free": Action.FREE_COMPLETED,
    "deallocate": Action.FREE_COMPLETED,
    "allocate failure": Action.OOM,
}
_NULL = ("(nil)", "nullptr", "(null)", "null", "")
_OF_THE_DAY = r"^(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)(?:[:.](?P<fraction>\d{1,9})\d*)?$"
_OF_THE_EPOCH = r"^(?P<second>\d{1,10})(?:\.(?P<fraction>\d{1,9})\d*)?$"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}")
_MAX_SECONDS = ((1 << 63) - 1) // 10**9 - 1
_DAY_NS = 24 * 3600 * 10**9
_DEVICE_IN_NAME = re.compile(r"\.dev(\d{1,5})(?:\.|$)")
_PLAIN = bytes(byte if byte < 0x80 else ord("?") for byte in range(256))
"""RMM writes ASCII alone: what is not is said with its line, instead of being no text for the reader of CSV."""
_NOTES = (
    "A log of RMM has requests and frees only: segments, reserved bytes, rounding and stacks were not recorded.",
    "The log names no device; it is taken as device 0, or as the one that the file's name ends with (.dev1).",
)
_NO_DATE = "The times are of the day, counted from the first one's midnight: the log has no date."


def read_rmm_log(path: Path, source: ByteSource) -> Trace:
    """Read a log of RMM into a trace of one device.

    Raises
    ------
    InputFileError
        If it is damaged, or has values that RMM does not write; the message names the line.
    """
    return _RmmLog(path, source).trace()


class _SourceFile(io.RawIOBase):
    """A source's bytes as a file, without an order mark at their start, and with a line that names the columns."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        start = source.peek().removeprefix(BOM).lstrip()
        self.has_names = not start[:1].isdigit()
        self._pending = b"" if self.has_names else ",".join(_COLUMNS).encode() + b"\n"
        self._is_first = True
        self.last_byte = b""
        self.is_cut_off = False
        """Whether the last line has no end, and may lack more; known when all is read."""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next."""
        while not self._pending:
            data = self._source.read()
            if not data and self.last_byte in (b"", b"\n"):
                return 0
            if not data:
                self.is_cut_off, data = True, b"\n"  # every line of RMM's ends with one
            self._pending = (data.removeprefix(BOM).lstrip() if self._is_first else data).translate(_PLAIN)
            self._is_first = False
            self.last_byte = data[-1:]
        n = min(len(buffer), len(self._pending))
        buffer[:n] = self._pending[:n]
        self._pending = self._pending[n:]
        return n


def _is_whole(row: dict[str, str]) -> bool:
    """Whether the last row of a log that breaks off has all of its values."""
    return _NUMBER.fullmatch(row["stream"].strip()) is not None


class _RmmLog:
    """The rows of a log; a last one that was cut off is left out."""

    def __init__(self, path: Path, source: ByteSource) -> None:
        self._path = path
        self._n_names = 0
        self._notes = list(_NOTES)
        self._table = self._read(_SourceFile(source))

    def _read(self, file: _SourceFile) -> pa.Table:
        import pyarrow as pa
        from pyarrow import csv

        self._n_names = int(file.has_names)
        skipped: list[Any] = []

        def note(row: Any) -> str:
            skipped.append(row)
            return "skip" if len(skipped) == 1 else "error"

        try:
            table = csv.read_csv(
                pa.PythonFile(io.BufferedReader(file), "r"),
                read_options=csv.ReadOptions(use_threads=False),
                parse_options=csv.ParseOptions(invalid_row_handler=note),
                convert_options=csv.ConvertOptions(default_column_type=pa.string(), strings_can_be_null=False),
            )
        except pa.ArrowInvalid as error:
            raise InputFileError(self._path, f"damaged: not a log of RMM: {first_line(error)[:160]!a}") from error
        names = [name.strip().lower() for name in table.column_names]
        missing = [name for name in _COLUMNS if names.count(name) != 1]
        if missing:
            raise InputFileError(
                self._path, f"is not a log of RMM: it has no column {missing[0].capitalize()!r}, or several"
            )
        table = table.rename_columns(names)
        if skipped and (not file.is_cut_off or skipped[0].number != len(table) + 2):
            raise self._error(skipped[0].number - 2, f"{skipped[0].actual_columns} columns instead of {len(names)}")
        is_broken = file.is_cut_off and len(table) > 0 and not _is_whole(table.slice(len(table) - 1).to_pylist()[0])
        if skipped or is_broken:
            self._notes.append("The log breaks off within its last line, which was left out.")
        return table.slice(0, len(table) - 1) if is_broken else table

    def _error(self, row: int, text: str) -> InputFileError:
        return InputFileError(self._path, f"line {row + 1 + self._n_names} of its log of RMM: {text}")

    def _text(self, name: str) -> pa.ChunkedArray:
        import pyarrow.compute as pc

        return pc.utf8_trim_whitespace(self._table.column(name))

    def _numbers(self, name: str, what: str) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """A column of unsigned numbers, decimal or ``0x`` and hexadecimal; what stands for no address is 0."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = self._text(name)
        if name != "size":
            nothing = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(_NULL))
            texts = pc.if_else(nothing, "0", texts)
        is_number = pc.match_substring_regex(texts, f"^(?:{_NUMBER.pattern})$").to_numpy()
        self._require(is_number, name, what)
        numbers: np.ndarray[tuple[int], np.dtype[np.uint64]] = pc.cast(texts, pa.uint64()).to_numpy()
        return numbers

    def _require(self, is_right: BoolArray, name: str, what: str) -> None:
        if not is_right.all():
            row = int((~is_right.astype(np.bool_)).argmax())
            value = self._table.column(name)[row].as_py()
            raise self._error(row, f"{name.capitalize()} {str(value)[:40]!a} is {what}")

    def _times_ns(self) -> Int64Array:
        import pyarrow.compute as pc

        texts = self._text("time")
        days = pc.extract_regex(texts, _OF_THE_DAY)
        is_of_day = pc.is_valid(days).to_numpy()
        found = days if is_of_day.all() else pc.extract_regex(texts, _OF_THE_EPOCH)
        self._require(pc.is_valid(found).to_numpy(), "time", "no time that RMM writes")

        def field(name: str) -> Int64Array:
            numbers: Int64Array = pc.cast(pc.struct_field(found, name), "int64").to_numpy()
            return numbers

        self._require(field("second") <= _MAX_SECONDS, "time", "no time that RMM writes")
        fraction = pc.utf8_rpad(pc.struct_field(found, "fraction"), 9, "0")
        times: Int64Array = field("second") * 10**9 + pc.cast(fraction, "int64").to_numpy()
        if not is_of_day.all():
            return times
        times = times + (field("hour") * 3600 + field("minute") * 60) * 10**9
        self._notes.append(_NO_DATE)
        # Threads may write a little out of order; a step back of half a day is midnight.
        return times + np.cumsum(np.diff(times, prepend=times[:1]) < -_DAY_NS // 2) * _DAY_NS

    def _actions(self) -> Int64Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pc.utf8_lower(self._text("action"))
        found = pc.index_in(texts, value_set=pa.array(list(_ACTIONS)))
        self._require(pc.is_valid(found).to_numpy(), "action", "none of RMM's")
        actions: Int64Array = np.array([int(action) for action in _ACTIONS.values()], np.int64)[found.to_numpy()]
        return actions

    def trace(self) -> Trace:
        """The rows as events; a free is torch's pair of a request and its completion."""
        action, time_ns = self._actions(), self._times_ns()
        address, size = self._numbers("pointer", "no address"), self._numbers("size", "no size")
        stream = self._numbers("stream", "no stream").view(np.int64)
        self._require(size < np.uint64(1 << 63), "size", "no size of any device")
        # Requests of nothing get no memory: torch records none of them.
        chosen = np.flatnonzero(size > 0)
        if n_empty := len(size) - len(chosen):
            self._notes.append(f"Requests and frees of 0 bytes, which get no memory, were left out: {n_empty:,}.")
        has_address = (action[chosen] != Action.OOM) & (size[chosen] > 0)
        stored, bases = rebased(self._path, address[chosen].view(np.int64), size[chosen].view(np.int64), has_address)
        repeat = np.repeat(np.arange(len(chosen)), 1 + (action[chosen] == Action.FREE_COMPLETED))
        rows = chosen[repeat]
        actions = action[rows]
        actions[np.flatnonzero(repeat[1:] == repeat[:-1])] = Action.FREE_REQUESTED
        none = np.full(len(rows), NONE_ID, np.int32)
        stream_ids, first = dense_ids(np.concatenate((np.zeros(1, np.int64), stream[rows])))
        return Trace(
            time_ns=time_ns[rows],
            action=actions.astype(np.int8),
            device=np.full(len(rows), self._device(), np.int16),
            address=np.where(actions == Action.OOM, NONE_ID, stored[repeat]),
            size_bytes=size[rows].view(np.int64),
            stream_id=stream_ids[1:],
            pool_id=none,
            stack_id=none,
            label_id=none,
            segments=SegmentTable.empty(),
            blocks=BlockTable.empty(),
            stacks=StackTable.empty(),
            strings=(),
            stream_handles=np.concatenate((np.zeros(1, np.int64), stream[rows]))[first],
            pools=np.zeros((1, 2), np.int64),
            metadata=self._metadata(bases),
        )

    def _device(self) -> int:
        found = _DEVICE_IN_NAME.search(self._path.name)
        device = 0 if found is None else int(found[1])
        return device if device < MAX_DEVICES else 0

    def _metadata(self, bases: tuple[tuple[int, int], ...]) -> TraceMetadata:
        return TraceMetadata(
            source=RMM_SOURCE,
            source_file=self._path.name,
            has_segment_events=False,
            block_layout_recorded=False,
            address_bases=bases,
            notes=tuple(self._notes),
        )
