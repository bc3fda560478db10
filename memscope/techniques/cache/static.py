"""``static-kv``: keys and values allocated once, at their final length.

Each chain of keys or values that grows by copying becomes one tensor of the largest size that it reaches, made where
the first was and let go of where the last is. Nothing is copied.

Assumes that the final length is known, as it is in the recording. Costs attention over the whole length from the first
token on. Source: transformers, ``StaticCache``.
"""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.tables import NEVER
from memscope.techniques.cache._parts import CacheRow, cache_rows
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Cost, Technique, no_arguments

_NAME = "static-kv"


def apply(program: Program, text: str) -> Change:
    """Make one tensor of each that grows."""
    no_arguments(_NAME, text)
    chains: dict[tuple[int | None, int, str], list[CacheRow]] = {}
    for each in cache_rows(program, _NAME):
        chains.setdefault(each.name, []).append(each)
    how = "model.generate(..., cache_implementation='static')"
    if all(len(chain) == 1 for chain in chains.values()):
        return Change(program, how=how, note="keys and values are allocated once already")
    sizes, ends = program.size_bytes.copy(), np.where(program.let_go == NEVER, NEVER, program.let_go)
    first, later = np.zeros(len(program), np.bool_), np.zeros(len(program), np.bool_)
    for chain in chains.values():
        rows = [each.row for each in chain]
        first[rows[0]], later[rows[1:]] = True, True
        sizes[rows[0]] = int(program.size_bytes[rows].max())
        ends[rows[0]] = int(program.let_go[rows].max())
    changed = program.without(later).with_sizes(first, sizes).freed_at(first, ends)
    return Change(changed, Cost(words="attention over the final length from the first token on"), how=how)


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="keys and values allocated once, at their final length",
    proof="changed-program",
    apply=apply,
)
