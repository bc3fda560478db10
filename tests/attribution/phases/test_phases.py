"""Phases of a program, found from its stacks."""

from __future__ import annotations

import pytest

from memscope.attribution.phases.lives import Life, LifeTable
from memscope.attribution.phases.phases import PHASE_PATTERNS, Phase, find_phases
from tests.attribution.scripted import Script, categories, trained


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


def living(script: Script, life: Life) -> set[str]:
    """The names of the allocations that live so."""
    lifetimes = script.lifetimes()
    rows = LifeTable(lifetimes, find_phases(lifetimes)).rows(life)
    return {name for name, row in script.rows.items() if rows[row]}


def test_lives() -> None:
    script = trained()
    assert {"scratch0", "inner1", "update2"} <= living(script, Life.SHORT)
    assert not {"activation0", "gradient0", "state"} & living(script, Life.SHORT)
    assert living(script, Life.SAVED) == {"activation0", "activation1", "activation2"}
    assert living(script, Life.KEPT) == {"weight", "state"}
    assert living(script, Life.TO_THE_END) == {"weight", "state", "loss2", "batch2"}
    assert living(script, Life.SETUP) == {"weight", "batch0"}
    assert living(script, Life.LASTING) == {"weight", "state"}
    assert living(script, Life.FED) == {"batch0", "batch1", "batch2"}
    assert "weight" in living(script, Life.ONCE)
    assert "activation0" not in living(script, Life.ONCE)


def test_a_sum_over_many_passes_is_not_fed_to_them() -> None:
    """Made once before the first of twelve passes and dropped after the last; batches come and go."""
    script = Script({"sum": [("evaluate", "/home/me/train.py", 7)]})
    script.alloc("sum", "sum")
    for k in range(12):
        script.alloc(f"batch{k}", "batch")
        script.alloc(f"inner{k}", "forward")
        script.free(f"inner{k}", "forward")
        script.free(f"batch{k}", "user")
    script.free("sum", "user")
    assert living(script, Life.FED) == {f"batch{k}" for k in range(12)}
    assert categories(script)["sum"] == "unknown"


def test_what_is_kept_after_every_pass_is_not_fed_to_the_next() -> None:
    """One line makes between the passes what stays for good; another makes batches, of which the last stays."""
    script = Script({"kept": [("train", "/home/me/train.py", 7)]})
    for k in range(8):
        script.alloc(f"batch{k}", "batch")
        script.alloc(f"inner{k}", "forward")
        script.free(f"inner{k}", "forward")
        script.alloc(f"kept{k}", "kept")
        if k < 7:
            script.free(f"batch{k}", "user")
    assert living(script, Life.FED) == {f"batch{k}" for k in range(8)}
    assert categories(script)["kept0"] == "unknown"


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
