"""How long allocations live, in the terms that rules ask about."""

from __future__ import annotations

from memscope.attribution._life import Life, LifeTable
from memscope.attribution._phases import find_phases
from tests.attribution.scripted import Script, categories, trained


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
