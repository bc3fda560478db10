"""What a check found, and what a baseline holds, as text for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from memscope.compare.baseline import Band, Baseline
from memscope.compare.gate import Gate, Unjudged
from memscope.reports.diff.text import rows_table
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_bytes, format_count, format_items
from memscope.words.compare import row_name
from memscope.words.gate import NOTHING_GREW, blame_heading, gate_words, limit_words
from memscope.words.labels import row_label, sentence

_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "yellow")}


def print_gate(gate: Gate | Unjudged, top: int, console: Console) -> None:
    """Print each limit, what weakens the answer, and who holds the excess; or why it could not be judged."""
    console.print(Text(gate.check.name, style="bold"))
    if isinstance(gate, Unjudged):
        console.print(Text(f"  ✗ {gate_words(gate)}", style="bold red"))
        return
    for limit in gate.limits:
        mark, style = _MARKS[limit.is_kept]
        console.print(Text(f"  {mark} {limit_words(gate, limit)}", style=style))
    for text in gate.untrusted:
        console.print(Text(f"  ⚠ {text}", style="yellow"))
    for text in gate.notes:
        console.print(Text(f"  · {text}", style="dim"))
    if gate.blamed_device is not None:
        _print_blame(gate, top, console)


def _print_blame(gate: Gate, top: int, console: Console) -> None:
    console.print()
    console.print(Text(blame_heading(gate), style="bold"))
    if gate.baseline is not None:
        grown = gate.grown
        if not grown:
            console.print(f"  {NOTHING_GREW} (memscope frag says what holds it)")
            return
        rows_table(grown[:top], "owner or line of code", has_sites=True).print(console)
        return
    table = FittedTable(
        Column("size"),
        Column("category", Kind.NAME, place=1),
        Column("owner or line of code", Kind.WORDS),
        Column("line of code", Kind.WORDS, place=2),
    )
    for row in gate.grown[:top]:
        site = row.site if row.site is not None and row.site != row.key else ""
        table.add_row(format_bytes(row.b_bytes), row_label(row.category), row_name(row), site)
    table.print(console)


def print_baseline(baseline: Baseline, console: Console) -> None:
    """Print what a baseline holds."""
    console.print(Text(f"Baseline of {format_items(baseline.n_runs, 'run')}, device {baseline.device}", style="bold"))
    middle = "median" if baseline.n_runs % 2 else "lower median"
    table = FittedTable(
        Column("", Kind.NAME), Column("lowest", place=2), Column(middle), Column("highest"), Column("noise", place=1)
    )
    for name, band in (("peak allocated", baseline.peak_allocated), ("peak reserved", baseline.peak_reserved)):
        table.add_row(name, *_sizes(band))
    table.print(console)
    if baseline.n_runs == 1:
        console.print(Text("  · one run has no noise: give several to have its band", style="dim"))
    facts = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in baseline.facts.items() if value)
    console.print(Text(f"  · {sentence(facts)}", style="dim"))
    if not baseline.n_runs % 2:
        text = "  · the lower median is the lower of the two runs in the middle: the peak of a run, and no mean of two"
        console.print(Text(text, style="dim"))
    rows = format_count(len(baseline.held))
    console.print(Text(f"  · {rows} rows say who holds the {middle}'s peak", style="dim"))


def _sizes(band: Band | None) -> tuple[str, ...]:
    if band is None:
        return ("not measured",) * 4
    return tuple(map(format_bytes, (band.lowest_bytes, band.median_bytes, band.highest_bytes, band.noise_bytes)))
