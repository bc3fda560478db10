"""Reading a pickle of plain data, or JSON, into a tape: no global is ever resolved, no object of it is ever built."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from memscope._core import snapshot as core
from memscope.errors import InputFileError, UnsafePickleError
from memscope.trace.snapshot._byte_source import BOM, ByteSource

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
_Result = TypeVar("_Result")

NO_VALUE = 0
"""In place of a value: what a dict has for a key that it has not."""

_ALL = 1 << 62
_TRAILING_BYTES = 64 << 20
"""How far past the pickle's end a file is read on, so that a gzip's checksum is verified."""

_REASONS = {
    core.Status.UNSUPPORTED: (
        "has an opcode that no snapshot uses (a set, an outside buffer or an escaped protocol-0 text)"
    ),
    core.Status.UNKNOWN_OPCODE: "is not a pickle: no opcode has this code",
    core.Status.STACK_EMPTY: "is not a valid pickle: it takes from an empty stack",
    core.Status.NO_MARK: "is not a valid pickle: it closes what it never opened",
    core.Status.MEMO_MISSING: "is not a valid pickle: it refers to something it never stored",
    core.Status.WRONG_TARGET: "is not a valid pickle: it fills something that is no list or dict",
    core.Status.BAD_PROTOCOL: "is of a pickle protocol newer than 5",
    core.Status.BAD_NUMBER: "is not a valid pickle: a number is not one",
}
_JSON_REASONS = {
    core.Status.NOT_JSON: "is neither a memory snapshot nor JSON: something else stands where its syntax breaks",
    core.Status.TOO_DEEP: "is JSON that is nested deeper than any snapshot",
    core.Status.BAD_NUMBER: "is not JSON: a number is not one",
}
_TOO_MUCH_MEMORY = "its values would need far more memory than those of any snapshot of its size"
_UNSAFE_REASONS = {
    core.Status.MEMO_BEYOND: "numbers a stored object beyond its own size",
    core.Status.TOO_LONG: "declares a text or number of more than 16 MiB",
    core.Status.TOO_MANY_OBJECTS: "nests or multiplies empty objects far beyond any snapshot",
    core.Status.TOO_MUCH_MEMORY: _TOO_MUCH_MEMORY,
}
_REPEATS = "repeats one list or dict in so many places that its content multiplies: refused"
_NOT_RUN = "refused, nothing of it was executed"


class Tape:
    """A pickle's content. A value is an int64 that only the tape can take apart; ``NO_VALUE`` is none."""

    def __init__(self, path: Path, tape: core.Tape, what: str = "a pickle") -> None:
        self.path = path
        self.format = what
        """What the values were read from, in words."""
        self._tape = tape
        self._texts: dict[int, str] = {}

    @property
    def root(self) -> int:
        """The pickle's value."""
        return self._tape.root

    @property
    def in_core(self) -> core.Tape:
        """The values themselves, for what in the core looks at them."""
        return self._tape

    @property
    def n_texts(self) -> int:
        """Distinct texts, the known ones included."""
        return self._tape.n_texts

    # Single values -----------------------------------------------------------------------------------------------

    def is_there(self, value: int) -> bool:
        """Whether it is something other than None."""
        return self._tape.kind(value) != core.Kind.NOTHING

    def is_dict(self, value: int) -> bool:
        """Whether it is a dict."""
        return self._tape.kind(value) == core.Kind.DICT

    def is_sequence(self, value: int) -> bool:
        """Whether it is a list or a tuple, which may stand for each other."""
        return self._tape.kind(value) in (core.Kind.LIST, core.Kind.TUPLE)

    def is_integer(self, value: int) -> bool:
        """Whether it is an integer, of 64 bits or more."""
        return self._tape.kind(value) in (core.Kind.INTEGER, core.Kind.BEYOND_INTEGER)

    def scalar(self, value: int) -> Any:
        """A number, text, boolean or None as Python's own; an integer beyond 64 bits is None."""
        kind = self._tape.kind(value)
        if kind == core.Kind.TEXT:
            return self.text(self._tape.text_id(value))
        if kind == core.Kind.FLOAT_TEXT:
            return self._float(self.text(self._tape.text_id(value)))
        return self._tape.scalar(value)

    def _float(self, text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise InputFileError(self.path, f"damaged: {text[:24]!a} in it is not a number") from error

    def text(self, text_id: int) -> str:
        """A text by its id. Lone surrogates are written as escapes, so that every text can be printed.

        Raises
        ------
        InputFileError
            If it is not UTF-8.
        """
        known = self._texts.get(text_id)
        if known is None:
            data = self._tape.text(text_id)
            try:
                known = data.decode()
            except UnicodeDecodeError:
                try:
                    known = data.decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace").decode()
                except UnicodeDecodeError as error:
                    raise InputFileError(self.path, f"damaged: a text in it is not UTF-8 ({data[:24]!r})") from error
            self._texts[text_id] = known
        return known

    def mapping(self, value: int, *, limit: int) -> dict[str, int]:
        """A dict's values by those of its keys that are texts.

        Raises
        ------
        InputFileError
            If it has more than ``limit`` entries.
        """
        found = self._tape.keys_and_values(value)
        if len(found) > 2 * limit:
            raise InputFileError(self.path, "its tables of settings have far more entries than any torch writes")
        items = found.tolist()
        return {
            self.text(self._tape.text_id(key)): item
            for key, item in zip(items[::2], items[1::2], strict=True)
            if self._tape.kind(key) == core.Kind.TEXT
        }

    def entries(self, value: int, *, limit: int) -> dict[str, int]:
        """A dict's values by its keys, those that are texts or integers, as text; none of a dict beyond ``limit``."""
        found = self._tape.keys_and_values(value)
        if len(found) > 2 * limit:
            return {}
        items = found.tolist()
        keys = ((self._key(key), item) for key, item in zip(items[::2], items[1::2], strict=True))
        return {key: item for key, item in keys if key is not None}

    def _key(self, value: int) -> str | None:
        kind = self._tape.kind(value)
        if kind == core.Kind.TEXT:
            return self.text(self._tape.text_id(value))
        return str(self._tape.scalar(value)) if kind == core.Kind.INTEGER else None

    # Many values -------------------------------------------------------------------------------------------------

    def check_dicts(self, values: Int64Array, keys: Sequence[int]) -> tuple[BoolArray, int]:
        """Which keys, given as text ids, any of many dicts has; and the first value that is no dict, −1 if all are.

        Raises
        ------
        UnsafePickleError
            If one dict was put in very many places, or the table would take memory beyond the file's size.
        """
        return self._asked(lambda: self._tape.check_dicts(values, np.array(keys, np.int64)))

    def column(self, dicts: Int64Array, key: int) -> Int64Array:
        """Values of a key, ``NO_VALUE`` where a dict has it not."""
        return self._tape.column(dicts, key)

    def has(self, dicts: Int64Array, key: int) -> BoolArray:
        """Which dicts have the key, with something other than None."""
        return self._tape.has(dicts, key)

    def integers(self, dicts: Int64Array, key: int, *, missing: int, wrap: bool) -> tuple[Int64Array, int, bool]:
        """Integers of a key, the first row with something else (−1), and whether that is an integer beyond 64 bits."""
        return self._tape.integers(dicts, key, missing, wrap)

    def text_ids(self, dicts: Int64Array, key: int) -> tuple[Int64Array, int]:
        """Text ids of a key, −1 where there is none; and the first row with something else, −1."""
        return self._tape.text_ids(dicts, key)

    def booleans(self, dicts: Int64Array, key: int) -> tuple[BoolArray, int]:
        """Booleans of a key, False where there is none; and the first row with something else, −1."""
        return self._tape.booleans(dicts, key)

    def pairs(self, dicts: Int64Array, key: int) -> tuple[Int64Array, Int64Array, BoolArray, int]:
        """Pairs of integers of a key, which rows have one, and the first row with something else, −1."""
        return self._tape.pairs(dicts, key)

    def lengths(self, values: Int64Array) -> tuple[Int64Array, int]:
        """Lengths of many lists or tuples, and the first value that is neither, −1 if all are.

        Raises
        ------
        UnsafePickleError
            If one list was put in so many places that its items multiply beyond the pickle.
        """
        return self._asked(lambda: self._tape.lengths(values))

    def items(self, values: Int64Array, *, limit: int = _ALL) -> Int64Array:
        """Items of many lists or tuples, one after the other; at most ``limit`` of each.

        Raises
        ------
        UnsafePickleError
            If one list was put in so many places that its items multiply beyond the pickle.
        """
        return self._asked(lambda: self._tape.items(values, limit))

    def sequence(self, value: int) -> Int64Array:
        """Items of a list or tuple."""
        return self.items(np.array([value], np.int64))

    def sequences_in(self, columns: Sequence[Int64Array]) -> tuple[Int64Array, int]:
        """The lists and tuples in columns, each once; and the first row with another thing but None, −1."""
        return self._tape.sequences_in(list(columns))

    def boxes_in(self, lists: Int64Array) -> tuple[Int64Array, int]:
        """The items of many lists, each once; and the first list that holds anything but boxes, −1 if none does."""
        return self._tape.boxes_in(lists)

    def number_stacks(self, lists: Int64Array, frames: Int64Array, frame_ids: Int32Array) -> core.Stacks:
        """Number lists of frames by their content, by first appearance."""
        return self._tape.number_stacks(lists, frames, frame_ids)

    def _asked(self, ask: Callable[[], _Result]) -> _Result:
        try:
            return ask()
        except core.Multiplies as error:
            raise UnsafePickleError(self.path, _REPEATS) from error
        except core.Refused as error:
            raise UnsafePickleError(self.path, f"{_TOO_MUCH_MEMORY}: {_NOT_RUN}") from error


class NotSlicedError(Exception):
    """A part of a snapshot cannot be read without all of it: never an error of the user's."""


def fill_tape(
    path: Path, source: ByteSource, known: Sequence[str], part: tuple[core.MemoUse, core.EventSieve] | None = None
) -> Tape:
    """Read the pickle that a source gives into a tape.

    Parameters
    ----------
    known
        These texts get the ids 0, 1, … in their order, so that keys can be looked up by constant ids.
    part
        What is kept of the events, and which stored objects are asked for; all are kept if not given.

    Raises
    ------
    NotSlicedError
        If a part is asked for, and only all of the pickle tells it.
    InputFileError
        If it is no pickle of plain data, or is truncated.
    UnsafePickleError
        If it asks for code or for memory beyond its size; nothing of it was executed.
    """
    machine = core.Machine(list(known), _secret())
    if part is not None:
        machine.keep_part(*part)
    while (status := machine.feed(data := source.read(), source.n_file_bytes)) == core.Status.NEED_INPUT:
        if not data:
            raise InputFileError(path, f"truncated: the pickle breaks off at byte {machine.offset}")
    if status == core.Status.NOT_SLICED:
        raise NotSlicedError
    if status != core.Status.STOPPED:
        raise _refusal(path, machine, status)
    _drain(source)
    return Tape(path, machine.take_tape())


def find_memo_use(source: ByteSource) -> core.MemoUse:
    """Which stored objects of the pickle that a source gives are ever asked for.

    Raises
    ------
    NotSlicedError
        If it is no whole pickle of plain data.
    """
    scan = core.MemoScan()
    while scan.feed(data := source.read(), source.n_file_bytes) == core.Status.NEED_INPUT:
        if not data:
            raise NotSlicedError
    try:
        return scan.take_use()
    except core.Refused as error:
        raise NotSlicedError from error


def fill_from_json(path: Path, source: ByteSource, known: Sequence[str]) -> Tape:
    """Read the JSON that a source gives into a tape; as :func:`fill_tape`.

    Raises
    ------
    InputFileError
        If it is no JSON, is truncated, nested deeper than any snapshot, or followed by something else.
    UnsafePickleError
        If it asks for memory beyond its size.
    """
    reader = core.JsonReader(list(known), _secret())
    n_read, data = 0, source.read().removeprefix(BOM)
    while (status := reader.feed(data, source.n_file_bytes)) == core.Status.NEED_INPUT:
        n_read += len(data)
        data = source.read()
        if not data:
            raise InputFileError(path, f"truncated: the JSON breaks off at byte {reader.offset}")
    at = f"at byte {reader.offset}"
    if status in _UNSAFE_REASONS:
        raise UnsafePickleError(path, f"{_UNSAFE_REASONS[status]}, {at}: refused")
    if status != core.Status.STOPPED:
        raise InputFileError(path, f"{_JSON_REASONS[status]} ({at})")
    behind = data[reader.offset - n_read :]
    while source.is_whole and not behind.strip() and (behind := source.read()):
        pass
    if source.is_whole and behind:
        raise InputFileError(path, f"is more than one value of JSON: the first ends {at}")
    return Tape(path, reader.take_tape(), "JSON")


def _refusal(path: Path, machine: core.Machine, status: core.Status) -> InputFileError:
    at = f"at byte {machine.offset}"
    if status == core.Status.ASKS_GLOBAL:
        return UnsafePickleError(path, f"asks for {_global_name(machine)} {at}: {_NOT_RUN}")
    if status == core.Status.ASKS_CALL:
        return UnsafePickleError(path, f"asks to run code (opcode {machine.call_name}) {at}: {_NOT_RUN}")
    if status in _UNSAFE_REASONS:
        return UnsafePickleError(path, f"{_UNSAFE_REASONS[status]}, {at}: {_NOT_RUN}")
    return InputFileError(path, f"{_REASONS[status]} ({at})")


def _global_name(machine: core.Machine) -> str:
    """The name of the global that is asked for, as far as it can be told, safe to print."""
    if machine.asks_for_extension:
        return "a registered extension"
    return ".".join(map(_printable, machine.global_names)) or "a global"


def dense_ids(*columns: Int64Array) -> tuple[Int32Array, Int64Array]:
    """Number distinct rows by first appearance: the id of each row, and the row where each id first appears."""
    return core.dense_ids(list(columns), _secret())


def _secret() -> int:
    """Start of a hash that nobody can know when making a file of colliding keys. Ids do not depend on it."""
    return int.from_bytes(os.urandom(8), "little")


def _drain(source: ByteSource) -> None:
    n = 0
    while n < _TRAILING_BYTES and (data := source.read()):
        n += len(data)


def _printable(data: bytes) -> str:
    text = data[:60].decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in text)
