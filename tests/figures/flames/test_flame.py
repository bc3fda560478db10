"""The flame graph: the calls or the modules that hold a moment's bytes as boxes, no byte lost, and their picture."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from memscope.analysis import Analysis, load
from memscope.attribution.call_tree import ROOT
from memscope.figures.flames import flame as flame_data
from memscope.figures.flames.flame import (
    MAX_LEVELS,
    FlameBoxes,
    FlameKind,
    FlameTree,
    flame_boxes,
    flame_figure,
    flame_finding,
    flame_tree,
    has_names,
    majority,
)
from memscope.figures.theme import DARK, LIGHT
from memscope.trace.categories import Category
from memscope.units import format_bytes
from tests.figures.wide_trace import wide
from tests.oracles import REAL, needs_shared
from tests.training_trace import training_trace

KINDS = [(FlameKind.CALLS, True), (FlameKind.CALLS, False), (FlameKind.MODULES, False)]


def check(tree: FlameTree, boxes: FlameBoxes) -> None:
    """Each box holds exactly its children and, where it is a node, what was made right there."""
    held = np.zeros(len(boxes), np.int64)
    np.add.at(held, boxes.parent[1:], boxes.bytes[1:])
    assert np.array_equal(boxes.by_category.sum(axis=1), boxes.bytes)
    has_children = np.isin(np.arange(len(boxes)), boxes.parent)
    for box in np.flatnonzero(has_children).tolist():
        node = int(boxes.node[box])
        own = 0 if node == ROOT else int(tree.own_bytes[node])
        assert held[box] + own == boxes.bytes[box]


@pytest.mark.parametrize(("kind", "own_only"), KINDS)
def test_the_root_is_the_allocated_bytes_at_every_moment(kind: FlameKind, own_only: bool) -> None:
    analysis = Analysis(training_trace())
    for event in range(-1, analysis.trace.n_events, 7):
        moment = analysis.at(event, 0)
        tree = flame_tree(moment, kind, own_only=own_only)
        assert int(tree.bytes[ROOT]) == moment.allocated_bytes
        assert int(tree.own_bytes.sum()) == moment.allocated_bytes
        check(tree, flame_boxes(tree))


@needs_shared
@pytest.mark.parametrize("name", ["lm-train-torch2.6.pickle.gz", "lm-fwd-bwd-seq150.pickle.gz"])
def test_a_real_trace_is_drawn_to_the_last_byte(name: str) -> None:
    analysis = load(REAL / name)
    moment = analysis.peak()
    for kind, own_only in KINDS:
        tree = flame_tree(moment, kind, own_only=own_only)
        boxes = flame_boxes(tree)
        assert int(boxes.bytes[0]) == moment.allocated_bytes
        assert boxes.n_levels <= MAX_LEVELS
        check(tree, boxes)


def test_categories_leave_only_their_own_blocks() -> None:
    moment = Analysis(training_trace()).peak(0)
    tree = flame_tree(moment, FlameKind.CALLS, categories=[Category.WEIGHTS])
    table = moment.lifetimes.allocations
    weights = moment.rows[moment.device.attribution.category[moment.rows] == Category.WEIGHTS]
    assert int(tree.bytes[ROOT]) == int(table.block_bytes[weights].sum())
    assert "of weights" in flame_finding(moment, tree, [Category.WEIGHTS])


def test_small_neighbours_are_one_box_with_their_number_and_bytes() -> None:
    moment = wide(9)
    tree = flame_tree(moment, FlameKind.CALLS)
    boxes = flame_boxes(tree)
    # allocated, main, its large line, and the nine small ones of 512 bytes as one.
    assert boxes.n_merged.tolist() == [0, 0, 0, 9]
    assert boxes.bytes.tolist() == [(1 << 20) + 9 * 512, (1 << 20) + 9 * 512, 1 << 20, 9 * 512]


def test_a_smaller_part_shows_what_was_merged() -> None:
    tree = flame_tree(wide(9), FlameKind.CALLS)
    small = int(np.flatnonzero(tree.bytes == 512)[0])
    assert flame_boxes(tree, small).bytes.tolist() == [512]
    assert tree.find([tree.keys[1], tree.keys[small]]) == small
    assert tree.find([12345]) is None


def test_too_many_boxes_are_merged_until_few_enough_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flame_data, "MERGED_FRAC", 0.0)
    tree = flame_tree(wide(50), FlameKind.CALLS)
    assert len(flame_boxes(tree)) == 53
    monkeypatch.setattr(flame_data, "MERGED_FRAC", 1e-6)
    boxes = flame_boxes(tree, max_boxes=10)
    assert len(boxes) <= 10
    check(tree, boxes)


def test_a_finding_names_the_line_that_holds_most() -> None:
    moment = wide(9)
    # 1 MiB of 1 MiB and 4.5 KiB.
    text = flame_finding(moment, flame_tree(moment, FlameKind.CALLS, own_only=True))
    assert text.startswith("99.6 % of 1.0 MiB")
    assert text.endswith("comes from run.py:10 (fill)")


def test_without_stacks_or_owners_it_is_said() -> None:
    moment = wide(3, stacks=False)
    calls, modules = flame_tree(moment, FlameKind.CALLS), flame_tree(moment, FlameKind.MODULES)
    assert not has_names(calls)
    assert not has_names(modules)
    assert "no call stacks were recorded" in flame_finding(moment, calls)
    assert "were not recorded" in flame_finding(moment, modules)
    start = moment.device.at(-1)
    assert flame_finding(start, flame_tree(start, FlameKind.CALLS)) == "Nothing is allocated at the start"


def test_a_box_has_a_colour_only_where_one_category_holds_most() -> None:
    by_category = np.zeros(len(Category), np.int64)
    by_category[Category.WEIGHTS], by_category[Category.GRADIENTS] = 5, 5
    assert majority(by_category) is None
    by_category[Category.GRADIENTS] = 6
    assert majority(by_category) is Category.GRADIENTS


OWN_AND_ALL = [(FlameKind.CALLS, True), (FlameKind.CALLS, False), (FlameKind.MODULES, False)]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_names_from_the_trace_stay_text(theme: object) -> None:
    moment = Analysis(training_trace()).peak(0)
    for kind, own_only in OWN_AND_ALL:
        tree = flame_tree(moment, kind, own_only=own_only)
        figure = flame_figure(moment, tree, flame_boxes(tree), theme)  # type: ignore[arg-type]
        assert isinstance(figure, go.Figure)
        icicle = figure.data[0]
        assert icicle.branchvalues == "total"
        assert icicle.values[0] == moment.allocated_bytes
        for text in [*icicle.labels, *icicle.text, *icicle.hovertext]:
            assert "<script" not in text


def test_merged_boxes_say_how_many_they_stand_for_and_lead_nowhere() -> None:
    moment = wide(9)
    tree = flame_tree(moment, FlameKind.CALLS)
    icicle = flame_figure(moment, tree, flame_boxes(tree), LIGHT).data[0]
    assert icicle.labels[-1] == f"9 smaller, {format_bytes(9 * 512)}"
    assert icicle.customdata[-1] is None
