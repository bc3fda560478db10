"""``optimizer:fused``: the optimizer's fused kernel.

Takes out what each step of Adam or AdamW makes besides its states: the fused kernel reads gradients and writes weights
and states in one go. Adds a float32 counter of steps on the device for each parameter, which is on the host otherwise.

Assumes ``fused=True`` of the same optimizer. Costs nothing; it is faster.
Source: ``torch/optim/adam.py``, ``_fused_adam`` and ``_init_group``, read at 2.13.
"""

from __future__ import annotations

from memscope.lifetimes.tables import NEVER
from memscope.techniques.optimizers._states import (
    OF_ADAM,
    ON_DEVICE_STEP_BYTES,
    State,
    first_made,
    need_steps,
    states_of,
    step_temporaries,
)
from memscope.techniques.program import BEFORE, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "optimizer:fused"


def apply(program: Program, text: str) -> Change:
    """Take out what steps make, put the counters on the device."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    temporary, states = step_temporaries(program), states_of(program, _NAME)
    how = "torch.optim.AdamW(parameters, lr=..., fused=True)"
    if not states:
        if temporary.any():
            raise DoesNotApplyError(f"{_NAME} does not apply: no state of Adam or AdamW was seen in this trace")
        return Change(program, how=how, note="the optimizer's steps make nothing besides: there is nothing to fuse")
    if not all(set(state.rows) >= OF_ADAM for state in states):
        raise DoesNotApplyError(f"{_NAME} does not apply: it is known for Adam and AdamW, whose states these are not")
    if all("step" in state.rows for state in states) and not temporary.any():
        return Change(program, how=how, note="the optimizer is fused already")
    counters = [_counter(program, state) for state in states if "step" not in state.rows]
    changed = program.without(temporary).with_rows(NewRows.of(counters, Category.OPTIMIZER_STATE))
    return Change(changed, Cost(words="none: it is faster"), how=how)


def _counter(program: Program, state: State) -> tuple[int, int, int, int]:
    first, like = first_made(program, state), next(iter(state.rows.values()))
    return (BEFORE if first == BEFORE else first - 1), NEVER, ON_DEVICE_STEP_BYTES, like


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="Adam's fused kernel: its steps make nothing besides",
    proof="changed-program",
    apply=apply,
)
