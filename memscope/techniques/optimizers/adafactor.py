"""``optimizer:adafactor``: rows and columns in place of a second moment.

A matrix keeps the mean squares of its rows and of its columns, a vector one value an element. Each step makes, for one
parameter after the other, the estimate of its size, which stays until the next one's is there.

Assumes ``torch.optim.Adafactor`` with its defaults (no first moment, the loop over parameters). What the reductions of
large matrices take beside their tensors is not counted. Costs the first moment,
and some of the second's precision. Source: ``torch/optim/_adafactor.py``, ``_single_tensor_adafactor``, read at 2.13;
Shazeer and Stern, Adafactor (2018).
"""

from __future__ import annotations

import math

from memscope.lifetimes.tables import NEVER
from memscope.techniques.optimizers._states import (
    State,
    after_states,
    first_made,
    need_steps,
    states_of,
    step_spans,
    step_temporaries,
)
from memscope.techniques.program import BEFORE, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "optimizer:adafactor"
_FACTORS = {"row_var", "col_var", "variance"}


def apply(program: Program, text: str) -> Change:
    """Put factors in place of the states, and the loop's temporaries in place of the others."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    temporary, states = step_temporaries(program), states_of(program, _NAME)
    how = "torch.optim.Adafactor(parameters, lr=...)"
    if not states:
        raise DoesNotApplyError(f"{_NAME} does not apply: the optimizer keeps less already, no state at all")
    if all(_FACTORS & set(state.rows) for state in states):
        return Change(program, how=how, note="the optimizer is Adafactor already")
    rows = [row for state in states for row in _factors(program, state)]
    changed = program.without(temporary | program.of_category(Category.OPTIMIZER_STATE))
    changed = changed.with_rows(NewRows.of(rows, Category.OPTIMIZER_STATE))
    made = [row for span in step_spans(program) for row in _loop(program, states, span)]
    changed = changed.with_rows(NewRows.of(made, Category.TEMPORARIES))
    assumes = ("what reductions of large matrices take beside their tensors is not counted",)
    return Change(changed, Cost(precision="no first moment; the second as rows and columns"), how=how, assumes=assumes)


def _sizes(state: State) -> list[int]:
    """Bytes of the factors of one parameter."""
    if len(state.shape) < 2:
        return [state.n_elements * state.itemsize]
    *_, n_rows, n_columns = state.shape
    n_matrices = math.prod(state.shape[:-2])
    return [n_matrices * n_rows * state.itemsize, n_matrices * n_columns * state.itemsize]


def _factors(program: Program, state: State) -> list[tuple[int, int, int, int]]:
    first, like = first_made(program, state), next(iter(state.rows.values()))
    sizes = _sizes(state)
    return [(BEFORE if first == BEFORE else first + i, NEVER, size, like) for i, size in enumerate(sizes)]


def _loop(program: Program, states: list[State], span: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """What the loop makes in one step: means of rows and columns, and the estimate."""
    at, rows = after_states(program, span) + 8, []
    for state in states:
        like = next(iter(state.rows.values()))
        size = state.n_elements * state.itemsize
        means = _sizes(state) if len(state.shape) > 1 else [size]
        rows += [(at + i, at + 8 + i, mean, like) for i, mean in enumerate(means)]  # until the next parameter's
        rows.append((at + 3, at + 8 + 4, size, like))
        at += 8
    return rows


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="rows and columns in place of Adam's second moment, no first",
    proof="closed-form",
    apply=apply,
)
