"""What techniques would have made of a recorded program, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from memscope.device.recording import RecordedTrace
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.techniques.fit import FitPlan
from memscope.techniques.technique import Technique
from memscope.techniques.whatif import WhatIf, WhatIfs
from memscope.units import format_bytes
from memscope.words.replay import signed_bytes
from memscope.words.techniques import (
    PROOF_WORDS,
    as_it_is_words,
    cost_words,
    costs_words,
    fit_words,
    refused_words,
)

_N_FEW = 4
"""Of so many techniques what to write is said only of those that save something."""


def print_what_ifs(recording: RecordedTrace, found: WhatIfs, console: Console) -> None:
    """Print the baseline, a row for each technique, how to do it, and what does not apply."""
    peaks = found.baseline
    console.print(
        Text(
            f"{recording.name}, device {found.device}: {format_bytes(peaks.allocated_bytes)} allocated and "
            f"{format_bytes(peaks.reserved_bytes)} reserved at the peaks, {as_it_is_words(found)}",
            style="bold",
        )
    )
    table = FittedTable(
        Column("technique", Kind.SETTING),
        Column("saves", place=0),
        Column("reserved", place=0, called="peak reserved"),
        Column("allocated", place=2, called="peak allocated"),
        Column("costs", Kind.WORDS, place=3),
        Column("proof", Kind.NAME, place=1),
    )
    rows = [*found.results, *(() if found.together is None else (found.together,))]
    for result in rows:
        table.add_row(*_cells(result), style="bold" if result is found.together else None)
    table.print(console)
    says_costs = table.leaves_out("costs", console.width)
    for result in found.results:
        _print_below(result, console, says_how=len(rows) < _N_FEW or result.saved_bytes > 0, says_costs=says_costs)
    for words in refused_words(found.not_applicable):
        console.print(Text(f"  ○ {words}", style="dim"))
    for words in found.warnings:
        console.print(Text(f"  ! {words}", style="yellow"))
    console.print(Text("  saves: of peak reserved memory, after a replay through PyTorch's allocator", style="dim"))
    proofs = sorted({result.proof for result in rows})
    if proofs:
        words = "; ".join(f"{proof}: {PROOF_WORDS[proof]}" for proof in proofs)
        console.print(Text(f"  {words} (docs/techniques.md)", style="dim"))


def _print_below(result: WhatIf, console: Console, *, says_how: bool, says_costs: bool) -> None:
    """How a technique is done, with its cost where the table has no room for it, and what there is to know of it."""
    cost = costs_words(result) if says_costs else ""
    how = "; ".join(filter(None, result.hows)) if says_how else ""
    if how or cost:
        words = f"{how} (costs {cost})" if how and cost else how or f"costs {cost}"
        console.print(Text(f"  {result.technique}: {words}", style="green" if how else "dim"))
    if result.note is not None:
        console.print(Text(f"  ○ {result.technique}: {result.note}", style="dim"))
    for sentence in result.assumes:
        console.print(Text(f"  · {result.technique}: {sentence}", style="dim"))


def print_fit_plan(recording: RecordedTrace, device: int, plan: FitPlan, console: Console) -> None:
    """Print the plan as a list that a person can follow."""
    console.print(Text(f"{recording.name}, device {device}: {fit_words(plan)}", style="bold"))
    for number, step in enumerate(plan.steps, 1):
        words = "; ".join(filter(None, map(cost_words, step.costs)))
        cost = f" ({words})" if words else ""
        peak = f"{format_bytes(step.peaks.reserved_bytes)} reserved at the peak"
        saved = f"{signed_bytes(step.saved_bytes)} less, {peak}{cost}"
        console.print(Text(f"  {number}. {step.technique}: {saved}; {step.proof}"))
        for how in step.hows:
            console.print(Text(f"     {how}", style="green"))
    for words in plan.warnings:
        console.print(Text(f"  ! {words}", style="yellow"))
    console.print(Text("  of peak reserved memory, after a replay through PyTorch's allocator", style="dim"))


def _cells(result: WhatIf) -> tuple[str, str, str, str, str, str]:
    return (
        result.technique,
        signed_bytes(result.saved_bytes),
        format_bytes(result.peaks.reserved_bytes),
        format_bytes(result.peaks.allocated_bytes),
        costs_words(result),
        result.proof,
    )


def print_techniques(techniques: Iterable[Technique], console: Console) -> None:
    """List the techniques that there are."""
    table = FittedTable(
        Column("technique", Kind.NAME), Column("what it does", Kind.WORDS), Column("proof", Kind.NAME, place=1)
    )
    for technique in techniques:
        table.add_row(technique.usage, technique.summary, technique.proof)
    table.print(console)
