"""``optimizer:8bit``: Adam's states in 8 bits, in blocks.

Each state of at least 4,096 elements becomes a byte an element, and a float32 scale for every 256; smaller ones are
kept as float32. Two tables of 256 float32 are shared by all. The kernel works in place, so that the steps make nothing
besides.

Assumes bitsandbytes' ``AdamW8bit`` (blocks of 256: its releases from 0.44 on; 2,048 before). Costs precision of the
states. Source: ``bitsandbytes/optim/optimizer.py``, ``Optimizer2State.init_state``; Dettmers et al., 8-bit Optimizers
via Block-wise Quantization (ICLR 2022).
"""

from __future__ import annotations

from memscope.lifetimes.tables import NEVER
from memscope.techniques.optimizers._states import first_made, need_steps, states_of, step_temporaries
from memscope.techniques.program import BEFORE, NewRows, Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "optimizer:8bit"
LEAST_ELEMENTS = 4096
BLOCK = 256
_TABLE_BYTES = 1024


def apply(program: Program, text: str) -> Change:
    """Put 8-bit states and their scales in place of the others."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    temporary, states = step_temporaries(program), states_of(program, _NAME)
    how = "bitsandbytes.optim.AdamW8bit(parameters, lr=...)"
    if not states:
        raise DoesNotApplyError(f"{_NAME} does not apply: the optimizer keeps no state that could be made smaller")
    if all(state.itemsize == 1 for state in states if state.n_elements >= LEAST_ELEMENTS):
        return Change(program, how=how, note="the optimizer's states have 8 bits already")
    sizes, is_state = program.size_bytes.copy(), program.of_category(Category.OPTIMIZER_STATE)
    scales = []
    for state in states:
        is_small = state.n_elements < LEAST_ELEMENTS
        for name, row in state.rows.items():
            if name == "step":
                sizes[row] = 0
                continue
            sizes[row] = 4 * state.n_elements if is_small else state.n_elements
            if not is_small:
                begin = int(program.begin[row])
                scale = 4 * -(-state.n_elements // BLOCK)
                scales.append((begin if begin == BEFORE else begin + 1, NEVER, scale, row))
    begin = min(first_made(program, state) for state in states)
    first = BEFORE if begin == BEFORE else begin - 1
    tables = [(first, NEVER, _TABLE_BYTES, next(iter(states[0].rows.values())))] * 2
    changed = program.without(temporary).with_sizes(is_state, sizes)
    changed = changed.with_rows(NewRows.of([*tables, *scales], Category.OPTIMIZER_STATE))
    return Change(changed, Cost(precision="optimizer states in 8 bits, in blocks of 256"), how=how)


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="Adam's states in 8 bits, in blocks (bitsandbytes)",
    proof="changed-program",
    apply=apply,
)
