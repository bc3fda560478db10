"""What a model takes and which cards it fits, as text for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from memscope.planning.estimate import CardFit, Estimate
from memscope.planning.plan import Plan
from memscope.planning.script import Fitted
from memscope.planning.solve import Solved
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_bytes, format_count, format_items

_WORDS = {"batch": "largest batch", "seq": "longest sequence", "gpu": "smallest card"}


def print_estimate(found: Estimate, console: Console, solved: Solved | None = None) -> None:
    """Print the answer, the ledger at the peak, and how it fits each card."""
    if solved is not None:
        console.print(Text(solved_words(solved), style="bold"))
    console.print(Text(plan_words(found.plan), style="" if solved is not None else "bold"))
    card = found.card
    peaks = f"{format_bytes(card.peak_allocated_bytes)} allocated, {format_bytes(card.peak_reserved_bytes)} reserved"
    console.print(Text(f"  on {card.name}: {peaks} at the peaks, without a limit of memory"))
    ledger = found.device.peak().ledger
    table = FittedTable(
        Column(f"at the peak, on {card.name}", Kind.NAME),
        Column("bytes"),
        Column("", place=1, called="exact bytes"),
    )
    for row in ledger.rows:
        if row.bytes:
            table.add_row(row.name.replace("_", " "), format_bytes(row.bytes), format_count(row.bytes))
    table.add_row(ledger.total_of, format_bytes(ledger.total_bytes), format_count(ledger.total_bytes), style="bold")
    table.print(console)
    cards = FittedTable(
        Column("card", Kind.NAME),
        Column("PyTorch can have"),
        Column("reserved", place=1, called="peak reserved"),
        Column("spare"),
        Column("", Kind.WORDS),
    )
    for card in found.cards:
        peak = format_bytes(card.peak_reserved_bytes)
        cards.add_row(card.name, format_bytes(card.capacity_bytes), peak, _spare(card), _verdict(card))
    cards.print(console)
    notes = ["what PyTorch can have: the card's memory less a modelled CUDA context; nothing was measured on a card"]
    if found.plan.mode == "train":
        notes.append("weights, gradients and states are all of the type that was asked for")
    for note in notes:
        console.print(Text(f"  · {note}", style="dim"))


def _spare(card: CardFit) -> str:
    spare = card.spare_bytes
    return format_bytes(spare) if spare >= 0 else f"−{format_bytes(-spare)}"


def _verdict(card: CardFit) -> Text:
    if not card.fits:
        return Text("does not fit", style="red")
    if card.n_retries:
        return Text(f"fits, cached memory given back {format_items(card.n_retries, 'time')}", style="yellow")
    return Text("fits", style="green")


def plan_words(plan: Plan) -> str:
    """A plan in one line."""
    kind = f"trained with {plan.optimizer}" if plan.mode == "train" else f"{plan.n_new_tokens:,} tokens generated"
    extra = ", checkpointed" if plan.checkpoints else ""
    batch = f"batch {plan.n_samples:,} of {format_items(plan.n_tokens, 'token')}"
    return f"{plan.config.name} in {plan.dtype}, {batch}, {kind}{extra}, {plan.attention} attention"


def solved_words(solved: Solved) -> str:
    """An answer in one line."""
    what = _WORDS[solved.name]
    if solved.value is None:
        return f"{what}: none fits" if solved.name == "gpu" else f"{what}: not even 1 fits {solved.estimate.card.name}"
    value = f"{solved.value:,}" if isinstance(solved.value, int) else solved.value
    on = "" if solved.name == "gpu" else f" on {solved.estimate.card.name}"
    how = "the next does not fit" if solved.confirmed else solved.note or "not confirmed"
    tried = f"{format_items(solved.n_runs, 'plan')} dry-run"
    return f"{what}{on}: {value} ({how}; {tried})" if solved.name != "gpu" else f"{what}: {value} ({tried})"


def print_fitted(found: Fitted, console: Console) -> None:
    """Print the value, and what each run came to."""
    console.print(Text(fitted_words(found), style="bold"))
    table = FittedTable(
        Column(found.argument.removesuffix("="), Kind.NAME),
        Column("allocated", place=1, called="peak allocated"),
        Column("reserved", called="peak reserved"),
        Column("", Kind.WORDS),
    )
    for trial in sorted(found.trials, key=lambda trial: trial.value):
        verdict = Text("fits", style="green") if trial.fits else Text("runs out of memory", style="red")
        peaks = format_bytes(trial.peak_allocated_bytes), format_bytes(trial.peak_reserved_bytes)
        table.add_row(f"{trial.value:,}", *peaks, verdict)
    table.print(console)
    had = "of a run that runs out of memory: what it had until then; each is a dry run, nothing was measured on a card"
    console.print(Text(f"  · {had}", style="dim"))


def fitted_words(found: Fitted) -> str:
    """An answer in one line."""
    card = f"{found.gpu}, of which PyTorch can have {format_bytes(found.capacity_bytes)}"
    name = found.argument.removesuffix("=")
    if found.value is None:
        return f"{name} {found.trials[0].value:,} does not fit {card}: give a smaller one with --from"
    if found.changes_memory is False:
        return f"{name} changes nothing in what the script needs, so that any value fits {card} ({found.note})"
    words = f"{name} {found.value:,} is the most that fits {card}"
    if found.confirmed:
        runs = format_items(len(found.trials), "dry run")
        words = f"{words}: {found.value + 1:,} runs out of memory ({runs})"
    return f"{words}" if found.note is None else f"{words}; {found.note}"
