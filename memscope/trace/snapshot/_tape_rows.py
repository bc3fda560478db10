"""Tables of dicts on a tape, column by column, with errors that name the row and the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from memscope._kernels import tape_format as vm
from memscope.errors import InputFileError
from memscope.trace.snapshot._pickle_reader import Int64Array, Tape

BoolArray = npt.NDArray[np.bool_]


class TapeRows:
    """The values that many dicts have for some keys.

    Parameters
    ----------
    tape
        The pickle.
    values
        int64 (n,): tagged values, all of which must be dicts.
    keys
        Keys to look up, all among ``texts``.
    texts
        The tape's known texts.
    seen_keys
        Keys of which only is asked whether any dict has them.
    where
        Says where row ``i`` stands in the file, for errors: ``device_traces[0][17]``.
    """

    def __init__(
        self,
        tape: Tape,
        values: Int64Array,
        keys: Sequence[str],
        texts: dict[str, int],
        where: Callable[[int], str],
        *,
        seen_keys: Sequence[str] = (),
    ) -> None:
        self._tape = tape
        self._where = where
        self._column = {key: i for i, key in enumerate(keys)}
        ids, seen_ids = ([texts[key] for key in names] for names in (keys, seen_keys))
        self._values, seen, bad = tape.rows(values, ids, seen_keys=seen_ids)
        self.keys = frozenset(key for key, is_seen in zip((*keys, *seen_keys), seen, strict=True) if is_seen)
        """Keys that at least one dict has."""
        if bad >= 0:
            raise InputFileError(tape.path, f"{where(bad)} is not a dict, as it is in every snapshot")

    def __len__(self) -> int:
        return int(self._values.shape[1])

    def error(self, row: int, text: str) -> InputFileError:
        """An error that names the row."""
        return InputFileError(self._tape.path, f"{self._where(row)}: {text}")

    def tagged(self, key: str) -> Int64Array:
        """Tagged values of a key, 0 where a dict has not got it."""
        column: Int64Array = self._values[self._column[key]]
        return column

    def has(self, key: str) -> BoolArray:
        """Which dicts have the key, with something other than None."""
        values = self.tagged(key)
        return np.asarray((values != 0) & (values != vm.CONST))

    def require(self, key: str, rows: BoolArray | None = None) -> None:
        """Refuse a table where one of the rows lacks the key."""
        missing = ~self.has(key) if rows is None else rows & ~self.has(key)
        if missing.any():
            raise self.error(int(missing.argmax()), f"no {key!r}")

    def integers(self, key: str, *, missing: int | Int64Array, wrap: bool = False) -> Int64Array:
        """The key's integers, ``missing`` where there is none. ``wrap`` takes unsigned 64 bits as their int64."""
        there = self.has(key)
        numbers, good = self._tape.integers(self.tagged(key), wrap=wrap)
        bad = there & ~good
        if bad.any():
            row = int(bad.argmax())
            value = int(self.tagged(key)[row])
            is_beyond = value & vm.TAG_MASK == vm.WIDE and not isinstance(self._tape.scalar(value), float)
            kind = "a number beyond 64 bits" if is_beyond else "not an integer"
            raise self.error(row, f"{key!r} is {kind}")
        return np.where(there, numbers, missing)

    def text_ids(self, key: str) -> Int64Array:
        """Text ids of the key, −1 where there is none."""
        values = self.tagged(key)
        there = self.has(key)
        bad = there & (values & vm.TAG_MASK != vm.STR)
        if bad.any():
            raise self.error(int(bad.argmax()), f"{key!r} is not a text")
        return np.where(there, values >> vm.TAG_BITS, -1)

    def booleans(self, key: str) -> BoolArray:
        """The key's booleans, False where there is none."""
        values = self.tagged(key)
        bad = self.has(key) & (values & vm.TAG_MASK != vm.CONST)
        if bad.any():
            raise self.error(int(bad.argmax()), f"{key!r} is neither True nor False")
        return np.asarray(values == ((2 << vm.TAG_BITS) | vm.CONST))

    def pairs(self, key: str) -> tuple[Int64Array, Int64Array, BoolArray]:
        """Two columns of a key that holds pairs of integers (tuples or lists), and which rows have one."""
        there = self.has(key)
        values = self.tagged(key)[there]
        rows = np.flatnonzero(there)
        lengths, bad = self._tape.lengths(values)
        if bad < 0 and len(lengths) and (lengths != 2).any():
            bad = int((lengths != 2).argmax())
        if bad >= 0:
            raise self.error(int(rows[bad]), f"{key!r} is not a pair of integers")
        # Tuples may be shared by many rows, so that their items are more than the pickle holds: take each once.
        boxes, inverse = np.unique(values, return_inverse=True)
        numbers, good = self._tape.integers(self._tape.items(boxes, np.full(len(boxes), 2)), wrap=True)
        if not good.all():
            wrong = int((inverse == int((~good).argmax()) // 2).argmax())
            raise self.error(int(rows[wrong]), f"{key!r} is not a pair of integers")
        first, second = np.zeros(len(there), np.int64), np.zeros(len(there), np.int64)
        first[there], second[there] = numbers[::2][inverse], numbers[1::2][inverse]
        return first, second, there
