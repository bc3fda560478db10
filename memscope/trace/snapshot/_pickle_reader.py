"""Reading a pickle of plain data into a tape: no global is ever resolved, no object of it is ever built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memscope._kernels import pickle_scalars, pickle_tape, tape_tables
from memscope._kernels import tape_format as vm
from memscope.errors import InputFileError, UnsafePickleError
from memscope.trace.snapshot._byte_source import ByteSource, open_source

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

_WINDOW_BYTES = 4 << 20
_GROWTH = 1.3
_FIRST_ROWS = 1 << 14
_TRAILING_BYTES = 64 << 20
"""How far past the pickle's end a file is read on, so that a gzip's checksum is verified."""

_REASONS = {
    vm.UNSUPPORTED: "has an opcode that no snapshot uses (a set, an outside buffer or an escaped protocol-0 text)",
    vm.UNKNOWN_OPCODE: "is not a pickle: no opcode has this code",
    vm.STACK_EMPTY: "is not a valid pickle: it takes from an empty stack",
    vm.NO_MARK: "is not a valid pickle: it closes what it never opened",
    vm.MEMO_MISSING: "is not a valid pickle: it refers to something it never stored",
    vm.WRONG_TARGET: "is not a valid pickle: it fills something that is no list or dict",
    vm.BAD_PROTOCOL: "is of a pickle protocol newer than 5",
    vm.BAD_NUMBER: "is not a valid pickle: a number is not one",
}
_UNSAFE_REASONS = {
    vm.MEMO_BEYOND: "numbers a stored object beyond its own size",
    vm.TOO_LONG: f"declares a text or number of more than {vm.MAX_TEXT_BYTES >> 20} MiB",
    vm.TOO_MANY_OBJECTS: "nests or multiplies empty objects far beyond any snapshot",
}
_CALLS = {111: "OBJ", 129: "NEWOBJ", 146: "NEWOBJ_EX", 82: "REDUCE", 98: "BUILD", 80: "PERSID", 81: "BINPERSID"}


class Tape:
    """A pickle's content as tagged values (see :mod:`memscope._kernels.tape_format`).

    ``known`` texts get the ids 0, 1, … in their order, so that columns can be looked up by constant ids.
    """

    def __init__(self, path: Path, known: Sequence[str]) -> None:
        self.path = path
        rows = _FIRST_ROWS
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "state": np.zeros(vm.N_STATE, np.int64),
            "stack": np.zeros(rows, np.int64),
            "memo": np.zeros(rows, np.int64),
            "box_first": np.zeros(rows, np.int64),
            "box_last": np.zeros(rows, np.int64),
            "box_kind": np.zeros(rows, np.int8),
            "arena": np.zeros(4 * rows, np.int64),
            "text_start": np.zeros(rows + 1, np.int64),
            "text_bytes": np.zeros(4 * rows, np.uint8),
            "text_hash": np.zeros(rows + 1, np.int64),
            "slots": np.zeros(4 * rows, np.int64),
            "wide": np.zeros(rows, np.int64),
        }
        state = self._arrays["state"]
        state[vm.TOP_MARK] = -1
        state[vm.N_ARENA] = 1
        state[vm.SEED] = _seed()
        for i, text in enumerate(known):
            data = np.frombuffer(bytearray(text.encode()), np.uint8)  # writable, as the window: one compilation
            pickle_scalars.intern_text(data, 0, len(data), self._tuple(), i)
            state[vm.N_TEXTS] = i + 1
            state[vm.N_TEXT_BYTES] += len(data)
        self._texts: dict[int, str] = {}

    def _tuple(self) -> vm.TapeArrays:
        return vm.TapeArrays(**self._arrays)

    @property
    def root(self) -> int:
        """The pickle's value, tagged."""
        return int(self._arrays["state"][vm.ROOT])

    @property
    def n_boxes(self) -> int:
        """Lists, tuples and dicts in the pickle."""
        return int(self._arrays["state"][vm.N_BOXES])

    @property
    def n_texts(self) -> int:
        """Distinct texts, the known ones included."""
        return int(self._arrays["state"][vm.N_TEXTS])

    # Reading -----------------------------------------------------------------------------------------------------

    def fill(self, source: ByteSource) -> None:
        """Run the machine over everything that the source gives.

        Raises
        ------
        InputFileError
            If it is no pickle of plain data, or is truncated.
        UnsafePickleError
            If it asks for code or for memory beyond its size; nothing of it was executed.
        """
        window = np.empty(_WINDOW_BYTES, np.uint8)
        n_window = 0
        while True:
            status = pickle_tape.run_tape(window, n_window, self._tuple())
            if status == vm.NEED_ROOM:
                self._grow()
            elif status == vm.NEED_INPUT:
                window, n_window = self._refill(source, window, n_window)
            elif status == vm.STOPPED:
                break
            else:
                raise self._refusal(status, window[:n_window])
        self._trim()
        _drain(source)

    def _refill(
        self, source: ByteSource, window: npt.NDArray[np.uint8], n_window: int
    ) -> tuple[npt.NDArray[np.uint8], int]:
        """Move what is left of the window to its start and add the next bytes."""
        state = self._arrays["state"]
        pos = int(state[vm.POS])
        rest = n_window - pos
        data = source.read()
        if not data:
            raise InputFileError(
                self.path, f"truncated: the pickle breaks off at byte {int(state[vm.BASE]) + n_window}"
            )
        if rest + len(data) > len(window):
            larger = np.empty(2 * (rest + len(data)), np.uint8)
            larger[:rest] = window[pos:n_window]
            window = larger
        else:
            window[:rest] = window[pos:n_window].copy()
        window[rest : rest + len(data)] = np.frombuffer(data, np.uint8)
        state[vm.BASE] += pos
        state[vm.POS] = 0
        return window, rest + len(data)

    def _grow(self) -> None:
        """Enlarge the array that the machine found full. ``resize`` extends large arrays in place (mremap)."""
        state = self._arrays["state"]
        room = int(state[vm.ROOM])
        if room == vm.ROOM_SLOTS:
            slots = np.zeros(2 * len(self._arrays["slots"]), np.int64)
            pickle_scalars.rehash(slots, self._arrays["text_hash"], self.n_texts)
            self._arrays["slots"] = slots
            return
        names, need = {
            vm.ROOM_STACK: (("stack",), 0),
            vm.ROOM_MEMO: (("memo",), 0),
            vm.ROOM_BOXES: (("box_first", "box_last", "box_kind"), 0),
            vm.ROOM_ARENA: (("arena",), int(state[vm.N_ARENA]) + int(state[vm.N_STACK]) + 2),
            vm.ROOM_TEXTS: (("text_start", "text_hash"), 0),
            vm.ROOM_TEXT_BYTES: (("text_bytes",), 0),
            vm.ROOM_WIDE: (("wide",), 0),
        }[room]
        for name in names:
            array = self._arrays[name]
            array.resize(max(int(len(array) * _GROWTH), need), refcheck=False)

    def _trim(self) -> None:
        """Give back what only the machine needed, and the room that was not used."""
        state = self._arrays["state"]
        sizes = dict.fromkeys(("stack", "memo", "slots", "text_hash", "box_last"), 0)
        sizes |= {"arena": int(state[vm.N_ARENA]), "box_first": self.n_boxes, "box_kind": self.n_boxes}
        for name, size in sizes.items():
            self._arrays[name].resize(size, refcheck=False)

    def _refusal(self, status: int, window: npt.NDArray[np.uint8]) -> InputFileError:
        state = self._arrays["state"]
        pos, opcode = int(state[vm.POS]), int(state[vm.OPCODE])
        at = f"at byte {int(state[vm.BASE]) + pos}"
        if status == vm.ASKS_GLOBAL:
            return UnsafePickleError(self.path, f"asks for {self._global(window, pos, opcode)} {at}: {_NOT_RUN}")
        if status == vm.ASKS_CALL:
            return UnsafePickleError(self.path, f"asks to run code (opcode {_CALLS[opcode]}) {at}: {_NOT_RUN}")
        if status in _UNSAFE_REASONS:
            return UnsafePickleError(self.path, f"{_UNSAFE_REASONS[status]}, {at}: {_NOT_RUN}")
        return InputFileError(self.path, f"{_REASONS[status]} ({at})")

    def _global(self, window: npt.NDArray[np.uint8], pos: int, opcode: int) -> str:
        """The name of the global that is asked for, as far as it can be told, safe to print."""
        if opcode == 147:
            n = int(self._arrays["state"][vm.N_STACK])
            names = [int(value) for value in self._arrays["stack"][max(0, n - 2) : n]]
            if len(names) == 2 and all(value & vm.TAG_MASK == vm.STR for value in names):
                return ".".join(_printable(self._text_bytes(value >> vm.TAG_BITS)) for value in names)
        elif opcode in (99, 105):
            lines = window[pos + 1 : pos + 400].tobytes().split(b"\n")
            if len(lines) > 2:
                return f"{_printable(lines[0])}.{_printable(lines[1])}"
        elif 130 <= opcode <= 132:
            return "a registered extension"
        return "a global"

    # Looking -----------------------------------------------------------------------------------------------------

    def rows(
        self, values: Int64Array, keys: Sequence[int], *, seen_keys: Sequence[int] = ()
    ) -> tuple[Int64Array, npt.NDArray[np.bool_], int]:
        """Look up known keys in many dicts.

        Returns
        -------
        tuple
            Tagged values (len(keys), n), 0 where a dict has not the key; which of ``keys`` and ``seen_keys`` any dict
            has at all; and the first row that is no dict, −1 if all are.
        """
        columns = [*keys, *seen_keys]
        key_column = np.full(max(columns, default=0) + 1, -1, np.int8)
        key_column[columns] = np.arange(len(columns))
        out = np.zeros((len(keys), len(values)), np.int64)
        seen = np.zeros(len(columns), np.bool_)
        arrays = self._arrays
        bad = tape_tables.dict_rows(
            values, key_column, arrays["arena"], arrays["box_first"], arrays["box_kind"], self._limit(), out, seen
        )
        self._check_repeats(int(bad))
        return out, seen, int(bad)

    def lengths(self, values: Int64Array) -> tuple[Int64Array, int]:
        """Lengths of many lists or tuples, and the first row that is neither, −1 if all are."""
        out = np.zeros(len(values), np.int64)
        arrays = self._arrays
        bad = tape_tables.box_lengths(
            values, arrays["arena"], arrays["box_first"], arrays["box_kind"], self._limit() + len(values), out
        )
        self._check_repeats(int(bad))
        return out, int(bad)

    def _limit(self) -> int:
        """Most items that dicts of a table can have in all. In a snapshot no two events are the same dict."""
        return 1 << 20 if self._arrays["arena"].size < 1 << 18 else 4 * self._arrays["arena"].size

    def _check_repeats(self, bad: int) -> None:
        if bad == tape_tables.REPEATED:
            raise UnsafePickleError(self.path, _REPEATS)

    def items(self, values: Int64Array, lengths: Int64Array, limit: int = 1 << 62) -> Int64Array:
        """Items of many lists, dicts or tuples, one after the other; at most ``limit`` of each.

        Raises
        ------
        UnsafePickleError
            If one list was put in so many places that its items multiply beyond the pickle.
        """
        total = int(np.minimum(lengths, limit).sum()) if len(lengths) else 0
        if total > self._limit():
            raise UnsafePickleError(self.path, _REPEATS)
        out = np.empty(total, np.int64)
        tape_tables.box_items(values, limit, self._arrays["arena"], self._arrays["box_first"], out)
        return out

    def is_box(self, value: int, kind: int) -> bool:
        """Whether a value is a list, a tuple or a dict."""
        return value & vm.TAG_MASK == vm.BOX and int(self._arrays["box_kind"][value >> vm.TAG_BITS]) == kind

    def is_sequence(self, value: int) -> bool:
        """Whether a value is a list or a tuple, which may stand for each other."""
        return self.is_box(value, vm.LIST) or self.is_box(value, vm.TUPLE)

    def sequence(self, value: int) -> Int64Array:
        """Items of a list or tuple."""
        one = np.array([value], np.int64)
        return self.items(one, self.lengths(one)[0])

    def mapping(self, value: int) -> dict[str, int]:
        """A dict's tagged values by those of its keys that are texts."""
        box = value >> vm.TAG_BITS
        arena = self._arrays["arena"]
        found: dict[str, int] = {}
        chunk = int(self._arrays["box_first"][box])
        while chunk:
            items = arena[chunk + 2 : chunk + 2 + int(arena[chunk + 1])].tolist()
            for key, item in zip(items[::2], items[1::2], strict=True):
                if key & vm.TAG_MASK == vm.STR:
                    found[self.text(key >> vm.TAG_BITS)] = item
            chunk = int(arena[chunk])
        return found

    def scalar(self, value: int) -> Any:
        """A number, text, boolean or None as Python's own; an integer beyond 64 bits is None."""
        tag, payload = value & vm.TAG_MASK, value >> vm.TAG_BITS
        if tag == vm.INT:
            return payload
        if tag == vm.STR:
            return self.text(payload)
        if tag == vm.CONST:
            return (None, False, True)[payload]
        if tag == vm.WIDE:
            number, kind = (int(x) for x in self._arrays["wide"][2 * payload : 2 * payload + 2])
            if kind == vm.WIDE_FLOAT_TEXT:
                return self._float(self.text(number))
            if kind == vm.WIDE_FLOAT:
                return float(np.int64(number).view(np.float64))
            return number if kind == vm.WIDE_INT64 else number % (1 << 64) if kind == vm.WIDE_UINT64 else None
        return None

    def _float(self, text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise InputFileError(self.path, f"damaged: {text[:24]!a} in it is not a number") from error

    def integers(self, values: Int64Array, *, wrap: bool = False) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """The integers of tagged values and which of them are integers of 64 bits (with ``wrap`` unsigned ones too)."""
        tags = values & vm.TAG_MASK
        numbers = values >> vm.TAG_BITS
        good = tags == vm.INT
        wide = np.flatnonzero(tags == vm.WIDE)
        if len(wide):
            index = numbers[wide]
            kind = self._arrays["wide"][2 * index + 1]
            numbers[wide] = self._arrays["wide"][2 * index]
            good[wide] = (kind == vm.WIDE_INT64) | (wrap & (kind == vm.WIDE_UINT64))
        return numbers, good

    def _text_bytes(self, text_id: int) -> bytes:
        start, stop = self._arrays["text_start"][text_id : text_id + 2]
        return self._arrays["text_bytes"][start:stop].tobytes()

    def text(self, text_id: int) -> str:
        """A text by its id. Lone surrogates are written as escapes, so that every text can be printed.

        Raises
        ------
        InputFileError
            If it is not UTF-8.
        """
        known = self._texts.get(text_id)
        if known is None:
            data = self._text_bytes(text_id)
            try:
                known = data.decode()
            except UnicodeDecodeError:
                try:
                    known = data.decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace").decode()
                except UnicodeDecodeError as error:
                    raise InputFileError(self.path, f"damaged: a text in it is not UTF-8 ({data[:24]!r})") from error
            self._texts[text_id] = known
        return known

    def mark_items(self, list_boxes: Int64Array) -> tuple[Int64Array, int]:
        """Box ids of the items of many lists, each once; and the first list that holds anything else, −1 if none."""
        flags = np.zeros(self.n_boxes, np.bool_)
        bad = tape_tables.mark_items(list_boxes, self._arrays["arena"], self._arrays["box_first"], flags)
        return np.flatnonzero(flags), int(bad)

    def stacks(self, list_boxes: Int64Array, frame_ids: Int32Array) -> tuple[Int32Array, Int64Array, Int32Array]:
        """Number lists of frames by content: each list's id (−1 if empty), offsets and ids of the distinct ones."""
        slots = np.zeros(_power_of_two(2 * len(list_boxes) + 2), np.int64)
        out = np.empty(len(list_boxes), np.int32)
        n, offsets, ids = tape_tables.intern_runs(
            list_boxes, frame_ids, _seed(), slots, self._arrays["arena"], self._arrays["box_first"], out
        )
        return out, offsets[: n + 1].copy(), ids[: offsets[n]].copy()


_REPEATS = "repeats one list or dict in so many places that its content multiplies: refused"
_NOT_RUN = "refused, nothing of it was executed"


def read_tape(path: Path, known: Sequence[str]) -> Tape:
    """Read the pickle that a file holds, plain, gzipped or embedded in a MemoryViz page, into a tape."""
    tape = Tape(path, known)
    with open_source(path) as source:
        tape.fill(source)
    return tape


def dense_ids(*columns: Int64Array) -> tuple[Int32Array, Int64Array]:
    """Number distinct rows by first appearance: the id of each row, and the row where each id first appears."""
    rows = np.ascontiguousarray(np.stack(columns))
    n = rows.shape[1]
    out = np.empty(n, np.int32)
    first = np.empty(n, np.int64)
    n_ids = tape_tables.dense_ids(rows, _seed(), np.zeros(_power_of_two(2 * n + 2), np.int64), out, first)
    return out, first[:n_ids].copy()


def _seed() -> int:
    """Start of a hash that nobody can know when making a file of colliding keys. Ids do not depend on it."""
    return int.from_bytes(os.urandom(7), "little")


def _power_of_two(n: int) -> int:
    return 1 << (max(n, 2) - 1).bit_length()


def _drain(source: ByteSource) -> None:
    n = 0
    while n < _TRAILING_BYTES and (data := source.read()):
        n += len(data)


def _printable(data: bytes) -> str:
    text = data[:60].decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in text)
