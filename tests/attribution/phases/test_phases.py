"""Phases of a program, found from its stacks."""

from __future__ import annotations

import pytest

from memscope.attribution.phases.phases import PHASE_PATTERNS, Phase, find_phases
from tests.attribution.scripted import SITE, STACKS, Script, categories, trained


def phases(script: Script) -> dict[str, Phase]:
    """The phase that each named allocation was made in."""
    runs = find_phases(script.lifetimes())
    return {name: Phase(int(runs.row_phase[row])) for name, row in script.rows.items()}


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


def test_a_closure_is_the_programs_own_work_within_an_optimizers_step() -> None:
    step = STACKS["step"][1:]
    closure = [("train.<locals>.closure", "/home/me/train.py", 20), *step]
    script = Script(
        {
            "kept": closure,
            "pass": [*STACKS["forward"][:2], *closure],
            "dropped": [STACKS["zero"][0], *closure],
            "state": [("_init_group", f"{SITE}/torch/optim/sgd.py", 3), *step],
        }
    )
    for name in ("pass", "dropped", "kept", "state"):
        script.alloc(name, name)
    assert phases(script) == {
        "pass": Phase.FORWARD,
        "dropped": Phase.OPTIMIZER,
        "kept": Phase.OUTSIDE,
        "state": Phase.OPTIMIZER,
    }


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


def test_every_phase_pattern_has_a_reason() -> None:
    assert all(told.reason and (told.pattern.file or told.pattern.function) for told in PHASE_PATTERNS)
