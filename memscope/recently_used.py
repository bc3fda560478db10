"""The one cache of a bounded number of values, from which the one used longest ago goes first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RecentlyUsed(Generic[Key, Value]):
    """The last few values that were put or taken, by key.

    A dict keeps its keys in the order in which they came, so a value that is used is put back at the end, and the first
    is always the one used longest ago. ``functools.lru_cache`` is a function's, not an object's, and tells nobody what
    it forgets. Whoever shares one between threads guards it.

    Parameters
    ----------
    n_kept
        How many are kept, at least one.
    on_forgotten
        Told the key and the value that went because others were used since.
    """

    def __init__(self, n_kept: int, on_forgotten: Callable[[Key, Value], None] | None = None) -> None:
        self._n_kept = n_kept
        self._on_forgotten = on_forgotten
        self._values: dict[Key, Value] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Key) -> bool:
        """Whether a value is kept; to ask is not to use it."""
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        """The keys, the one used longest ago first."""
        return iter(self._values)

    def items(self) -> list[tuple[Key, Value]]:
        """Keys and values, the one used longest ago first; to list them is not to use them."""
        return list(self._values.items())

    def get(self, key: Key) -> Value | None:
        """The value, which is now the one used last; None if it is not kept."""
        if key not in self._values:
            return None
        value = self._values[key] = self._values.pop(key)
        return value

    def put(self, key: Key, value: Value) -> Value:
        """Keep a value, which is now the one used last, and return it."""
        self._values.pop(key, None)
        self._values[key] = value
        while len(self._values) > self._n_kept:
            oldest = next(iter(self._values))
            forgotten = self._values.pop(oldest)
            if self._on_forgotten is not None:
                self._on_forgotten(oldest, forgotten)
        return value

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value, made if it is not kept; an error in making it is not kept."""
        if key not in self._values:
            # Made before it is put: to make one value may take others from here.
            return self.put(key, make())
        value = self._values[key] = self._values.pop(key)
        return value
