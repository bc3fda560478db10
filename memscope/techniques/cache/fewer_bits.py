"""``kv:fp8|int8|int4``: keys and values kept in fewer bits.

What a cache holds becomes a byte a number (fp8, int8) or half a byte (int4); the whole numbers have a scale of the
cache's own type for each token and head. Each layer's keys and values are brought back whole where its attention reads
them, until that has ended.

Assumes a cache that is read through such a copy, as in transformers' quantised caches; kernels that read the few bits
themselves (FlashInfer, FlashAttention 3) make none. Costs precision of keys and values.
Source: Liu et al., KIVI (2024); transformers, ``QuantizedLayer``.
"""

from __future__ import annotations

import numpy as np

from memscope.errors import UsageError
from memscope.techniques.cache._parts import CacheRow, cache_rows
from memscope.techniques.names import layer_of
from memscope.techniques.program import NewRows, Program
from memscope.techniques.technique import Change, Cost, Technique
from memscope.trace.categories import Category
from memscope.trace.tables import Int64Array

_NAME = "kv"
_BITS = {"fp8": 8, "int8": 8, "int4": 4}


def apply(program: Program, text: str) -> Change:
    """Keep caches in fewer bits, and bring each layer's back where it is read.

    Raises
    ------
    UsageError
        If there is no such format.
    """
    if text not in _BITS:
        raise UsageError(f"{_NAME}:{text}: choose one of {', '.join(f'{_NAME}:{name}' for name in _BITS)}")
    rows = cache_rows(program, f"{_NAME}:{text}")
    how = "a cache whose layers keep fewer bits: transformers' QuantizedCache, vLLM's --kv-cache-dtype"
    if all(each.itemsize * 8 <= _BITS[text] for each in rows):
        return Change(program, how=how, note=f"keys and values have {_BITS[text]} bits or fewer already")
    sizes, is_cache = program.size_bytes.copy(), np.zeros(len(program), np.bool_)
    reads = _reads(program, rows)
    beside, whole = [], []
    for each, read_end in zip(rows, reads.tolist(), strict=True):
        n_elements = int(np.prod(each.shape))
        begin, end = int(program.begin[each.row]), int(program.let_go[each.row])
        is_cache[each.row] = True
        sizes[each.row] = -(-n_elements * _BITS[text] // 8)
        if text != "fp8":
            beside.append((begin + 1, end, n_elements // each.shape[-1] * each.itemsize, each.row))
        whole.append((begin + 2, max(read_end, begin + 3), int(program.size_bytes[each.row]), each.row))
    changed = program.with_sizes(is_cache, sizes).with_rows(NewRows.of(beside, Category.KV_CACHE))
    changed = changed.with_rows(NewRows.of(whole, Category.TEMPORARIES))
    return Change(changed, Cost(precision=f"keys and values in {text}, {_BITS[text]} bits"), how=how)


def _reads(program: Program, rows: list[CacheRow]) -> Int64Array:
    """When each layer's attention has read what was just cached: before something else than attention is made."""
    made = np.flatnonzero(program.of_category(Category.TEMPORARIES, Category.ACTIVATIONS))
    made = made[np.argsort(program.begin[made], kind="stable")]
    is_attention = np.array([_is_attention(program.owners[row]) for row in made.tolist()], np.bool_)
    others = program.begin[made[~is_attention]]
    begins = np.array([int(program.begin[each.row]) for each in rows], np.int64)
    at = np.searchsorted(others, begins, side="right")
    following = np.append(others, begins.max() + 4)[at]
    ends: Int64Array = np.maximum(following - 1, begins + 3)
    return ends


def _is_attention(name: str) -> bool:
    """Whether a module is a layer's attention, or a part of it."""
    return layer_of(name) is not None and "att" in name


TECHNIQUE = Technique(
    name=_NAME,
    usage="kv:fp8|int8|int4",
    summary="keys and values kept in fewer bits",
    proof="changed-program",
    apply=apply,
    defaults=("fp8", "int8", "int4"),
)
