"""Allocations of a moment, grouped by tag, rule and step."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.trace.categories import Category
from tests.attribution.scripted import Script, owned, training_step
from tests.rank_traces import Alloc, rank_trace


def test_groupings_by_tag_and_rule_sum_to_what_is_in_use() -> None:
    moment = owned().end()
    assert moment.by("tag")["requested_bytes"].to_dict() == {"not tagged": 1957, "my index": 9}
    assert moment.by("rule")["requested_bytes"].to_dict() == {"owner recorded": 1950, "no rule fits": 16}


def test_the_same_module_of_every_layer_is_one_kind() -> None:
    script = Script()
    for layer in range(3):
        for name in ("A", "B"):
            event = script.alloc(f"{layer}{name}", "user", 1000)
            script.builder.set_owner(event, Category.ACTIVATIONS, f"model.layers.{layer}.mlp.{name}")
    end = Analysis(script.trace()).end()
    assert end.by("kind")["requested_bytes"].to_dict() == {"model.layers.*.mlp.A": 3000, "model.layers.*.mlp.B": 3000}


def test_grouping_by_step_names_the_step_that_made_it() -> None:
    script = Script()
    script.alloc("weight", "constructor", 5000)
    for k in range(2):
        training_step(script, k, first=k == 0)
    script.alloc("after", "batch")
    end = Analysis(script.trace()).end()
    assert end.by("step")["requested_bytes"].to_dict() == {"step 0": 5000 + 512, "outside the steps": 512}


def test_grouping_by_step_is_refused_where_steps_cannot_be_told() -> None:
    script = Script()
    script.alloc("a", "user")
    with pytest.raises(UsageError, match=r"the steps of the trace cannot be told: it has no marks"):
        Analysis(script.trace()).end().by("step")


def test_groups_of_one_size_stand_in_the_order_that_people_count() -> None:
    analysis = Analysis(
        rank_trace([Alloc(f"a{i}", 10, Category.WEIGHTS, f"layers.{i}.weight") for i in (10, 1, 11, 2)])
    )
    assert [group.label for group in analysis.peak().grouped("module")] == [f"layers.{i}" for i in (1, 2, 10, 11)]
