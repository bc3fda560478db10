"""A difference as text: the sum first, then categories, then rows."""

from __future__ import annotations

import io

from memscope.compare.diff import diff_moments
from memscope.compare.difference import By
from memscope.reports.diff.text import print_diff, rows_table
from memscope.reports.terminal import Terminal
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run

A = [Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1))]
B = [*A, *(Take((i + 1) * 2 * MiB, calls=line(10 + i, f"f{i}")) for i in range(4))]


def printed(top: int = 15, width: int = 120, by: By = By.HOLDER) -> str:
    out = io.StringIO()
    found = diff_moments(run(A, "a.memscope").peak(), run(B, "b.memscope").peak(), by)
    print_diff(found, top, Terminal(file=out, width=width))
    return out.getvalue()


def test_the_text_begins_with_the_difference_and_sums_to_it() -> None:
    text = printed()
    assert text.startswith("b.memscope holds 20.0 MiB more")
    assert "+20,971,520" in text
    assert text.index("weights") < text.index("What changed: 4 new (+20.0 MiB); 1 the same")
    assert text.index("train.py:13 f3") < text.index("train.py:12 f2")


def test_rows_that_are_not_shown_are_counted() -> None:
    assert "2 more rows, +6.0 MiB together" in printed(top=2)


def test_by_category_there_is_one_table() -> None:
    assert "What changed" not in printed(by=By.CATEGORY)


def test_a_row_that_is_no_line_of_code_has_its_own() -> None:
    found = diff_moments(run(A).at(-1), run(A).peak())
    out = io.StringIO()
    rows_table(found.rows[:1], "owner", has_sites=True).print(Terminal(file=out, width=120))
    assert "fc.weight" in out.getvalue()
    assert "train.py:1 forward" in out.getvalue()
