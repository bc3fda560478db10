"""Steps of a program, found from its marks, its optimizer, its backward passes, or from what repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memscope.attribution.steps import (
    BACKWARD_STEPS,
    OPTIMIZER_STEPS,
    PASSES,
    REPEATED_STEPS,
    find_passes,
    find_steps,
)
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.schema import Action, MarkKind
from tests.attribution.scripted import Script, trained


def test_a_step_ends_with_the_optimizers() -> None:
    steps = find_steps(trained().lifetimes())
    assert steps is not None
    assert (steps.source, len(steps)) == (OPTIMIZER_STEPS, 3)


def test_a_step_ends_with_the_backward_pass_where_no_optimizer_is_seen() -> None:
    script = Script()
    for k in range(3):
        script.alloc(f"activation{k}", "forward")
        script.alloc(f"gradient{k}", "backward")
        script.free(f"activation{k}", "backward")
    steps = find_steps(script.lifetimes())
    assert steps is not None
    assert (steps.source, len(steps)) == (BACKWARD_STEPS, 3)


def repeating(n: int, stack: str | None = None) -> Script:
    """Ten allocations of different sizes, again and again, after some that are never repeated."""
    script = Script()
    for i in range(5):
        script.alloc(f"once{i}", stack, 512 * (40 + i))
    for k in range(n):
        for i in range(10):
            script.alloc(f"{i}-{k}", stack, 512 * (1 + i))
        for i in range(10):
            script.free(f"{i}-{k}", stack)
    return script


def test_steps_are_what_repeats_where_nothing_else_tells_them() -> None:
    script = repeating(8)
    lifetimes = script.lifetimes()
    steps = find_steps(lifetimes)
    assert steps is not None
    assert steps.source == REPEATED_STEPS
    assert set(np.diff(steps.begin).tolist()) == {30}  # ten allocs, and two events for each free
    first = int(lifetimes.allocations.alloc_event[script.rows["0-0"]])
    assert first in steps.begin.tolist()


def test_no_steps_where_nothing_repeats() -> None:
    script = Script()
    for i in range(64):
        script.alloc(str(i), None, 512 * (i * i % 61 + 1))
    assert find_steps(script.lifetimes()) is None


def test_the_layers_of_one_pass_are_no_steps() -> None:
    assert find_steps(repeating(8, "forward").lifetimes()) is None


def test_marks_are_the_programs_word() -> None:
    script = trained()
    script.builder.add_mark(MarkKind.STEP, "warm-up", event=10)
    trace = script.trace()
    steps = find_steps(DeviceLifetimes(trace, 0))
    assert steps is not None
    assert (steps.source, steps.labels) == ("marks", ("warm-up",))
    unmarked = find_steps(DeviceLifetimes(replace(trace, marks=trace.marks.take(np.zeros(1, np.bool_))), 0))
    assert unmarked is not None
    assert unmarked.source == OPTIMIZER_STEPS


def alternating(n: int) -> Script:
    """Steps of five lines each, whose sizes are of one kind and of another in turn."""
    script = Script({f"line{i}": [("train", "/home/me/train.py", 20 + i)] for i in range(5)})
    for k in range(n):
        for i in range(5):
            script.alloc(f"{i}-{k}", f"line{i}", 512 * (1 + i + 7 * (k % 2)))
        for i in range(5):
            script.free(f"{i}-{k}", f"line{i}")
    return script


def test_steps_that_differ_in_sizes_in_turn_are_told_one_by_one() -> None:
    steps = find_steps(alternating(12).lifetimes())
    assert steps is not None
    assert set(np.diff(steps.begin).tolist()) == {15}


def test_without_stacks_what_repeats_is_told_by_its_sizes() -> None:
    steps = find_steps(repeating(12).lifetimes())
    assert steps is not None
    assert set(np.diff(steps.begin).tolist()) == {30}


def evaluated(n: int) -> Script:
    """Passes of the same lines on batches of any length, with no step of an optimizer and no backward pass."""
    script = Script()
    for k in range(n):
        script.alloc(f"batch{k}", "batch", 512 * (3 + k * k % 7))
        script.alloc(f"logits{k}", "forward", 512 * (11 + k * k % 13))
        script.free(f"batch{k}", "user")
    return script


def test_passes_are_told_where_steps_are_not() -> None:
    lifetimes = evaluated(5).lifetimes()
    assert find_steps(lifetimes) is None
    passes = find_passes(lifetimes)
    assert passes is not None
    assert (passes.source, len(passes)) == (PASSES, 5)
    assert find_passes(trained().lifetimes()).source == BACKWARD_STEPS


def test_a_step_that_memory_ran_out_in_is_no_whole_step() -> None:
    script = evaluated(5)
    script.alloc("batch5", "batch")
    script.alloc("logits5", "forward")
    script.builder.add_event(Action.OOM, address=0, size_bytes=512)
    passes = find_passes(script.lifetimes())
    assert passes is not None
    assert len(passes) == 5
