"""Parts of the comparison: numbers to the byte, tables that sum, stacks from the user's own line."""

from __future__ import annotations

from pathlib import Path

import pytest
from dash.development.base_component import Component
from memscope_dashboard.components.compare import (
    MAX_ROWS,
    boxes_table,
    changed_rows,
    facts_table,
    grid_rows,
    growth_legend,
    moment_link,
    moments_note,
    row_columns,
    row_panel,
    rows_note,
    signed,
    steps_table,
    tiles,
)

from memscope.analysis import load
from memscope.compare.diff import diff_moments
from memscope.compare.difference import Difference
from memscope.compare.trees import difference_tree
from memscope.figures.compare import waterfall_steps
from memscope.figures.flames.difference import Growth, difference_boxes
from memscope.figures.theme import DARK
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run
from tests.dashboard.pages import text_of

TRACES = Path(__file__).resolve().parents[3] / "traces"


@pytest.fixture(scope="module")
def difference() -> Difference:
    a = run([Take(2 * MiB, Category.WEIGHTS, "w", line(1)), Take(8 * MiB, Category.INPUTS, "x", line(2))], "a.memscope")
    b = run(
        [
            Take(2 * MiB, Category.WEIGHTS, "w", line(1)),
            Take(4 * MiB, Category.INPUTS, "x", line(2)),
            Take(16 * MiB, Category.ACTIVATIONS, "y", line(3)),
        ],
        "b.memscope",
        torch_version="2.9.0",
    )
    return diff_moments(a.end(), b.end())


def test_tiles_have_the_sums(difference: Difference) -> None:
    words = [text_of(one) for one in tiles(difference)]
    assert words[0] == "Allocated+12.0 MiB10.0 MiB → 22.0 MiB"
    assert words[1] == "Reserved then+12.0 MiB10.0 MiB → 22.0 MiB"
    assert words[3] == "Owners and lines1 new, 1 shrunk1 the same"
    assert text_of(signed(None)) == "not measured"
    assert signed(-5).title == "-5 bytes"


def test_the_note_says_where_both_moments_lie(difference: Difference) -> None:
    a, b = moments_note(difference)[:2]
    assert text_of(a).startswith("A a.memscope, event")
    assert text_of(b).startswith("B b.memscope, event")
    assert moment_link("b.memscope", difference.b, "see it").href.startswith("/canvas?trace=b.memscope&device=0&event=")


def test_the_table_of_steps_ends_with_the_sums(difference: Difference) -> None:
    steps = waterfall_steps(difference, difference.rows)
    rows = steps_table((10 * MiB, 22 * MiB), steps).children[1].children
    deltas = [int(text_of(row.children[4]).replace(",", "")) for row in rows]
    assert sum(deltas[:-1]) == deltas[-1] == 12 * MiB


def test_rows_are_those_of_the_difference_by_what_became_of_them(difference: Difference) -> None:
    assert [row["name"] for row in grid_rows(changed_rows(difference, "all"))] == ["y", "x"]
    assert [row["change"] for row in grid_rows(changed_rows(difference, "new"))] == ["new"]
    assert grid_rows(changed_rows(difference, "gone")) == []
    (row,) = grid_rows(changed_rows(difference, "shrunk"))
    assert (row["delta"], row["delta_exact"], row["count"]) == (-4 * MiB, "-4,194,304 bytes", "1 → 1")
    assert difference.rows[int(row["row"])].key == "x"
    assert grid_rows(changed_rows(difference, "all") * MAX_ROWS)[-1] is not None
    assert len(grid_rows(changed_rows(difference, "all") * MAX_ROWS)) == MAX_ROWS
    assert "The 400 largest of 2,000." in rows_note(difference, 400, 2000)
    assert row_columns("module")[5]["headerName"] == "module"


def test_a_row_shows_one_stack_where_both_moments_have_the_same(difference: Difference) -> None:
    rows = {row.key: row for row in difference.rows}
    words = text_of(row_panel(difference, rows["x"]))
    assert words.count("Stack of most of it") == 1
    assert "at both moments" in words
    assert "-4.0 MiB (-4,194,304 bytes): shrunk" in words
    assert "train.py:2" in words
    new = text_of(row_panel(difference, rows["y"]))
    assert "Stack of most of it in B" in new
    assert "in A" not in new
    assert "No stack was recorded" in text_of(row_panel(difference, difference.rows[-1]))


def test_what_lies_inside_the_users_own_line_is_folded_up() -> None:
    moment = load(TRACES / "tiny-llama-train.memscope").peak()
    found = diff_moments(moment.device.at(100), moment)
    row = next(row for row in found.rows if row.delta_bytes and "backward" in row.key)
    panel = row_panel(found, row)
    folded = [part for part in panel[1]._traverse() if type(part).__name__ == "Details"]
    own = [part for part in panel[1]._traverse() if getattr(part, "className", "") == "frame own"]
    assert len(own) == 1
    assert all(text_of(own[0]) not in text_of(one) for one in folded)


def test_the_legend_has_what_is_drawn_and_the_table_leads_to_boxes(difference: Difference) -> None:
    legend = text_of(growth_legend(DARK, {Growth.NEW, Growth.GONE, Growth.GROWN}))
    assert legend == "newgrown > 10 %gone, as wide as in A"
    moments = difference.a, difference.b
    tree = difference_tree(*moments, is_by_module=False)
    boxes = difference_boxes(tree)
    found = boxes_table(moments, tree, boxes)
    buttons = [part for part in found._traverse() if isinstance(part, Component) and type(part).__name__ == "Button"]
    assert sorted(button.id["node"] for button in buttons) == sorted(boxes.node.tolist())
    assert "+12.0 MiB" in text_of(found)


def test_what_else_differs_is_a_table(difference: Difference) -> None:
    assert "torchnot recorded2.9.0" in text_of(facts_table(difference))
    assert facts_table(diff_moments(difference.a, difference.b.device.at(1))) != []
    assert facts_table(diff_moments(difference.a, difference.a)) == []
