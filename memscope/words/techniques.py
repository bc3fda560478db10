"""Techniques in words: what one costs and how far it is proved, what does not apply, what a plan comes to."""

from __future__ import annotations

from collections.abc import Iterable

from memscope.techniques.fit import FitPlan
from memscope.techniques.technique import Cost
from memscope.techniques.through import LetThrough
from memscope.techniques.whatif import WhatIf, WhatIfs
from memscope.units import format_bytes, format_fraction, format_items
from memscope.words.replay import signed_bytes

OF_TECHNIQUES = "up to this request, by replay; what the program goes on to need is not in the recording"
"""How far what would have let a failed request through is known."""
PROOF_WORDS = {
    "changed-program": "checked against truly changed programs",
    "closed-form": "counted by formula",
    "unproved": "not checked",
}
"""What the proof of a technique means."""
_DOES_NOT_APPLY = " does not apply: "


def as_it_is_words(found: WhatIfs) -> str:
    """What the baseline is of: a run that a failed request ended never had that."""
    if found.failed_bytes is None:
        return "as it is"
    allocated_bytes, reserved_bytes = found.recorded
    had = f"{format_bytes(allocated_bytes)} allocated"
    if reserved_bytes is not None:
        had += f" and {format_bytes(reserved_bytes)} reserved"
    return f"had the request for {format_bytes(found.failed_bytes)} not failed; the run itself had {had}"


def costs_words(result: WhatIf) -> str:
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


def technique_words(technique: LetThrough) -> str:
    """A technique with what it takes off, and its cost."""
    less = signed_bytes(technique.saved_bytes)
    cost = cost_words(technique.cost)
    return f"{technique.technique}: {less} less in use, {format_bytes(technique.in_use_bytes)} in use with it" + (
        f" (costs {cost})" if cost else ""
    )
