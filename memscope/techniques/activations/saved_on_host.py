"""``offload:activations``: what the forward pass saves for the backward pass lies on the host in between.

Each tensor that autograd saves is copied to the host and let go of as the forward pass goes on; the operation of the
backward pass that needs it brings it back, all that it needs at once, before it makes anything. Weights that products
save are brought back as well, beside those that are there. A product is through with both when it has made the
gradient of its matrix.

Assumes ``torch.autograd.graph.save_on_cpu()`` around the forward pass and the loss. When a tensor is let go of in a
forward pass that saves nothing is not in the recording: it is taken to be when the second one after it is made.
Matrices that are not trained are brought back, too, which is not counted. Costs what is saved over the link twice a
step, and waiting for it. Source: ``torch/autograd/graph.py``, read at 2.13.
"""

from __future__ import annotations

import numpy as np

from memscope.techniques.activations.layers import list_computed_again
from memscope.techniques.passes import Pass
from memscope.techniques.program import NewRows, Program
from memscope.techniques.technique import Change, Cost, Technique, need_training, no_arguments
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

_NAME = "offload:activations"
_N_LATER = 2
_TABLES = ("embed", "wpe")
"""Of names of matrices that rows are looked up in: their gradients need none of them."""


def apply(program: Program, text: str) -> Change:
    """Let go of what is saved, and bring it back."""
    no_arguments(_NAME, text)
    need_training(program, _NAME)
    how = "with torch.autograd.graph.save_on_cpu(pin_memory=True): loss = ...  # around forward pass and loss"
    changed, moved = program, []
    for each in program.passes:
        rows = _saved(program, each)
        starts = _starts(program, each, rows)
        weights = _products(program, each)
        moved.append(int(program.size_bytes[rows].sum() + program.size_bytes[weights].sum()))
        mask = np.zeros(len(changed), np.bool_)
        mask[rows] = True
        ends = np.zeros(len(changed), np.int64)
        ends[rows] = _natural_ends(program, each, rows)
        changed = changed.freed_at(mask, ends).with_rows(_brought_back(program, rows, starts, weights))
    assumes: tuple[str, ...] = ()
    if list_computed_again(program) is not None:
        assumes = ("what goes into checkpointed layers is saved on the host as well",)
    return Change(changed, Cost(moved_bytes_per_step=2 * max(moved)), how=how, assumes=assumes)


def _saved(program: Program, each: Pass) -> Int64Array:
    """What a forward pass makes that the backward pass lets go of, in that order."""
    saved = program.is_made & (program.begin >= each.forward) & (program.begin < each.backward)
    saved &= (program.let_go >= each.backward) & (program.let_go <= each.end)
    rows = np.flatnonzero(saved)
    return rows[np.argsort(program.let_go[rows], kind="stable")].astype(np.int64)


def _starts(program: Program, each: Pass, rows: Int64Array) -> Int64Array:
    """When each is brought back: before its operation makes anything, which is when the one before has ended."""
    inside = program.is_made & (program.begin >= each.backward) & (program.begin < each.end)
    begins = np.sort(program.begin[inside])
    ends = program.let_go[rows]
    before = np.concatenate([[each.backward], ends[:-1]])
    is_same = np.searchsorted(begins, before) == np.searchsorted(begins, ends)
    starts, start = np.empty(len(rows), np.int64), each.backward
    for i in range(len(rows)):
        start = start if is_same[i] and i else int(before[i])
        starts[i] = start + 1
    return starts


def _natural_ends(program: Program, each: Pass, rows: Int64Array) -> Int64Array:
    """When each would be let go of if nothing saved it."""
    made = np.sort(program.begin[(program.begin >= each.forward) & (program.begin < each.backward)])
    following = np.searchsorted(made, program.begin[rows]) + _N_LATER
    ends = np.append(made, np.full(_N_LATER + 1, each.backward - 2))[following] + 1
    later: Int64Array = np.maximum(ends, program.begin[rows] + 1).astype(np.int64)
    return later


def _products(program: Program, each: Pass) -> Int64Array:
    """The gradients of matrices that take part in products, in order."""
    inside = program.of_category(Category.GRADIENTS) & program.within(((each.backward, each.end),))
    rows = [
        row
        for row in np.flatnonzero(inside).tolist()
        if (tensor := program.tensors[row]) is not None
        and len(tensor[1]) == 2
        and not any(word in program.owners[row] for word in _TABLES)
    ]
    found = np.array(rows, np.int64)
    return found[np.argsort(program.begin[found], kind="stable")]


def _brought_back(program: Program, rows: Int64Array, starts: Int64Array, weights: Int64Array) -> NewRows:
    """The copies: of what was saved, and of the matrices of products."""
    at = program.begin[weights]
    ends = program.let_go[rows].copy()
    of = np.searchsorted(at, ends) - 1  # the last gradient of a matrix before each is let go of
    is_product = of >= 0
    is_product[is_product] = at[of[is_product]] > starts[is_product]
    ends[is_product] = at[of[is_product]] + 1
    operation = np.searchsorted(starts, at) - 1
    begins = np.where(operation >= 0, starts[np.maximum(operation, 0)], at - 2) if len(starts) else at - 2
    begins = np.minimum(begins, at - 2)
    like = np.full(len(rows) + len(weights), NONE_ID, np.int64)
    return NewRows(
        np.concatenate([starts, begins]),
        np.concatenate([ends, at + 2]),
        np.concatenate([program.size_bytes[rows], program.size_bytes[weights]]),
        like,
        np.full(len(like), int(Category.TEMPORARIES), np.int64),
    )


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="what is saved for the backward pass on the host in between",
    proof="changed-program",
    apply=apply,
)
