"""Which steps a device is judged by, and whether anything can be said of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.attribution.steps import PASSES, REPEATED_STEPS, find_passes
from memscope.device.device import Device
from memscope.findings.over_steps.leaks import MIN_STEPS
from memscope.lifetimes.steps import Steps
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int64Array

_OF_USE = (
    Category.ACTIVATIONS,
    Category.INPUTS,
    Category.TEMPORARIES,
    Category.GRADIENTS,
    Category.COMMUNICATION,
)
"""What a program has that computes with its model, and one does not that only makes or loads it."""
_OF_START = (Category.WEIGHTS, Category.OPTIMIZER_STATE, Category.KV_CACHE)
"""What is made layer by layer at the start."""
MIN_PASSING = 4
"""Allocations of no category that come and go, for each that stays: what a model's use makes. A conversion makes one or
two."""
_WITH_STACK_FRAC = 0.5
"""With fewer than this share of the allocations with a stack, what repeats says nothing."""
_FED_FRAC = 0.75
"""Of passes that are taken for steps, so many are given something new: layers that are called one by one are not."""


@dataclass(frozen=True, slots=True)
class JudgedSteps:
    """The steps that a device is judged by; None, with the reason in words, where none can be."""

    steps: Steps | None
    why_not: str = ""


def judged_steps(device: Device) -> JudgedSteps:
    """A device's steps, or where they are not known or too few, its passes if each is given something new."""
    steps = device.steps
    if steps is None or len(steps) < MIN_STEPS:
        passes = find_passes(device.lifetimes)
        if passes is not None and len(passes) >= MIN_STEPS and _are_fed(device, passes):
            return JudgedSteps(passes)
    if steps is None:
        return JudgedSteps(None, "steps not known")
    if steps.source == REPEATED_STEPS and _has_few_stacks(device):
        return JudgedSteps(None, "without stacks a loop over steps looks like a loop over layers")
    if steps.source == REPEATED_STEPS and _may_be_start_up(device, steps):
        return JudgedSteps(None, "what repeats shows no use of a model: it may be the start, layer by layer")
    if len(steps) < MIN_STEPS:
        return JudgedSteps(steps, f"{len(steps)} step{'s' if len(steps) > 1 else ''} recorded, {MIN_STEPS} are needed")
    return JudgedSteps(steps)


def _are_fed(device: Device, steps: Steps) -> bool:
    """Whether most passes are given a batch; backward passes are steps whatever they are given."""
    if steps.source != PASSES:
        return True
    is_input = device.attribution.category == Category.INPUTS
    return len(_steps_of(steps, device.allocations.alloc_event[is_input])) >= _FED_FRAC * len(steps)


def _steps_of(steps: Steps, events: Int64Array) -> Int64Array:
    step = np.unique(steps.step_of(events))
    found: Int64Array = step[step >= 0]
    return found


def _has_few_stacks(device: Device) -> bool:
    """Whether steps that rest on repetition alone may be layers: loading equal ones one by one looks like a leak."""
    has_stack = device.allocations.stack_id != NONE_ID
    return bool(np.count_nonzero(has_stack) < _WITH_STACK_FRAC * len(has_stack))


def _may_be_start_up(device: Device, steps: Steps) -> bool:
    """Whether steps rest on repetition alone, and most of them do not show that the program was in use.

    Weights made, loaded or converted layer by layer, and the layers of a cache, repeat and stay: that is no leak.
    Memory of use shows use, and so does much memory of no category that comes and goes in each step; but loading makes
    such memory too where what stays is known to be weights or a cache, and so does a conversion, a piece or two for
    each that stays.
    """
    table, category = device.allocations, device.attribution.category
    step = steps.step_of(table.alloc_event)

    def are_few(rows: BoolArray) -> bool:
        return 2 * len(np.unique(step[rows & (step >= 0)])) < len(steps)

    if not are_few(np.isin(category, _OF_USE)):
        return False
    stays = (step >= 0) & (table.let_go_event == NONE_ID)
    kept_bytes = int(table.block_bytes[stays].sum())
    made_bytes = int(table.block_bytes[stays & np.isin(category, _OF_START)].sum())
    passes = (step >= 0) & (steps.step_of(table.let_go_event) == step)
    n_passing, n_staying = (np.bincount(step[rows], minlength=len(steps)) for rows in (passes, stays))
    n_of_use = int(np.count_nonzero((n_passing > 0) & (n_passing >= MIN_PASSING * n_staying)))
    return 2 * made_bytes >= kept_bytes or 2 * n_of_use < len(steps)
