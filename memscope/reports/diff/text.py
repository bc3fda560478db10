"""A difference as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from memscope.compare.difference import By, Difference, Row
from memscope.device.device import Moment
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_bytes, format_items
from memscope.words.compare import (
    changes_words,
    differing_facts,
    headline,
    matched_words,
    owners_hint,
    place_hint,
    place_words,
    row_name,
    signed_bytes,
    trace_names,
)
from memscope.words.labels import NOT_MEASURED, row_label, sentence

_HEADINGS = {
    By.HOLDER: "owner or line of code",
    By.OWNER: "owner or line of code",
    By.SITE: "line of code",
    By.MODULE: "module",
    By.CATEGORY: "category",
}


def print_diff(difference: Difference, top: int, console: Console) -> None:
    """Print what the second moment holds beyond the first: the sum, by category, then row by row."""
    console.print(Text(sentence(headline(difference)), style="bold"))
    for label, moment, name in zip("AB", (difference.a, difference.b), trace_names(difference), strict=True):
        console.print(f"  {label}  {name}, {place_words(moment)}: {_use_words(moment)}")
        for warning in (
            () if difference.is_one_trace and label == "B" else moment.device.recording.completeness.warnings
        ):
            console.print(Text(f"     ⚠ {warning}", style="yellow"))
    for hint in (place_hint(difference), owners_hint(difference)):
        if hint:
            console.print(Text(f"  ·  {hint}", style="dim"))
    for name, one, two in differing_facts(difference):
        console.print(f"  ≠  {name}: {one} → {two}")
    console.print()
    _categories(difference).print(console)
    if difference.by is not By.CATEGORY:
        _print_rows(difference, top, console)
    console.print(Text(f"  {matched_words(difference)}", style="dim"))


def _use_words(moment: Moment) -> str:
    reserved, highest = moment.reserved_bytes, moment.device.peak_reserved().reserved_bytes
    if reserved is None or highest is None:
        return f"{format_bytes(moment.allocated_bytes)} allocated, reserved {NOT_MEASURED}"
    return (
        f"{format_bytes(moment.allocated_bytes)} allocated, {format_bytes(reserved)} reserved "
        f"({format_bytes(highest)} at most)"
    )


def _categories(difference: Difference) -> FittedTable:
    table = FittedTable(
        Column("category", Kind.NAME),
        Column("A", place=2),
        Column("B", place=1),
        Column("difference"),
        Column("bytes", place=3),
    )
    for row in difference.categories:
        table.add_row(row_label(row.key), *_sizes(row), style="" if row.delta_bytes else "dim")
    a, b = difference.a.allocated_bytes, difference.b.allocated_bytes
    delta = difference.delta_bytes
    table.add_row("allocated", format_bytes(a), format_bytes(b), signed_bytes(delta), f"{delta:+,}", style="bold")
    return table


def _sizes(row: Row) -> tuple[str, str, str, str]:
    return format_bytes(row.a_bytes), format_bytes(row.b_bytes), signed_bytes(row.delta_bytes), f"{row.delta_bytes:+,}"


def _print_rows(difference: Difference, top: int, console: Console) -> None:
    console.print()
    console.print(Text(f"What changed: {changes_words(difference)}", style="bold"))
    changed = [row for row in difference.rows if row.delta_bytes and not row.is_rounding]
    if not changed:
        return
    rows_table(changed[:top], _HEADINGS[difference.by], has_sites=difference.by is not By.SITE).print(console)
    rest = changed[top:]
    if rest:
        more = signed_bytes(sum(row.delta_bytes for row in rest))
        console.print(Text(f"  {format_items(len(rest), 'more row')}, {more} together (--top shows more)", style="dim"))


def rows_table(rows: Sequence[Row], heading: str, *, has_sites: bool) -> FittedTable:
    """Rows of a difference as a table; those whose names are not lines of code have theirs in a column of its own."""
    table = FittedTable(
        Column("difference"),
        Column("", Kind.NAME, place=1, called="what became of it"),
        Column("A", place=3),
        Column("B", place=2),
        Column("category", Kind.NAME, place=4),
        Column(heading, Kind.WORDS),
        Column("line of code", Kind.WORDS, place=5),
    )
    for row in rows:
        site = row.site if has_sites and row.site is not None and row.site != row.key else ""
        a, b = format_bytes(row.a_bytes), format_bytes(row.b_bytes)
        table.add_row(
            signed_bytes(row.delta_bytes), row.change.value, a, b, row_label(row.category), row_name(row), site
        )
    return table
