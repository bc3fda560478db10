"""Answers of queries as tables."""

from __future__ import annotations

import io

from memscope.export.views import VIEWS
from memscope.reports.export.views import print_answer, print_views
from memscope.reports.terminal import Terminal


def printed(rows: list[tuple[object, ...]], columns: tuple[str, ...], limit: int = 10, width: int = 80) -> str:
    out = io.StringIO()
    print_answer(columns, rows, limit, Terminal(file=out, width=width))
    return out.getvalue()


def test_numbers_are_whole_and_nulls_are_dashes() -> None:
    text = printed([(1, "a\nb", None), (123456789012, None, 2.5)], ("n", "text", "x"))
    assert "123456789012" in text
    assert "a b" in text
    assert "–" in text
    assert text.rstrip().endswith("2 rows")


def test_rows_beyond_the_limit_are_counted() -> None:
    assert "5 rows, 3 not shown" in printed([(i,) for i in range(5)], ("n",), limit=2)


def test_an_answer_without_columns_or_rows_is_said() -> None:
    assert printed([], ()).strip() == "0 rows"
    assert "0 rows" in printed([], ("n",))


def test_every_column_of_every_view_is_listed() -> None:
    out = io.StringIO()
    print_views({n: (v.meaning, v.columns) for n, v in VIEWS.items()}, Terminal(file=out, width=100))
    for view in VIEWS.values():
        for column in view.columns:
            assert column in out.getvalue()
