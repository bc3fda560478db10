"""``optimizer:paged``: Adam's states in unified memory.

States of tensors of at least 100,000 elements leave the caching allocator: they lie in memory that CUDA pages between
host and device, on demand. Smaller ones stay, as float32. The kernel works in place.

Assumes bitsandbytes' ``PagedAdamW``. What is paged in at a time also takes memory of the device, which the driver gives
back under pressure: that is not counted. Costs transfers: where the device is full all states go both ways at each
step.
Source: ``bitsandbytes/optim/optimizer.py``, ``get_state_buffer``.
"""

from __future__ import annotations

from memscope.techniques.optimizers._states import need_steps, states_of, step_temporaries
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "optimizer:paged"
LEAST_ELEMENTS = 100_000


def apply(program: Program, text: str) -> Change:
    """Take out the states that are paged."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    states = states_of(program, _NAME)
    if not states:
        raise DoesNotApplyError(f"{_NAME} does not apply: the optimizer keeps no state that could be paged")
    sizes, moved = program.size_bytes.copy(), 0
    for state in states:
        for name, row in state.rows.items():
            is_paged = state.n_elements >= LEAST_ELEMENTS
            sizes[row] = 0 if is_paged or name == "step" else 4 * state.n_elements
            moved += 2 * 4 * state.n_elements if is_paged and name != "step" else 0
    changed = program.without(step_temporaries(program))
    changed = changed.with_sizes(program.of_category(Category.OPTIMIZER_STATE), sizes)
    how = "bitsandbytes.optim.PagedAdamW(parameters, lr=...)"
    cost = Cost(moved_bytes_per_step=moved, words="at most, where the device is full")
    assumes = ("what is paged in at a time takes memory of the device beside this, and gives it back under pressure",)
    return Change(changed, cost, how=how, assumes=assumes)


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="Adam's states in unified memory, paged on demand (bitsandbytes)",
    proof="changed-program",
    apply=apply,
)
