"""What techniques would have made of a recorded program, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from memscope.device.recording import RecordedTrace
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.techniques.fit import FitPlan
from memscope.techniques.technique import Cost, Technique
from memscope.techniques.whatif import WhatIf, WhatIfs
from memscope.units import format_bytes, format_fraction, format_items
from memscope.words.replay import signed_bytes

_DOES_NOT_APPLY = " does not apply: "
_N_FEW = 4
"""Of so many techniques what to write is said only of those that save something."""
_PROOF_WORDS = {
    "changed-program": "checked against truly changed programs",
    "closed-form": "counted by formula",
    "unproved": "not checked",
}


def print_what_ifs(recording: RecordedTrace, found: WhatIfs, console: Console) -> None:
    """Print the baseline, a row for each technique, how to do it, and what does not apply."""
    peaks = found.baseline
    console.print(
        Text(
            f"{recording.name}, device {found.device}: {format_bytes(peaks.allocated_bytes)} allocated and "
            f"{format_bytes(peaks.reserved_bytes)} reserved at the peaks, {_as_it_is(found)}",
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
        words = "; ".join(f"{proof}: {_PROOF_WORDS[proof]}" for proof in proofs)
        console.print(Text(f"  {words} (docs/techniques.md)", style="dim"))


def _as_it_is(found: WhatIfs) -> str:
    """What the baseline is of: a run that a failed request ended never had that."""
    if found.failed_bytes is None:
        return "as it is"
    allocated_bytes, reserved_bytes = found.recorded
    had = f"{format_bytes(allocated_bytes)} allocated"
    if reserved_bytes is not None:
        had += f" and {format_bytes(reserved_bytes)} reserved"
    return f"had the request for {format_bytes(found.failed_bytes)} not failed; the run itself had {had}"


def _print_below(result: WhatIf, console: Console, *, says_how: bool, says_costs: bool) -> None:
    """How a technique is done, with its cost where the table has no room for it, and what there is to know of it."""
    cost = _costs(result) if says_costs else ""
    how = "; ".join(filter(None, result.hows)) if says_how else ""
    if how or cost:
        words = f"{how} (costs {cost})" if how and cost else how or f"costs {cost}"
        console.print(Text(f"  {result.technique}: {words}", style="green" if how else "dim"))
    if result.note is not None:
        console.print(Text(f"  ○ {result.technique}: {result.note}", style="dim"))
    for sentence in result.assumes:
        console.print(Text(f"  · {result.technique}: {sentence}", style="dim"))


def refused_words(refused: Iterable[tuple[str, str]]) -> list[str]:
    """Techniques that do not apply and why, a line for each reason."""
    names: dict[str, list[str]] = {}
    for name, text in refused:
        _, _, reason = text.partition(_DOES_NOT_APPLY)
        names.setdefault(reason or text, []).append(name)
    return [
        f"{', '.join(of)}{_DOES_NOT_APPLY if len(of) == 1 else ' do not apply: '}{reason}"
        for reason, of in names.items()
    ]


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


def fit_words(plan: FitPlan) -> str:
    """What a plan comes to, in one line."""
    card = f"{plan.gpu}, of which PyTorch can have {format_bytes(plan.capacity_bytes)}"
    spare = f"with {format_bytes(plan.spare_bytes)} to spare"
    if plan.n_retries:
        spare = f"cached memory given back {format_items(plan.n_retries, 'time')}"
    if plan.fits and not plan.steps:
        return f"fits {card}, {spare} as it is"
    if plan.fits:
        n = format_items(len(plan.steps), "change")
        return f"with {n} it fits {card}, {spare}"
    lacks = format_bytes(-plan.spare_bytes)
    return f"nothing that is known makes it fit {card}: with all of this it still lacks {lacks}"


def _cells(result: WhatIf) -> tuple[str, str, str, str, str, str]:
    return (
        result.technique,
        signed_bytes(result.saved_bytes),
        format_bytes(result.peaks.reserved_bytes),
        format_bytes(result.peaks.allocated_bytes),
        _costs(result),
        result.proof,
    )


def _costs(result: WhatIf) -> str:
    """What is paid for a change; nothing where nothing changes."""
    return "" if result.note is not None else "; ".join(filter(None, map(cost_words, result.costs)))


def cost_words(cost: Cost) -> str:
    """A cost in a few words; an empty text where nothing is known of one."""
    parts = []
    if cost.recomputed_frac is not None:
        parts.append(f"+{format_fraction(cost.recomputed_frac)} work")
    if cost.n_passes is not None:
        parts.append(f"{cost.n_passes} passes in place of one")
    if cost.moved_bytes_per_step is not None:
        parts.append(f"{format_bytes(cost.moved_bytes_per_step)} moved a step")
    parts += [words for words in (cost.precision, cost.words) if words is not None]
    return "; ".join(parts)


def print_techniques(techniques: Iterable[Technique], console: Console) -> None:
    """List the techniques that there are."""
    table = FittedTable(
        Column("technique", Kind.NAME), Column("what it does", Kind.WORDS), Column("proof", Kind.NAME, place=1)
    )
    for technique in techniques:
        table.add_row(technique.usage, technique.summary, technique.proof)
    table.print(console)
