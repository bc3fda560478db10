"""Answers of queries, and the views that can be asked, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from memscope.names import shown
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_items

_NULL = "–"
_MAX_CELL = 1000
"""Characters of a text that a cell has; ``--json`` has all."""
_IDS = frozenset(
    (
        *("alloc_event", "free_requested_event", "free_event", "address", "block_is_exact", "stream", "pool"),
        *("stack_id", "frame_id", "source", "tag", "time_ns"),
    )
)
"""Columns of the views that say little by themselves."""


def _places(columns: Sequence[str]) -> list[int]:
    """How soon each column is left out: the ids last in line, each in its order."""
    order = sorted(range(len(columns)), key=lambda i: (columns[i] in _IDS, i))
    return [order.index(i) for i in range(len(columns))]


def print_answer(columns: Sequence[str], rows: Sequence[Sequence[object]], limit: int, console: Console) -> None:
    """Print rows as a table, numbers as they are.

    Where the width does not do, ids and addresses are left out first, then the last of the other columns.
    """
    first = rows[:limit]
    kinds = [
        Kind.NUMBER if all(isinstance(row[i], int | float) or row[i] is None for row in first) else Kind.WORDS
        for i in range(len(columns))
    ]
    if columns:
        table = FittedTable(
            *(
                Column(name, kind, place=place)
                for name, kind, place in zip(columns, kinds, _places(columns), strict=True)
            )
        )
        for row in first:
            table.add_row(*(_cell(value) for value in row))
        table.print(console)
    more = len(rows) - len(first)
    count = format_items(len(rows), "row")
    console.print(Text(f"  {count}" + (f", {more:,} not shown (--limit shows more)" if more else ""), style="dim"))


def _cell(value: object) -> str:
    return _NULL if value is None else shown(str(value), _MAX_CELL)


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
