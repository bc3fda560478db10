"""Multisets of sizes: how many tensors there are of each, and what weights and copies of them they can be.

Nothing but sizes and counts is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np

from memscope.trace.tables import Int64Array
from memscope.units import format_items

Sizes = Counter[int]
"""How many allocations there are of each size in bytes."""

DOUBLE = 2
N_MOMENTS = 2
MOST_COPIES = 3
SLACK = 0.05
"""Share of the bytes that may be left unexplained."""
SHARED_WORKSPACES = (32 << 20, 1 << 20)
"""cuBLASLt and cuBLAS ask for exactly so many bytes: there may be one or two more of the size than tensors."""
_N_MOST_WORKSPACES = 2
_N_EXACT_SIZES = 3
_N_MOST_SIZES = 256
_MOST_LAYERS = 512
_STRAY = 1e-4
_N_MOST_OUTSIDE = 2
_N_LEAST_SIZES = 2
_LEAST_VECTOR_BYTES, _MOST_VECTOR_BYTES = 256, 256 << 10
_VECTORS_IN_A_TABLE = 8


def count_sizes(size_bytes: Int64Array) -> Sizes:
    """Count equal sizes."""
    sizes, counts = np.unique(size_bytes, return_counts=True)
    return Counter(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))


def sum_bytes(sizes: Mapping[int, int]) -> int:
    """Bytes of all together."""
    return sum(size * n for size, n in sizes.items())


def times(sizes: Sizes, n: int, factor: int = 1) -> Sizes:
    """So many copies of a multiset whose sizes are multiplied."""
    return Counter({size * factor: count * n for size, count in sizes.items() if n})


@dataclass(frozen=True, slots=True)
class Layered:
    """What of a multiset is weights, by the layers of a model, and the evidence."""

    weights: Sizes
    reason: str = ""


_NOTHING = Layered(Counter())


def layered(sizes: Sizes, *, is_one: bool = False) -> Layered:
    """Find the weights of a model in a multiset: sizes that each layer has equally often, and tables of their vectors.

    Two sizes or more that have most of the bytes come equally often in each layer, but for one or two that stand before
    or after the layers. Of several numbers of layers it is the largest that leaves as few bytes over as any.
    Copies of everything (weights with moments, say) cannot be told apart: nothing is said of them, unless it is
    known that it ``is_one``.
    """
    if not is_one and any(_has_copies(sizes, factor) for factor in (DOUBLE, 2 * DOUBLE)):
        return _NOTHING
    least_bytes = _STRAY * sum_bytes(sizes)
    counted = {size: n for size, n in sizes.items() if n > _N_MOST_OUTSIDE or size * n > least_bytes}
    largest = Counter(dict(sorted(counted.items(), key=lambda item: -item[0] * item[1])[:_N_MOST_SIZES]))
    found = [_by_layers(largest, n) for n in range(min(max(largest.values(), default=0), _MOST_LAYERS), 1, -1)]
    left = [_bytes_left(largest, one.weights) for one in found]
    best = found[left.index(min(left))] if left else _NOTHING
    return best if is_one or not _may_be_several(best.weights) else _NOTHING


def _may_be_several(weights: Sizes) -> bool:
    """Whether counts allow several copies of everything, but for one stray block of a size."""
    counts = [n for size, n in weights.items() if size not in SHARED_WORKSPACES]
    return gcd(*counts) != 1 or any(all(n >= k and n % k < 2 for n in counts) for k in range(3, MOST_COPIES + 3))


def _bytes_left(sizes: Sizes, weights: Sizes) -> int:
    """Bytes that are not weights, but for what may be workspaces."""
    left = sizes - weights
    return sum(
        size * n
        for size, n in left.items()
        if size not in SHARED_WORKSPACES or n > _N_MOST_WORKSPACES or n == sizes[size]
    )


def _has_copies(sizes: Sizes, factor: int) -> bool:
    """Whether nearly all is tensors of which two or more copies of another precision are there as well."""
    pairs = set()
    for size, n in sizes.items():
        other = sizes[size * factor]
        if max(n, other) >= DOUBLE * min(n, other) > 0:
            pairs |= {size, size * factor}
    return sum(size * sizes[size] for size in pairs) >= (1 - 2 * SLACK) * sum_bytes(sizes)


def _by_layers(sizes: Sizes, n_layers: int) -> Layered:
    """What of a multiset is weights if there are so many layers."""
    vectors = {s: n for s, n in sizes.items() if _LEAST_VECTOR_BYTES <= s <= _MOST_VECTOR_BYTES and n >= n_layers}
    width = max(vectors, key=lambda size: (vectors[size], -size), default=0)
    each, tables = Counter[int](), Counter[int]()
    for size, n in sizes.items():
        if size < _LEAST_VECTOR_BYTES:
            continue
        n_outside = n % n_layers
        is_of_vectors = width > 0 and size % width == 0
        if not n_outside:
            each[size] = n
        elif size in SHARED_WORKSPACES:
            each[size] = n - n_outside
        elif n > n_layers and n_outside <= _N_MOST_OUTSIDE and is_of_vectors:
            each[size] = n
        elif n < n_layers and is_of_vectors and size // width >= _VECTORS_IN_A_TABLE:
            tables[size] = n
    each = +each
    if len(each) < _N_LEAST_SIZES or sum_bytes(each) < sum_bytes(sizes) / 2:
        return _NOTHING
    counted = format_items(len(each), "size")
    return Layered(
        each + tables, f"{n_layers} layers: {counted} that come equally often in each, and tables of their vectors"
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What lies beside the weights that are trained.

    Attributes
    ----------
    n_same, n_double
        How many copies of their sizes the optimizer keeps, and of twice their sizes.
    frozen
        Weights that are not trained.
    with_others
        Sizes of which libraries may have one or two more.
    untold
        Sizes of which there are others that nothing tells.
    is_exact
        Whether sizes alone tell it.
    """

    n_same: int
    n_double: int
    frozen: Layered
    with_others: frozenset[int]
    untold: frozenset[int]
    is_exact: bool

    def states(self, trained: Sizes, n_unsure: int) -> Sizes:
        """What of it is the optimizer's, without so many copies of which that is not sure."""
        of_all = times(trained, self.n_same - n_unsure) + times(trained, self.n_double, DOUBLE)
        return Counter({size: n for size, n in of_all.items() if size not in self.untold})

    def reason(self, of: str) -> str:
        """By what evidence there are as many copies."""
        copies = ((self.n_same, "the sizes"), (self.n_double, "twice the sizes"))
        counts = " and ".join(f"{n} × {what}" for n, what in copies if n)
        return f"beside the weights {counts} of {of}, to the byte"


def find_beside(there: Sizes, trained: Sizes, *, has_adam: bool, has_sgd: bool, is_whole: bool) -> Beside:
    """Find what lies beside the trained weights: as many copies of them as every size allows.

    Where nearly all bytes are explained so, that is it. Where some weights are frozen, of the same sizes as trained
    ones, the rest must be layers, and the optimizer known to keep two moments.

    Parameters
    ----------
    there
        All that lasts, the trained weights included.
    trained
        One size for each gradient.
    has_adam, has_sgd
        What optimizers were seen: one with two moments, and one with at most one.
    is_whole
        Whether all gradients are known.
    """
    n_same, n_double = _copies(there - trained, trained, 1 if has_sgd and not has_adam else MOST_COPIES)
    extra, concerned = _extra(there, trained, n_same, n_double)
    n_exact = sum(size not in extra for size in trained)
    is_exact = _bytes_of(extra, concerned) <= SLACK * sum_bytes(trained)
    is_exact &= n_exact >= _N_EXACT_SIZES or n_exact == len(trained)
    if is_exact:
        frozen = layered(Counter({size: n for size, n in extra.items() if size not in concerned}))
    else:
        n_same = N_MOMENTS if has_adam and n_same >= N_MOMENTS else 0
        n_double = n_double if n_double >= N_MOMENTS else 0
        extra, concerned = _extra(there, trained, n_same, n_double)
        # Where all that is trained is there once more and little else, that is another copy, of whatever it may be.
        beyond = sum_bytes(extra) - _bytes_of(extra, concerned)
        is_copy = trained <= extra and beyond <= SLACK * sum_bytes(trained)
        frozen = layered(extra, is_one=True) if is_whole and not is_copy else _NOTHING
        if sum_bytes(frozen.weights) < (1 - SLACK) * _bytes_of(extra, concerned):
            n_same = n_double = 0
            frozen = _NOTHING
    rest = extra - frozen.weights
    shared = frozenset(size for size, n in rest.items() if size in SHARED_WORKSPACES and n <= _N_MOST_WORKSPACES)
    return Beside(n_same, n_double, frozen, shared, frozenset(rest) - shared, is_exact)


def _extra(there: Sizes, trained: Sizes, n_same: int, n_double: int) -> tuple[Sizes, set[int]]:
    """What is neither trained nor a copy, and the sizes that trained weights and copies have."""
    states = times(trained, n_same) + times(trained, n_double, DOUBLE)
    return there - trained - states, {*trained, *states}


def _bytes_of(sizes: Sizes, chosen: set[int]) -> int:
    return sum(size * n for size, n in sizes.items() if size in chosen)


def _copies(left: Sizes, trained: Sizes, most_same: int) -> tuple[int, int]:
    """How many copies of the trained sizes, and of twice them, are left beside the weights: the most that fit."""
    choices = [
        (n_same, n_double)
        for n_same, n_double in product(range(most_same + 1), range(MOST_COPIES + 1))
        if times(trained, n_same) + times(trained, n_double, DOUBLE) <= left
    ]
    return max(choices, key=lambda choice: choice[0] + DOUBLE * choice[1])
