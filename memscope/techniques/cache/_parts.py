"""The keys and values of a program's caches: which rows they are, and which one takes the place of which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.techniques.program import Program
from memscope.techniques.technique import DoesNotApplyError
from memscope.trace.cache_labels import read_cache_label
from memscope.trace.categories import Category


@dataclass(frozen=True, slots=True)
class CacheRow:
    """Keys or values of one layer.

    Attributes
    ----------
    name
        Cache, layer and part: what takes this one's place has the same.
    layer
        Number of the layer.
    shape, itemsize
        Of the tensor.
    """

    row: int
    name: tuple[int | None, int, str]
    layer: int
    shape: tuple[int, ...]
    itemsize: int


def cache_rows(program: Program, technique: str) -> list[CacheRow]:
    """Keys and values, in the order in which they were made.

    Raises
    ------
    DoesNotApplyError
        If the program keeps none, or not of which layer and shape.
    """
    rows = np.flatnonzero(program.of_category(Category.KV_CACHE))
    if not len(rows):
        raise DoesNotApplyError(
            f"{technique} does not apply: no key/value cache was seen in this trace; record a generation"
        )
    found = []
    for row in rows[np.argsort(program.begin[rows], kind="stable")].tolist():
        part, tensor = read_cache_label(program.owners[row]), program.tensors[row]
        if part.layer is None or part.part not in ("keys", "values") or tensor is None or not tensor[1]:
            continue
        n_elements = int(np.prod(tensor[1]))
        itemsize = max(int(program.size_bytes[row]) // max(n_elements, 1), 1)
        found.append(CacheRow(row, (part.cache_id, part.layer, part.part), part.layer, tensor[1], itemsize))
    if not found:
        raise DoesNotApplyError(
            f"{technique} does not apply: of which layer and shape the cached keys and values are is not known in this "
            "trace; a dry run of the program (memscope run --dry-run) sees both"
        )
    return found
