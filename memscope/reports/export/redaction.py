"""What became of the names of a trace that was redacted, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_count, format_items


class RedactionReport(NamedTuple):
    """What is said of a redaction: the trace's name, distinct names by kind, and what has changed beside them."""

    trace: str
    replaced: Mapping[str, int]
    kept: Mapping[str, Sequence[str]]
    left_out: Sequence[str]
    n_categories_changed: int


def redaction_json(report: RedactionReport) -> dict[str, Any]:
    """The object of ``memscope redact --json``."""
    return {
        "trace": report.trace,
        "replaced": dict(report.replaced),
        "kept": {kind: list(names) for kind, names in report.kept.items()},
        "left_out": list(report.left_out),
        "n_categories_changed": report.n_categories_changed,
    }


def print_redaction(report: RedactionReport, console: Console, *, lists_kept: bool) -> None:
    """Print how many names were replaced and kept, and which if asked for; what was left out; what has changed."""
    console.print(Text(f"{report.trace}, redacted", style="bold"))
    table = FittedTable(Column("names", Kind.NAME), Column("replaced"), Column("kept"))
    for kind in sorted({*report.replaced, *report.kept}):
        table.add_row(kind, format_count(report.replaced.get(kind, 0)), format_count(len(report.kept.get(kind, ()))))
    table.print(console)
    for text in report.left_out:
        console.print(f"  · left out: {text}")
    if report.n_categories_changed:
        words = format_items(report.n_categories_changed, "allocation")
        text = f"  ⚠ {words} of another category: only a name that is now a pseudonym told theirs"
        console.print(Text(text, style="yellow"))
    else:
        console.print("  · every allocation has the category that it had")
    if not lists_kept:
        console.print(Text("  · kept names are public ones; memscope redact --kept lists them", style="dim"))
        return
    for kind, names in report.kept.items():
        console.print()
        console.print(Text(f"{kind}, kept", style="bold"))
        for name in names:
            console.print(f"  {name}")
