"""What grows with the batch: how many samples and tokens there are, and which rows are in proportion to them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.tables import NEVER
from memscope.techniques.passes import Pass
from memscope.techniques.program import Program
from memscope.techniques.technique import DoesNotApplyError
from memscope.trace.categories import Category
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import MiB

_WHOLE = (Category.WEIGHTS, Category.GRADIENTS, Category.OPTIMIZER_STATE, Category.WORKSPACE, Category.COMMUNICATION)
"""What does not grow with the batch."""
_LIBRARY_BYTES = MiB
"""A product's own workspace, made and let go of at once: cuBLASLt's default."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes into a pass: samples, and in all tokens (or other positions)."""

    n_samples: int
    n_tokens: int


def batch_of(program: Program, each: Pass, technique: str) -> Batch:
    """The batch of a pass, from the shapes of its inputs.

    Raises
    ------
    DoesNotApplyError
        If no input's shape was seen.
    """
    rows = program.of_category(Category.INPUTS) & (program.begin < each.backward) & (program.let_go > each.forward)
    shapes = [tensor[1] for row in np.flatnonzero(rows).tolist() if (tensor := program.tensors[row]) and tensor[1]]
    if not shapes:
        raise DoesNotApplyError(
            f"{technique} does not apply: how many samples a batch has is not known, because no input's shape was "
            "seen; a dry run of the program (memscope run --dry-run) sees them"
        )
    n_samples = Counter(shape[0] for shape in shapes).most_common(1)[0][0]
    # Of tokens and features (an embedding's width, an image) the fewer are positions.
    positions = [math.prod(shape[:2]) for shape in shapes if shape[0] == n_samples]
    whole = [math.prod(shape) for shape in shapes if shape[0] == n_samples and len(shape) == 1]
    return Batch(n_samples, min([*positions, *whole]))


def grows(program: Program, each: Pass, batch: Batch) -> BoolArray:
    """Which of the rows that a pass makes are in proportion to its samples: bool (rows,).

    A tensor is by its shape. What has none that was seen is by its size: in proportion where it is a whole number of
    bytes for each sample, and at least one for each token, and no weight or gradient has that size. That holds for what
    reductions take beside their tensors too, which in truth goes in steps.
    """
    inside = program.is_made & (program.begin >= each.forward) & (program.begin < each.end)
    whole = np.isin(program.category, [int(category) for category in _WHOLE])
    found = np.zeros(len(program), np.bool_)
    shapes = _weight_shapes(program)
    unseen = []
    for row in np.flatnonzero(inside & ~whole).tolist():
        tensor = program.tensors[row]
        if tensor is None:
            unseen.append(row)
        elif tensor[1]:
            first = tensor[1][0]
            is_batch = first in (batch.n_samples, batch.n_tokens)
            found[row] = is_batch or (first % batch.n_samples == 0 and tensor[1] not in shapes)
    sizes = np.unique(program.size_bytes[found])
    known = np.unique(np.concatenate([sizes * 4, sizes * 2, sizes, sizes // 2, sizes // 4]))
    fixed = np.unique(program.size_bytes[program.of_category(Category.WEIGHTS, Category.GRADIENTS)])
    fixed = np.unique(np.concatenate([fixed * 2, fixed, fixed // 2]))
    rows = np.array(unseen, np.int64)
    size = program.size_bytes[rows]
    may = (size % batch.n_samples == 0) & (size >= batch.n_tokens)
    found[rows] = may & ~_is_workspace(program, rows) & (np.isin(size, known) | ~np.isin(size, fixed))
    return found


def _is_workspace(program: Program, rows: Int64Array) -> BoolArray:
    """Which rows are a product's own workspace, let go of before anything else is asked for: bool, by ``rows``."""
    begins = np.append(np.sort(program.begin[program.is_made]), NEVER)
    following = begins[np.searchsorted(begins, program.begin[rows], side="right")]
    found: BoolArray = (program.size_bytes[rows] == _LIBRARY_BYTES) & (program.let_go[rows] < following)
    return found


def _weight_shapes(program: Program) -> set[tuple[int, ...]]:
    """Shapes of the weights, and of their transposes."""
    rows = np.flatnonzero(program.of_category(Category.WEIGHTS)).tolist()
    shapes = {tensor[1] for row in rows if (tensor := program.tensors[row]) is not None}
    return shapes | {shape[::-1] for shape in shapes}
