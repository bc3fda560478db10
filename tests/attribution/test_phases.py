"""Phases, lives and steps of a program, found from its stacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memscope.attribution.attribution import attribute
from memscope.attribution.life import Life, LifeTable
from memscope.attribution.phases import PHASE_PATTERNS, Phase, find_phases
from memscope.attribution.steps import BACKWARD_STEPS, OPTIMIZER_STEPS, REPEATED_STEPS, find_steps
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import MarkKind
from tests.attribution.scripted import Script, training_step


def phases(script: Script) -> dict[str, Phase]:
    """The phase that each named allocation was made in."""
    runs = find_phases(script.lifetimes())
    return {name: Phase(int(runs.row_phase[row])) for name, row in script.rows.items()}


def categories(script: Script) -> dict[str, str]:
    """The category of each named allocation."""
    attribution = attribute(script.lifetimes())
    return {name: Category(int(attribution.category[row])).label for name, row in script.rows.items()}


def living(script: Script, life: Life) -> set[str]:
    """The names of the allocations that live so."""
    lifetimes = script.lifetimes()
    rows = LifeTable(lifetimes, find_phases(lifetimes)).rows(life)
    return {name for name, row in script.rows.items() if rows[row]}


def trained(n: int = 3, backward: str | None = "backward") -> Script:
    """A constructor, and some steps."""
    script = Script()
    script.alloc("weight", "constructor")
    for k in range(n):
        training_step(script, k, first=k == 0, backward=backward)
    return script


@pytest.mark.parametrize("backward", ["backward", None], ids=["stacks", "autograd-thread"])
def test_a_training_program_goes_through_its_phases(backward: str | None) -> None:
    found = phases(trained(backward=backward))
    expected = {
        "weight": Phase.OUTSIDE,
        "batch": Phase.OUTSIDE,
        "activation": Phase.FORWARD,
        "scratch": Phase.FORWARD,
        "loss": Phase.FORWARD,
        "gradient": Phase.BACKWARD,
        "inner": Phase.BACKWARD,
        "update": Phase.OPTIMIZER,
        "state": Phase.OPTIMIZER,
    }
    assert all(found[name] is expected[name.rstrip("0123456789")] for name in found)


@pytest.mark.parametrize("backward", ["backward", None], ids=["stacks", "autograd-thread"])
def test_a_training_program_is_classified_without_identity(backward: str | None) -> None:
    found = categories(trained(backward=backward))
    expected = {
        "weight": "weights",
        "batch": "inputs",
        "activation": "activations",
        "scratch": "temporaries",
        "loss": "activations",
        "gradient": "gradients",
        "inner": "temporaries",
        "update": "temporaries",
        "state": "optimizer_state",
    }
    assert all(found[name] == expected[name.rstrip("0123456789")] for name in found)


def test_events_without_a_stack_tell_nothing_where_no_forward_pass_came_before() -> None:
    script = Script()
    script.alloc("a", None)
    script.alloc("b", "user")
    script.alloc("c", None)
    assert phases(script) == {"a": Phase.UNTOLD, "b": Phase.OUTSIDE, "c": Phase.UNTOLD}
    assert set(categories(script).values()) == {"unknown"}


def test_frees_with_the_stacks_of_their_allocs_tell_nothing() -> None:
    """``context="alloc"``: the free of an activation within the backward pass carries the forward pass's stack."""
    script = Script()
    for k in range(3):
        script.alloc(f"activation{k}", "forward")
        script.alloc(f"gradient{k}", "backward")
        script.free(f"activation{k}", "forward")
        script.alloc(f"inner{k}", "backward")
        script.free(f"inner{k}", "backward")
    runs = find_phases(script.lifetimes())
    assert [Phase(int(p)) for p in runs.phase] == [Phase.FORWARD, Phase.BACKWARD] * 3


def test_a_program_outside_of_every_phase_keeps_its_memory_unknown() -> None:
    script = Script()
    script.alloc("index", "user")
    script.alloc("activation", "forward")
    assert categories(script) == {"index": "unknown", "activation": "activations"}


def test_lives() -> None:
    script = trained()
    assert {"scratch0", "inner1", "update2"} <= living(script, Life.SHORT)
    assert not {"activation0", "gradient0", "state"} & living(script, Life.SHORT)
    assert living(script, Life.SAVED) == {"activation0", "activation1", "activation2"}
    assert living(script, Life.KEPT) == {"weight", "state"}
    assert living(script, Life.SETUP) == {"weight", "batch0"}
    assert living(script, Life.LASTING) == {"weight", "state"}
    assert living(script, Life.FED) == {"batch0", "batch1", "batch2"}
    assert "weight" in living(script, Life.ONCE)
    assert "activation0" not in living(script, Life.ONCE)


def test_what_grows_with_every_token_is_a_cache() -> None:
    """Two tensors from one line grow by 512 bytes with every token; scores that grow but die at once are none."""
    script = Script()
    for token in range(6):
        for layer in range(2):
            script.alloc(f"keys{layer}-{token}", "forward", 4096 + 512 * token)
            if token:
                script.free(f"keys{layer}-{token - 1}", "forward")
            script.alloc(f"scores{layer}-{token}", "block", 1024 + 512 * token)
            script.free(f"scores{layer}-{token}", "block")
    assert living(script, Life.GROWING) == {name for name in script.rows if name.startswith("keys")}
    found = categories(script)
    assert {found[name] for name in found if name.startswith("keys")} == {"kv_cache"}
    assert {found[name] for name in found if name.startswith("scores")} == {"temporaries"}


def test_a_fixed_workspace_is_known_by_its_size_only_if_it_stays() -> None:
    script = Script()
    script.alloc("workspace", "forward", 8_519_680)
    script.alloc("same size", "block", 8_519_680)
    script.free("same size", "block")
    assert categories(script) == {"workspace": "workspace", "same size": "temporaries"}


def test_the_rule_that_decided_is_named() -> None:
    script = trained()
    attribution = attribute(script.lifetimes())
    rule = attribution.rule_of(script.rows["inner0"])
    assert rule is not None
    assert rule.name == "within backward"
    assert attribution.source[script.rows["inner0"]] == CategorySource.LIFETIME


def test_every_phase_pattern_has_a_reason() -> None:
    assert all(told.reason and (told.pattern.file or told.pattern.function) for told in PHASE_PATTERNS)


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
