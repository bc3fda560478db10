"""``optimizer:foreach-off``: the optimizer's loop over parameters, one after the other.

The default of Adam and AdamW works on all parameters at once, and makes a tensor of each one's size at the same time
(``_foreach_sqrt``). The loop makes two of one parameter's size (the root, and the root by the correction), of which the
second stays until the next parameter's is there.

Assumes Adam or AdamW without ``amsgrad``, and ``foreach=False``. Costs launches: several kernels for each parameter.
Source: ``torch/optim/adam.py``, ``_single_tensor_adam``, read at 2.13.
"""

from __future__ import annotations

from memscope.techniques.optimizers._states import (
    OF_ADAM,
    State,
    after_states,
    live_temporary_bytes,
    need_steps,
    states_of,
    step_spans,
    step_temporaries,
)
from memscope.techniques.program import NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "optimizer:foreach-off"
_N_AT_ONCE = 3


def apply(program: Program, text: str) -> Change:
    """Put the loop's temporaries in place of those of all parameters."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    temporary, states = step_temporaries(program), states_of(program, _NAME)
    how = "torch.optim.AdamW(parameters, lr=..., foreach=False)"
    if not temporary.any():
        return Change(program, how=how, note="the optimizer's steps make nothing besides: there is nothing to save")
    if not states or not all(set(state.rows) >= OF_ADAM for state in states):
        raise DoesNotApplyError(f"{_NAME} does not apply: it is known for Adam and AdamW, whose states were not seen")
    largest = max(int(program.size_bytes[state.rows["exp_avg_sq"]]) for state in states)
    if live_temporary_bytes(program) <= _N_AT_ONCE * largest:
        return Change(program, how=how, note="the optimizer goes from one parameter to the next already")
    rows = [row for span in step_spans(program) for row in _loop(program, states, span)]
    changed = program.without(temporary).with_rows(NewRows.of(rows, Category.TEMPORARIES))
    return Change(changed, Cost(words="several small kernels for each parameter in place of a few for all"), how=how)


def _loop(program: Program, states: list[State], span: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """What the loop makes in one step: for each parameter the root, and the root by the correction."""
    at, rows = after_states(program, span) + 1, []
    for state in states:
        like = state.rows["exp_avg_sq"]
        size = int(program.size_bytes[like])
        rows.append((at, at + 2, size, like))
        rows.append((at + 1, at + 7, size, like))  # the next parameter's is made at at + 5
        at += 4
    return rows


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="Adam's loop over parameters: temporaries of one at a time",
    proof="changed-program",
    apply=apply,
)
