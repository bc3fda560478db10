"""``micro-batch:N``: the batch in N parts, one after the other, and one step of the optimizer for all.

What a pass makes in proportion to its samples is made N times, an Nth of the size each time. From the second part on
gradients are made to be added to those that are there, and let go of; outputs stay until the next part's are there.

Assumes that inputs are on the device as a whole, as recorded, and parts are views of them. More than four parts ask for
what the fourth does: four are replayed. Costs smaller products, N launches of each. Source: ``AccumulateGrad``
(``torch/csrc/autograd/functions/accumulate_grad.h``, read at 2.13).
"""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.tables import NEVER
from memscope.techniques.activations._batch import batch_of, grows
from memscope.techniques.passes import Pass
from memscope.techniques.program import GAP, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, need_training, whole_number
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

_NAME = "micro-batch"
_N_REPLAYED = 4


def apply(program: Program, text: str) -> Change:
    """Make each pass in parts.

    Raises
    ------
    DoesNotApplyError
        If a batch has fewer samples than there shall be parts, or their number is not known.
    """
    n_parts = whole_number(_NAME, text, "parts")
    need_training(program, _NAME)
    changed = program
    for each in program.passes:
        batch = batch_of(program, each, _NAME)
        if batch.n_samples < n_parts:
            samples = "1 sample" if batch.n_samples == 1 else f"{batch.n_samples:,} samples"
            raise DoesNotApplyError(
                f"{_NAME}:{n_parts} does not apply: the recorded batch has {samples}; ask for at most "
                f"{_NAME}:{batch.n_samples}"
            )
        changed = _scaled(changed, each, n_parts)
    how = f"for part in batch.chunk({n_parts}): (loss(part) / {n_parts}).backward(); then one optimizer.step()"
    if n_parts == 1:
        return Change(program, how=how, note="the batch is one part already")
    for each in changed.passes:
        changed = _repeated(changed, each, n_parts)
    return Change(changed, Cost(n_passes=n_parts), how=how)


def _scaled(program: Program, each: Pass, n_parts: int) -> Program:
    """One pass with the first part of the batch: the largest, where they are not equal."""
    batch = batch_of(program, each, _NAME)
    largest = -(-batch.n_samples // n_parts)
    rows = grows(program, each, batch)
    return program.with_sizes(rows, -(-program.size_bytes * largest // batch.n_samples))


def _repeated(program: Program, each: Pass, n_parts: int) -> Program:
    """One pass over and over: what it makes, once more for each further part, before it ends."""
    rows = np.flatnonzero(program.is_made & (program.begin >= each.forward) & (program.begin < each.end))
    rows = rows[np.argsort(program.begin[rows], kind="stable")]
    begin, let_go = program.begin[rows], program.let_go[rows]
    is_gradient = program.category[rows] == Category.GRADIENTS
    again = is_gradient | (let_go != NEVER)  # a workspace stays
    rows, begin, let_go, is_gradient = rows[again], begin[again], let_go[again], is_gradient[again]
    times = np.unique(np.concatenate([begin, let_go[let_go < each.end]]))
    n_times, n_copies = len(times) + 2, min(n_parts, _N_REPLAYED) - 1
    base = each.end - GAP + 2
    added = _added(begin, np.where(is_gradient, NEVER, begin))
    changed = program
    first_ends = np.full(len(program), 0, np.int64)
    outlives = ~is_gradient & (let_go >= each.end)
    for copy in range(n_copies):
        start = base + copy * n_times
        new_begin = start + np.searchsorted(times, begin)
        new_end = start + np.searchsorted(times, np.where(is_gradient, added, let_go))
        new_end = np.where(is_gradient, np.maximum(new_end, new_begin + 1), new_end)
        is_last = copy == n_copies - 1
        new_end[outlives] = let_go[outlives] if is_last else new_begin[outlives] + n_times + 1
        columns = NewRows(new_begin, new_end, program.size_bytes[rows], rows, np.full(len(rows), NONE_ID))
        temporary = np.where(is_gradient, int(Category.TEMPORARIES), NONE_ID)
        changed = changed.with_rows(columns._replace(category=temporary))
        if copy == 0:
            first_ends[rows] = new_begin + 1
    replaced = np.zeros(len(program), np.bool_)
    replaced[rows[outlives]] = True
    if n_copies:
        padded = len(changed) - len(program)
        changed = changed.freed_at(np.pad(replaced, (0, padded)), np.pad(first_ends, (0, padded)))
    return changed


def _added(begin: Int64Array, others: Int64Array) -> Int64Array:
    """When each gradient has been added to what is there: just before the next thing that is none is made."""
    following = np.sort(others[others != NEVER])
    at = np.searchsorted(following, begin, side="right")
    return np.append(following, begin.max(initial=0) + 1)[at]


TECHNIQUE = Technique(
    name=_NAME,
    usage="micro-batch:N",
    summary="the batch in N parts, one after the other",
    proof="changed-program",
    apply=apply,
    defaults=("2",),
    is_last=True,
)
