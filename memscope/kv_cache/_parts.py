"""The allocations of a device that are key/value cache: which part each is, and how they grew by copying."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.cache_labels import read_cache_label
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int64Array, frozen_array

UNNAMED = ""
"""The part of an allocation whose name does not say whether it holds keys or values."""


@dataclass(frozen=True, slots=True)
class CacheParts:
    """Allocations in the category ``kv_cache``; every array is read-only and has one entry for each of them.

    Attributes
    ----------
    rows
        int64: rows of the device's allocations, ascending.
    cache_id, layer
        int64: −1 where the name of the allocation's owner does not say.
    part_id
        int64: an index into ``parts``.
    is_cross
        bool: of the attention to an encoder's output.
    is_numbered
        bool: whether memscope itself numbered the cache, so that no other tensor has the same name at a time.
    parts
        Texts as ``keys``, ``values``, ``keys scale``; the empty one where it is not known.
    """

    rows: Int64Array
    cache_id: Int64Array
    layer: Int64Array
    part_id: Int64Array
    is_cross: BoolArray
    is_numbered: BoolArray
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("rows", "cache_id", "layer", "part_id"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))
        for name in ("is_cross", "is_numbered"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.bool_))

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, index: int) -> str:
        """The part that an entry is."""
        return self.parts[int(self.part_id[index])]


def find_parts(lifetimes: DeviceLifetimes, attribution: Attribution) -> CacheParts:
    """The key/value allocations of a device; each distinct name is read once."""
    rows = np.flatnonzero(attribution.category == Category.KV_CACHE)
    owners, of_row = np.unique(attribution.owner_id[rows], return_inverse=True)
    said = [read_cache_label(lifetimes.trace.string(int(owner)) or "") for owner in owners]
    parts = tuple(dict.fromkeys(one.part or UNNAMED for one in said)) or (UNNAMED,)
    of_row = of_row.reshape(-1)

    def column(values: list[int]) -> Int64Array:
        return np.array(values, np.int64)[of_row] if len(rows) else np.empty(0, np.int64)

    return CacheParts(
        rows=rows,
        cache_id=column([NONE_ID if one.cache_id is None else one.cache_id for one in said]),
        layer=column([NONE_ID if one.layer is None else one.layer for one in said]),
        part_id=column([parts.index(one.part or UNNAMED) for one in said]),
        is_cross=column([int(one.is_cross) for one in said]).astype(np.bool_),
        is_numbered=column([int(one.is_numbered) for one in said]).astype(np.bool_),
        parts=parts,
    )


def members_of(key: Int64Array) -> list[tuple[int, Int64Array]]:
    """Each value of a column, ascending, and the positions that have it, ascending too: linear but for the sorting."""
    order = np.argsort(key, kind="stable")
    values, first = np.unique(key[order], return_index=True)
    return list(zip(values.tolist(), np.split(order, first[1:]), strict=False))


_BIRTH, _DEATH = 0, 1
_MAX_CANDIDATES = 256
"""How many of the last tensors of a name are looked at: more do not grow at the same time under one name."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Which allocation replaced which; every array is read-only int64.

    Attributes
    ----------
    old, new
        (m,): indices into the parts; ``new[i]`` was made while ``old[i]`` was still there, to hold what it held.
    chain
        (parts,): the first allocation of the chain of replacements that each belongs to, itself where there is none.
    """

    old: Int64Array
    new: Int64Array
    chain: Int64Array

    def __post_init__(self) -> None:
        for name in ("old", "new", "chain"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))

    def __len__(self) -> int:
        return len(self.old)


def find_growth(lifetimes: DeviceLifetimes, attribution: Attribution, parts: CacheParts) -> Growth:
    """The replacements of a cache's allocations.

    When a tensor is let go of, what replaced it is the one of its name (of its stack, where it has no name) that was
    made while it was there, is larger, has replaced nothing else, and stays; of several the next larger one, of those
    the last. Where memscope numbered the cache there is one tensor of a name at a time, and nothing else is asked: it
    may also be as large or smaller, as where a window is full, or beams are put in order.

    Under other names, what was there for long is not taken for a replacement: at most as many tensors of the name may
    have been made since as were there, which is one for each layer. Nor is what goes with the old one, before anything
    else is made: those are parts of one cache, freed together.
    """
    name = _names(lifetimes, attribution, parts)
    search = _Search(lifetimes, parts)
    for event, kind, index in _births_and_deaths(lifetimes, parts):
        if kind == _BIRTH:
            search.is_made(index, name[index])
        else:
            search.is_let_go(index, name[index], event)
    old, new = (np.array(column, np.int64) for column in (search.old, search.new))
    order = np.argsort(new, kind="stable")
    return Growth(old[order], new[order], np.array(search.chain, np.int64))


def _names(lifetimes: DeviceLifetimes, attribution: Attribution, parts: CacheParts) -> list[tuple[int, int]]:
    """What tensors that may replace each other have in common: the owner, or the stack where none is known."""
    owner = attribution.owner_id[parts.rows]
    stack = np.where(owner != NONE_ID, NONE_ID, lifetimes.allocations.stack_id[parts.rows])
    return list(zip(owner.tolist(), stack.tolist(), strict=True))


def _births_and_deaths(lifetimes: DeviceLifetimes, parts: CacheParts) -> list[tuple[int, int, int]]:
    """Event, kind and part, in order of events; what waited for its stream when the recording began is left out."""
    table = lifetimes.allocations
    born = table.alloc_event[parts.rows].tolist()
    died = lifetimes.died_event[parts.rows].tolist()
    was_gone = table.is_pending_at_start[parts.rows].tolist()
    present = [i for i, gone in enumerate(was_gone) if not gone]
    found = [(born[i], _BIRTH, i) for i in present]
    found += [(died[i], _DEATH, i) for i in present if died[i] != NEVER]
    return sorted(found)


class _Search:
    """Follows births and deaths in order, and pairs each death with what had replaced it."""

    def __init__(self, lifetimes: DeviceLifetimes, parts: CacheParts) -> None:
        table = lifetimes.allocations
        self._size = table.requested_bytes[parts.rows].tolist()
        self._died = lifetimes.died_event[parts.rows].tolist()
        self._is_single = parts.is_numbered.tolist()
        self._allocs = np.sort(table.alloc_event)
        self._n_made: dict[tuple[int, int], int] = defaultdict(int)
        self._n_there: dict[tuple[int, int], int] = defaultdict(int)
        self._unmatched: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._rank = [0] * len(parts)
        self._n_there_before = [0] * len(parts)
        self.chain = list(range(len(parts)))
        self.old: list[int] = []
        self.new: list[int] = []

    def is_made(self, index: int, name: tuple[int, int]) -> None:
        """A tensor was made."""
        self._n_made[name] += 1
        self._rank[index] = self._n_made[name]
        self._n_there_before[index] = self._n_there[name]
        self._n_there[name] += 1
        self._unmatched[name].append(index)

    def is_let_go(self, index: int, name: tuple[int, int], event: int) -> None:
        """A tensor was let go of."""
        self._n_there[name] -= 1
        candidates = self._unmatched[name]
        best: int | None = None
        for other in candidates[: -_MAX_CANDIDATES - 1 : -1]:
            if self._may_replace(index, other, name, event) and (best is None or self._size[other] < self._size[best]):
                best = other
        if best is not None:
            _forget(candidates, best)
            self.old.append(index)
            self.new.append(best)
            self.chain[best] = self.chain[index]
        _forget(candidates, index)

    def _may_replace(self, old: int, new: int, name: tuple[int, int], event: int) -> bool:
        if self._rank[new] <= self._rank[old] or self._died[new] <= event:
            return False
        if self._is_single[new]:
            return True
        if self._size[new] <= self._size[old]:
            return False
        if self._n_made[name] - self._rank[new] >= self._n_there_before[new]:
            return False
        return self._died[new] == NEVER or self._makes_something(event, self._died[new])

    def _makes_something(self, begin: int, end: int) -> bool:
        """Whether the program allocates anything between two events."""
        return int(np.searchsorted(self._allocs, end)) > int(np.searchsorted(self._allocs, begin, "right"))


def _forget(candidates: list[int], index: int) -> None:
    """Take a tensor from the last ones, if it is among them."""
    for position in range(len(candidates) - 1, max(len(candidates) - _MAX_CANDIDATES, 0) - 1, -1):
        if candidates[position] == index:
            del candidates[position]
            return


def most_at_once(begin: Int64Array, end: Int64Array, size_bytes: Int64Array) -> tuple[int, int]:
    """Most bytes at once of things that are there from ``begin`` to before ``end``, and when; (0, −1) of none."""
    if not len(begin):
        return 0, NONE_ID
    event = np.concatenate([begin, end])
    order = np.lexsort((np.concatenate([np.ones(len(begin)), np.zeros(len(end))]), event))
    total = np.cumsum(np.concatenate([size_bytes, -size_bytes])[order])
    most = int(np.argmax(total))
    return int(total[most]), int(event[order[most]])
