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
    assert r"a\nb" in text
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


def test_ids_are_left_out_before_what_says_something() -> None:
    columns = ("alloc_event", "address", "block_bytes", "site", "category", "owner")
    text = printed([(1234, "0x7f0000000000", 4096, "train.py:7 forward", "weights", "fc.weight")], columns, width=60)
    assert "weights" in text
    assert "fc.weight" in text
    assert "train.py:7" in text
    assert "0x7f" not in text
    assert "address" in text.split("not shown in 60 columns: ")[1]
    assert "0x7f" in printed([(1, "0x7f")], ("n", "address"), width=60)
