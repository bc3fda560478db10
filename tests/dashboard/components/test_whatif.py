"""Parts of the what-if view: the library's numbers, in cards, a table and a plan."""

from __future__ import annotations

from typing import Any

import pytest
from dash.development.base_component import Component
from memscope_dashboard.components.whatif import (
    cards,
    others,
    plan_panel,
    proof_mark,
    proofs_words,
    recipe,
    results_table,
    saved,
    saves_something,
    tiles,
)
from memscope_dashboard.whatif_board import Applied, AppliedOne

from memscope.analysis import load
from memscope.figures.whatif import reduced_course
from memscope.gpus import GpuModel
from memscope.techniques.course import applied_together, course_before
from memscope.techniques.fit import fit_plan
from memscope.techniques.registry import technique_named
from memscope.techniques.whatif import Start, WhatIfs, what_if_all
from memscope.units import MiB, format_bytes
from tests.dashboard.conftest import TRACES
from tests.dashboard.pages import FITTING, text_of

SMALL = GpuModel("small", "A small card", 560 * MiB, (8, 0), 80)
"""So small that the training does not fit."""


@pytest.fixture(scope="module")
def start() -> Start:
    return Start.of(load(TRACES / FITTING).device(0))


@pytest.fixture(scope="module")
def every(start: Start) -> WhatIfs:
    return what_if_all(start.device)


def parts_of(components: list[Component], kind: str) -> list[Any]:
    return [part for one in components for part in one._traverse() if type(part).__name__ == kind]


def test_a_card_for_each_that_takes_memory_off_and_a_reason_for_each_that_does_not(every: WhatIfs) -> None:
    saving = [result.technique for result in every.results if saves_something(result)]
    found = cards(every, {saving[1]})
    buttons = parts_of(found, "Button")
    assert [button.id["name"] for button in buttons] == saving
    assert [getattr(button, "aria-pressed") for button in buttons].index("true") == 1
    words = text_of(found[0])
    assert saving[0] in words
    assert f"{format_bytes(every.results[0].saved_bytes)}less reserved" in words
    rest = text_of(others(every))
    for result in every.results:
        assert (result.technique in rest) is not (result.technique in saving)
    assert all(name in rest for name, _ in every.not_applicable)


def test_one_that_takes_more_says_so(every: WhatIfs) -> None:
    (card,) = [one for one in cards(every, ()) if "zero:2" in text_of(one)]
    assert "10.0 MiBmore reserved" in text_of(card)
    assert "10.8 MiB less allocated" in text_of(card)
    assert "8.0 MiB more reserved at the peak" not in text_of(card)


def test_the_table_has_every_technique_with_its_bytes(every: WhatIfs) -> None:
    table = results_table(every.results, every.baseline)
    words = text_of(table)
    for result in every.results:
        assert result.technique in words
    titles = [getattr(part, "title", None) for part in table._traverse()]
    assert f"{every.results[0].saved_bytes:,} bytes" in titles
    assert f"{every.baseline.reserved_bytes:,} bytes" in titles


def test_what_is_applied_has_its_peaks_and_what_to_write(start: Start) -> None:
    names = ["micro-batch:2", "optimizer:adafactor"]
    changes = start.apply([technique_named(name) for name in names])
    together = applied_together(start, " + ".join(names), changes)
    listed = tuple(AppliedOne(each.name, change.how, change.cost, change.note) for each, change in changes)
    applied = Applied(together.result, listed, reduced_course(course_before(start)), reduced_course(together.course))
    words = text_of(tiles(applied))
    before, after = start.baseline.reserved_bytes, together.result.peaks.reserved_bytes
    assert format_bytes(before - after) in words
    assert "unproved" in words
    written = text_of(recipe(applied))
    assert "torch.optim.Adafactor" in written
    assert "batch.chunk(2)" in written
    assert "What reductions of large matrices take" in written
    copies = parts_of(recipe(applied), "CopyButton")
    assert {copy.value for copy in copies} == {change.how for _, change in changes}


def test_a_plan_is_a_list_to_follow(start: Start) -> None:
    plan = fit_plan(start.device, SMALL)
    panel = plan_panel(plan, is_applied=False)
    words = text_of(panel)
    assert plan.steps
    assert all(step.technique in words for step in plan.steps)
    (button,) = parts_of(panel, "Button")
    assert button.id["name"].split() == list(plan.techniques)
    assert not button.disabled
    assert parts_of(plan_panel(plan, is_applied=True), "Button")[0].disabled


def test_proofs_are_explained(every: WhatIfs) -> None:
    assert "checked against truly changed programs" in proofs_words(every)
    assert proof_mark("closed-form").title == "counted by formula"
    assert text_of(saved(-MiB)) == "−1.0 MiB"
