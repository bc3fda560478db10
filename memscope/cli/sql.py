"""``memscope sql``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from memscope.cli.options import console, json_option, load_trace, print_json, rules_option, trace_argument
from memscope.errors import UsageError


@click.command()
@trace_argument
@click.argument("query", required=False)
@click.option("--views", is_flag=True, help="List the views and their columns in place of a query.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Rows to show as text.")
@rules_option
@json_option
def sql(trace: Path, query: str | None, views: bool, limit: int, rules: Path | None, as_json: bool) -> None:
    """Ask a trace in SQL (DuckDB's dialect): "select category, sum(block_bytes) from allocations group by all".

    The views are events, allocations, stacks, frames, usage, segments, owners and steps. A query sees them and nothing
    else: it can open no file.
    """
    from memscope.export.sql import ask

    if views == (query is not None):
        raise UsageError('give a query, such as "select * from steps", or --views')
    if views or query is None:
        _print_views(as_json)
        return
    answer = ask(load_trace(trace, rules), query)
    if as_json:
        rows = [[_plain(value) for value in row] for row in answer.rows]
        print_json({"columns": list(answer.columns), "rows": rows, "n_rows": len(rows)})
        return
    from memscope.reports.export.views import print_answer

    print_answer(answer.columns, answer.rows, limit, console())


def _print_views(as_json: bool) -> None:
    from memscope.export.views import VIEWS

    if as_json:
        listed = [
            {
                "name": name,
                "meaning": view.meaning,
                "columns": [{"name": c, "type": kind, "meaning": words} for c, (kind, words) in view.columns.items()],
            }
            for name, view in VIEWS.items()
        ]
        print_json({"views": listed})
        return
    from memscope.reports.export.views import print_views

    tables = {name: (view.meaning, view.columns) for name, view in VIEWS.items()}
    print_views(tables, console())


def _plain(value: Any) -> Any:
    """A value as JSON has it: what is no number, text or truth value becomes its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return str(value)
