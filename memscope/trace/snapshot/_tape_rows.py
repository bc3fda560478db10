"""Tables of dicts on a tape, column by column, with errors that name the row and the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from memscope.errors import InputFileError
from memscope.trace.snapshot._pickle_reader import BoolArray, Int64Array, Tape


class TapeRows:
    """The values that many dicts have for some keys.

    Parameters
    ----------
    tape
        The pickle.
    values
        int64 (n,): values, all of which must be dicts.
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
        self._values = values
        self._where = where
        self._id = {key: texts[key] for key in keys}
        names = (*keys, *seen_keys)
        is_seen, bad = tape.check_dicts(values, [texts[key] for key in names])
        if bad >= 0:
            raise InputFileError(tape.path, f"{where(bad)} is not a dict, as it is in every snapshot")
        self.keys = frozenset(key for key, seen in zip(names, is_seen, strict=True) if seen)
        """Keys that at least one dict has."""

    def __len__(self) -> int:
        return len(self._values)

    def error(self, row: int, text: str) -> InputFileError:
        """An error that names the row."""
        return InputFileError(self._tape.path, f"{self._where(row)}: {text}")

    def values(self, key: str) -> Int64Array:
        """Values of a key, ``NO_VALUE`` where a dict has it not."""
        return self._tape.column(self._values, self._id[key])

    def has(self, key: str) -> BoolArray:
        """Which dicts have the key, with something other than None."""
        return self._tape.has(self._values, self._id[key])

    def require(self, key: str, rows: BoolArray | None = None) -> None:
        """Refuse a table where one of the rows lacks the key."""
        missing = ~self.has(key) if rows is None else rows & ~self.has(key)
        if missing.any():
            raise self.error(int(missing.argmax()), f"no {key!r}")

    def integers(self, key: str, *, missing: int | Int64Array, wrap: bool = False) -> Int64Array:
        """The key's integers, ``missing`` where there is none. ``wrap`` takes unsigned 64 bits as their int64."""
        if not isinstance(missing, int):
            return np.where(self.has(key), self.integers(key, missing=0, wrap=wrap), missing)
        numbers, bad, is_beyond = self._tape.integers(self._values, self._id[key], missing=missing, wrap=wrap)
        if bad >= 0:
            raise self.error(bad, f"{key!r} is {'a number beyond 64 bits' if is_beyond else 'not an integer'}")
        return numbers

    def text_ids(self, key: str) -> Int64Array:
        """Text ids of the key, −1 where there is none."""
        ids, bad = self._tape.text_ids(self._values, self._id[key])
        if bad >= 0:
            raise self.error(bad, f"{key!r} is not a text")
        return ids

    def booleans(self, key: str) -> BoolArray:
        """The key's booleans, False where there is none."""
        booleans, bad = self._tape.booleans(self._values, self._id[key])
        if bad >= 0:
            raise self.error(bad, f"{key!r} is neither True nor False")
        return booleans

    def pairs(self, key: str) -> tuple[Int64Array, Int64Array, BoolArray]:
        """Two columns of a key that holds pairs of integers (tuples or lists), and which rows have one."""
        first, second, there, bad = self._tape.pairs(self._values, self._id[key])
        if bad >= 0:
            raise self.error(bad, f"{key!r} is not a pair of integers")
        return first, second, there
