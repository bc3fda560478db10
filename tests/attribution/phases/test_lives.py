"""How allocations live."""

from __future__ import annotations

from memscope.attribution.attribution import attribute
from memscope.attribution.phases.lives import Life, LifeTable
from memscope.attribution.phases.phases import find_phases
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category, CategorySource
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from tests.attribution.scripted import Script, categories, trained

MiB = 1 << 20


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


def state_of(n_blocks: int, *, n_events: int) -> DeviceLifetimes:
    """Blocks made by a function that is named for weights, then a recording of so many short allocations."""
    builder = TraceBuilder()
    made = builder.stacks.stack([builder.stacks.frame("init_weight_list", "/home/me/offload.py", 7)])
    segment = builder.add_segment(address=1 << 40, size_bytes=n_blocks * 2 * MiB, is_large=True)
    for i in range(n_blocks):
        at = (1 << 40) + i * 2 * MiB
        builder.add_block(segment, address=at, size_bytes=2 * MiB, requested_bytes=2 * MiB, state=0, stack_id=made)
    for _ in range(n_events):
        builder.add_event(Action.ALLOC, address=1 << 41, size_bytes=512)
        builder.add_event(Action.FREE_COMPLETED, address=1 << 41, size_bytes=512)
    return DeviceLifetimes(builder.build(TraceMetadata(source="torch-snapshot", has_segment_events=False)), 0)


def test_a_recording_of_next_to_nothing_says_nothing_of_lives() -> None:
    lifetimes = state_of(6, n_events=1)
    lives = LifeTable(lifetimes, find_phases(lifetimes))
    old = lifetimes.allocations.alloc_event < 0
    assert old.sum() == 6
    assert not lives.rows(Life.SETUP)[old].any()
    assert not lives.rows(Life.TO_THE_END)[old].any()
    attribution = attribute(lifetimes)
    assert set(attribution.source[old].tolist()) == {CategorySource.INFERRED}
    assert set(attribution.category[old].tolist()) == {Category.WEIGHTS}
    assert set(attribution.confidence[old].tolist()) == {0.5}
    assert {"too little was recorded" in one.reason for one in attribution.inferences} == {True}


def test_what_outlives_a_recording_is_told_by_its_life() -> None:
    lifetimes = state_of(6, n_events=8)
    old = lifetimes.allocations.alloc_event < 0
    assert set(attribute(lifetimes).source[old].tolist()) == {CategorySource.LIFETIME}
