"""The cheapest techniques with which a program fits a card: a short list, in the order in which to do them.

Techniques are tried from what costs nothing to what costs most: settings and defaults, work that is done again, bytes
that are moved, bits that are lost. One that takes nothing off the peak is left out. In the end each that the program
would fit without is left out again, the dearest first; where nothing makes it fit, each that takes nothing off the peak
beside the others. What fits is served within the card's memory, if need be after cached memory was given back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from memscope.device.device import Device
from memscope.gpus import GpuModel
from memscope.replay.within import Within
from memscope.techniques.registry import clash_of, technique_named
from memscope.techniques.technique import DoesNotApplyError
from memscope.techniques.whatif import Applied, Peaks, Start, WhatIf, arranged

ORDER = (
    ("set-to-none", "gradients"),
    ("optimizer:fused", "step"),
    ("optimizer:foreach-off", "step"),
    ("conf:expandable_segments:True", "conf"),
    ("static-kv", "growth"),
    ("logits:chunked", "logits"),
    ("checkpoint:every=1", "layers"),
    ("micro-batch:2", "batch"),
    ("micro-batch:4", "batch"),
    ("offload:activations", "layers"),
    ("offload:optimizer", "states"),
    ("kv:fp8", "cache"),
    ("optimizer:8bit", "states"),
    ("quantize:int8", "weights"),
    ("kv:int4", "cache"),
    ("quantize:nf4", "weights"),
)
"""Techniques, the cheapest first, and what each is about: a later one of the same takes the place of an earlier one."""


@dataclass(frozen=True, slots=True)
class FitPlan:
    """What to do.

    Attributes
    ----------
    gpu, capacity_bytes
        The card, and what PyTorch can have of it.
    baseline, peaks
        As it is, and with all of the plan.
    steps
        What each step leaves, with those before it.
    fits
        Whether the program fits with all of the plan.
    n_retries
        How often cached memory is given back for that.
    warnings
        What weakens the plan.
    """

    gpu: str
    capacity_bytes: int
    baseline: Peaks
    peaks: Peaks
    steps: tuple[WhatIf, ...]
    fits: bool
    n_retries: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def techniques(self) -> tuple[str, ...]:
        """The plan's techniques, in order."""
        return tuple(step.technique for step in self.steps)

    @property
    def spare_bytes(self) -> int:
        """What is left of the card at the peak without a limit; below 0 where that is more than it has."""
        return self.capacity_bytes - self.peaks.reserved_bytes


def fit_plan(device: Device, gpu: GpuModel, on_done: Callable[[int, int], None] | None = None) -> FitPlan:
    """Find the plan.

    Raises
    ------
    UsageError
        If nothing was recorded.
    TrustError
        If the program is not a recording of PyTorch's allocator.
    """
    start = Start.of(device)
    capacity = gpu.usable_bytes
    chosen: dict[str, str] = {}
    best = _Trial(start.baseline, start.within([], start.baseline, capacity))
    for i, (technique, about) in enumerate(ORDER):
        if best.within.fits:
            break
        trial = {
            other: name for other, name in chosen.items() if other != about and clash_of((name, technique)) is None
        } | {about: technique}
        found = _applied(start, trial, capacity)
        if found is not None and (found.within.fits or found.peaks.reserved_bytes < best.peaks.reserved_bytes):
            chosen, best = trial, found
        if on_done is not None:
            on_done(i + 1, len(ORDER))
    chosen, best = _without_idle(start, chosen, best, capacity)
    steps = _steps(start, chosen)
    return FitPlan(
        gpu.name,
        capacity,
        start.baseline,
        best.peaks,
        steps,
        best.within.fits,
        best.within.n_retries,
        start.warnings(),
    )


class _Trial(NamedTuple):
    """What some techniques come to."""

    peaks: Peaks
    within: Within


def _without_idle(
    start: Start, chosen: dict[str, str], best: _Trial, capacity_bytes: int
) -> tuple[dict[str, str], _Trial]:
    """A plan without each technique that it can do without, and its peaks; the dearest are left out first.

    Where the plan fits, that is one without which it fits; else one without which no more is left.
    """
    for about in list(chosen)[::-1]:
        fewer = {other: name for other, name in chosen.items() if other != about}
        found = _applied(start, fewer, capacity_bytes)
        if found is None or found.within.fits < best.within.fits:
            continue
        if found.within.fits or found.peaks.reserved_bytes <= best.peaks.reserved_bytes:
            chosen, best = fewer, found
    return chosen, best


def _applied(start: Start, chosen: dict[str, str], capacity_bytes: int) -> _Trial | None:
    """What some techniques come to, one after the other; None where one does not apply or changes nothing."""
    if not chosen:
        return _Trial(start.baseline, start.within([], start.baseline, capacity_bytes))
    try:
        changes = start.apply([technique_named(name) for name in chosen.values()])
    except DoesNotApplyError:
        return None
    if any(change.note is not None for _, change in changes):
        return None
    peaks = start.answer(" + ".join(chosen.values()), changes).peaks
    return _Trial(peaks, start.within(changes, peaks, capacity_bytes))


def _steps(start: Start, chosen: dict[str, str]) -> tuple[WhatIf, ...]:
    """Each technique of a plan with what is left once it and those before it are done."""
    names = arranged(chosen.values())
    changes: list[Applied] = start.apply([technique_named(name) for name in names]) if names else []
    return tuple(start.step(name, changes[: i + 1]) for i, name in enumerate(names))
