"""``set-to-none``: gradients that are let go of after each step.

Where gradients are set to zero in place they live on through the next forward pass. Set to None, each lives from its
own backward pass to the end of the step; what the next backward pass made to be added to them become the gradients.

Assumes that every backward pass makes the same requests in the same order. Costs nothing: it is PyTorch's default.
Source: ``torch/optim/optimizer.py``, ``zero_grad``, read at 2.13.
"""

from __future__ import annotations

import numpy as np

from memscope.techniques.optimizers._states import need_steps
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "set-to-none"


def apply(program: Program, text: str) -> Change:
    """Let go of gradients at the end of each step."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    how = "optimizer.zero_grad()  # without set_to_none=False"
    passes = [each for each in program.passes if each.has_step]
    first, *later = passes
    gradients = program.of_category(Category.GRADIENTS) & program.within(((first.forward, first.step),))
    if not later:
        raise DoesNotApplyError(f"{_NAME} does not apply: the trace has one step; record two or more to see what stays")
    kept = gradients & (program.let_go > later[0].end)
    if not kept.any():
        return Change(program, how=how, note="gradients are let go of after each step already")
    ends = np.full(len(program), first.step_end, np.int64)
    changed = program.freed_at(kept, ends)
    order = _backward_rows(program, first.backward, first.end)
    for each in later:
        again = _backward_rows(program, each.backward, each.end)
        if len(again) != len(order) or np.any(program.size_bytes[again] != program.size_bytes[order]):
            raise DoesNotApplyError(f"{_NAME} does not apply: the backward passes of this trace are not alike")
        renewed = np.zeros(len(program), np.bool_)
        renewed[again[kept[order]]] = True
        changed = changed.freed_at(renewed, np.full(len(program), each.step_end, np.int64))
    return Change(changed, Cost(words="none: it is the default"), how=how)


def _backward_rows(program: Program, begin: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """What a backward pass makes, in order, without the workspaces that only the first of them has to make."""
    made = (program.begin >= begin) & (program.begin < end)
    rows = np.flatnonzero(made & ~program.of_category(Category.WORKSPACE))
    return rows[np.argsort(program.begin[rows], kind="stable")]


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="gradients set to None after each step, not to zero in place",
    proof="changed-program",
    apply=apply,
)
