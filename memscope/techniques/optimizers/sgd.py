"""``optimizer:sgd``: stochastic gradient descent without momentum.

Takes out every state of the optimizer, and what its steps make besides: ``torch.optim.SGD`` without momentum and weight
decay adds the gradients to the weights in place.

Assumes no momentum. Costs the adaptive steps: a model that trains with Adam may not train with this.
Source: ``torch/optim/sgd.py``, ``_multi_tensor_sgd``, read at 2.13.
"""

from __future__ import annotations

from memscope.techniques.optimizers._states import need_steps, step_temporaries
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Cost, Technique, no_arguments
from memscope.trace.categories import Category


def apply(program: Program, text: str) -> Change:
    """Take out states and what steps make."""
    no_arguments("optimizer:sgd", text)
    need_steps(program, "optimizer:sgd")
    state, temporary = program.of_category(Category.OPTIMIZER_STATE), step_temporaries(program)
    return Change(
        program.without(state | temporary),
        Cost(words="no momentum and no adaptive steps: other learning rates, and another course of training"),
        how="torch.optim.SGD(parameters, lr=...)",
        note=None if (state | temporary).any() else "the optimizer keeps no state already",
    )


TECHNIQUE = Technique(
    name="optimizer:sgd",
    usage="optimizer:sgd",
    summary="SGD without momentum: no optimizer state",
    proof="changed-program",
    apply=apply,
)
