"""The allocations of a device that are key/value cache, and which cache, layer and part each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.lifetimes.device import DeviceLifetimes
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
