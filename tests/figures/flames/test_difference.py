"""The flame graph of a difference: as wide as B with what is gone, colours by growth, numbers to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import load
from memscope.attribution.call_tree import ROOT
from memscope.compare.trees import DifferenceTree, difference_tree
from memscope.device.device import Moment
from memscope.figures.flames.difference import (
    COLORS,
    DifferenceBoxes,
    Growth,
    box_growth,
    box_labels,
    difference_boxes,
    difference_flame_figure,
    growth_of,
    growth_words,
    ink_on,
    node_label,
    place_of,
)
from memscope.figures.theme import DARK, LIGHT, Theme
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, run

SHIPPED = Path(__file__).parents[3] / "traces"
MAIN, FORWARD, OLD = ("main", "/me/app/train.py", 9), ("forward", "/me/app/model.py", 20), ("old", "/me/app/x.py", 3)


def take(mib: int, *calls: tuple[str, str, int], owner: str = "") -> Take:
    return Take(mib * MiB, Category.ACTIVATIONS, owner, calls[::-1])


@pytest.fixture(scope="module")
def moments() -> tuple[Moment, Moment]:
    a = run([take(4, MAIN, FORWARD), take(2, MAIN, OLD), take(1, MAIN)], "a.memscope")
    b = run([take(10, MAIN, FORWARD), take(1, MAIN), take(3, ("new", "/me/app/x.py", 5))], "b.memscope")
    return a.end(), b.end()


@pytest.fixture(scope="module")
def tree(moments: tuple[Moment, Moment]) -> DifferenceTree:
    return difference_tree(*moments, is_by_module=False)


def check(tree: DifferenceTree, boxes: DifferenceBoxes) -> None:
    for column in (boxes.width_bytes, boxes.a_bytes, boxes.b_bytes):
        below = np.zeros(len(boxes), np.int64)
        np.add.at(below, boxes.parent[1:], column[1:])
        assert (below <= column).all()
    nodes = boxes.node[boxes.node >= 0]
    assert len(set(nodes.tolist())) == len(nodes)
    assert (boxes.n_merged[boxes.node >= 0] == 0).all()
    assert (boxes.n_merged[boxes.node < 0] > 0).all()


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_boxes_are_as_wide_as_b_and_what_is_gone_is_hatched(
    moments: tuple[Moment, Moment], tree: DifferenceTree, theme: Theme
) -> None:
    boxes = difference_boxes(tree)
    check(tree, boxes)
    (icicle,) = difference_flame_figure(*moments, tree, boxes, theme).data
    drawn = {
        name.split(" ")[0]: (value // MiB, color, pattern)
        for name, value, color, pattern in zip(
            box_labels(*moments, tree, boxes),
            icicle.values,
            icicle.marker.colors,
            icicle.marker.pattern.shape,
            strict=True,
        )
    }
    colors = COLORS[theme.name]
    assert drawn == {
        "allocated": (16, colors[Growth.MUCH_GROWN], ""),
        "main": (13, colors[Growth.MUCH_GROWN], ""),
        "new": (3, colors[Growth.NEW], ""),
        "forward": (10, colors[Growth.MUCH_GROWN], ""),
        "old": (2, colors[Growth.GONE], "/"),
    }


def test_a_box_says_its_numbers_and_leads_to_its_node(moments: tuple[Moment, Moment], tree: DifferenceTree) -> None:
    boxes = difference_boxes(tree)
    (icicle,) = difference_flame_figure(*moments, tree, boxes, LIGHT).data
    texts = dict(zip(icicle.customdata, icicle.hovertext, strict=True))
    forward = next(n for n in range(len(tree)) if node_label(*moments, tree, n).startswith("forward"))
    assert "+6.0 MiB (+6,291,456 bytes, +150.0 %)" in texts[forward]
    assert "A 4.0 MiB → B 10.0 MiB: grown by more than half" in texts[forward]
    assert "/me/app/model.py:20" in texts[forward]
    assert "1 → 1 allocations" in texts[forward]
    assert growth_words(*moments, tree) == "forward (model.py:20), +6.0 MiB"
    inside = difference_boxes(tree, forward)
    assert (inside.node.tolist(), inside.n_levels) == ([forward], 1)


def test_the_place_of_a_call_that_moved_is_both(tree: DifferenceTree) -> None:
    a, b = run([take(1, MAIN)]).end(), run([take(1, ("main", "/me/app/train.py", 12))]).end()
    moved = difference_tree(a, b, is_by_module=False)
    assert place_of(a, b, moved, 1) == "/me/app/train.py:9 → /me/app/train.py:12"
    assert node_label(a, b, moved, 1) == "main (train.py:12)"
    assert place_of(a, b, moved, ROOT) == ""


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (10, 10, Growth.SAME),
        (10, 11, Growth.SLIGHTLY_GROWN),
        (10, 15, Growth.GROWN),
        (10, 16, Growth.MUCH_GROWN),
        (10, 9, Growth.SLIGHTLY_SHRUNK),
        (10, 5, Growth.SHRUNK),
        (10, 4, Growth.MUCH_SHRUNK),
    ],
)
def test_the_colour_follows_the_share_of_what_it_was(a: int, b: int, kind: Growth) -> None:
    assert growth_of(a, b) is kind


def test_new_and_gone_are_what_only_one_moment_has(tree: DifferenceTree) -> None:
    boxes = difference_boxes(tree)
    kinds = {box_growth(tree, boxes, box) for box in range(len(boxes))}
    assert {Growth.NEW, Growth.GONE} <= kinds
    assert growth_of(0, 4, is_new=True) is Growth.NEW
    assert growth_of(4, 0, is_gone=True) is Growth.GONE


def test_text_reads_on_every_colour() -> None:
    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for theme in (LIGHT, DARK):
        for kind, color in COLORS[theme.name].items():
            low, high = sorted((luminance(color), luminance(ink_on(kind, theme))))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (theme.name, kind)


@pytest.mark.parametrize("is_by_module", [False, True])
@pytest.mark.parametrize("most", [1, 5, 40, 700])
def test_few_boxes_hold_all_bytes(is_by_module: bool, most: int) -> None:
    a, b = (load(SHIPPED / f"{name}.memscope").peak() for name in ("tiny-gpt2-generate", "tiny-llama-train"))
    tree = difference_tree(a, b, is_by_module=is_by_module)
    boxes = difference_boxes(tree, max_boxes=most)
    check(tree, boxes)
    assert (boxes.a_bytes[0], boxes.b_bytes[0]) == (a.allocated_bytes, b.allocated_bytes)
    assert len(boxes) <= max(most, 3)


def test_a_difference_that_nobody_has_most_of_says_so() -> None:
    a = run([take(1, MAIN)]).end()
    b = run([take(1, MAIN), take(2, ("f", "/x.py", 1)), take(2, ("g", "/y.py", 1))]).end()
    assert growth_words(a, b, difference_tree(a, b, is_by_module=False)) == "no single call has most of it"
    assert growth_words(a, a, difference_tree(a, a, is_by_module=False)) == "as much in both, of what follows"
