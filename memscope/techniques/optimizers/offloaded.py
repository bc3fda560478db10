"""``offload:optimizer``: states and the step on the host.

Takes the states and what the steps make off the device: gradients are copied to the host, the step is made there, and
the weights are copied back into where they lie.

Assumes that gradients are copied from where they are (DeepSpeed's ZeRO-Offload on one device, torchao's
``CPUOffloadOptimizer`` with its default). Costs transfers of gradients and weights at each step, and the host's speed.
Source: Ren et al., ZeRO-Offload (USENIX ATC 2021).
"""

from __future__ import annotations

import numpy as np

from memscope.techniques.optimizers._states import need_steps, step_temporaries
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Cost, Technique, no_arguments
from memscope.trace.categories import Category

_NAME = "offload:optimizer"


def apply(program: Program, text: str) -> Change:
    """Take states and what steps make off the device."""
    no_arguments(_NAME, text)
    need_steps(program, _NAME)
    state, temporary = program.of_category(Category.OPTIMIZER_STATE), step_temporaries(program)
    first = program.passes[0]
    gradients = program.of_category(Category.GRADIENTS) & program.within(((first.forward, first.step_end),))
    how = "torchao.optim.CPUOffloadOptimizer(parameters, torch.optim.AdamW, fused=True)"
    if not (state | temporary).any():
        return Change(program, how=how, note="the optimizer has nothing on the device already")
    moved = 2 * int(np.sum(program.size_bytes[gradients]))
    cost = Cost(moved_bytes_per_step=moved, words="the step is made by the host")
    return Change(program.without(state | temporary), cost, how=how)


TECHNIQUE = Technique(
    name=_NAME,
    usage=_NAME,
    summary="optimizer states and steps on the host",
    proof="changed-program",
    apply=apply,
)
