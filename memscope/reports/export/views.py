"""Answers of queries, and the views that can be asked, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_items

_NULL = "–"


def print_answer(columns: Sequence[str], rows: Sequence[Sequence[object]], limit: int, console: Console) -> None:
    """Print rows as a table, numbers as they are; where the width does not do, the last columns are left out."""
    shown = rows[:limit]
    kinds = [
        Kind.NUMBER if all(isinstance(row[i], int | float) or row[i] is None for row in shown) else Kind.WORDS
        for i in range(len(columns))
    ]
    if columns:
        table = FittedTable(
            *(Column(name, kind, place=i) for i, (name, kind) in enumerate(zip(columns, kinds, strict=True)))
        )
        for row in shown:
            table.add_row(*(_NULL if value is None else str(value) for value in row))
        table.print(console)
    more = len(rows) - len(shown)
    count = format_items(len(rows), "row")
    console.print(Text(f"  {count}" + (f", {more:,} not shown (--limit shows more)" if more else ""), style="dim"))


def print_views(views: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]], console: Console) -> None:
    """Print each view: what a row is, and its columns with their types and meanings."""
    for i, (name, (meaning, columns)) in enumerate(views.items()):
        if i:
            console.print()
        console.print(Text(f"{name}: {meaning}", style="bold"))
        table = FittedTable(Column("", Kind.NAME), Column("", Kind.NAME), Column("", Kind.WORDS), has_header=False)
        for column, (kind, words) in columns.items():
            table.add_row(column, kind, words)
        table.print(console)
