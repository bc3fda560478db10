"""The most, or the least, that fits: found in few dry runs, and confirmed by one at the border and one past it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from memscope.device.device import Device
from memscope.errors import UsageError
from memscope.gpus import GpuModel
from memscope.planning.estimate import Estimate, OnRun, card_fit, estimate, kind_of, run_of
from memscope.planning.plan import MOST, Plan

NUMBERS = ("batch", "seq")
_N_BY_LINE = 10
"""So many trials follow the line; a border that they do not find is found by halving."""
_MOST_GROWTH = 256


@dataclass(frozen=True, slots=True)
class Solved:
    """An answer.

    Attributes
    ----------
    name
        What was varied.
    value
        The largest number that fits, or the name of the smallest card; None where nothing does.
    confirmed
        Whether a dry run fits there and another, one past it, does not; for a card, each smaller one.
    estimate
        Of the plan at the answer; where nothing fits, of the least number, or of the largest card.
    n_runs
        Dry runs that it took.
    note
        What bounds the answer besides memory, None where nothing does.
    """

    name: str
    value: int | str | None
    confirmed: bool
    estimate: Estimate
    n_runs: int
    note: str | None = None


def solve_number(name: str, plan: Plan, gpu: GpuModel, on_run: OnRun | None = None) -> Solved:
    """The largest batch, or length, with which a plan fits a card.

    Memory is nearly in proportion: two runs say where the border lies about, further ones close in on it.

    Raises
    ------
    UsageError
        If the model cannot be made.
    """
    most = MOST
    longest = plan.config.max_length
    if name == "seq" and longest is not None and plan.has_learnt_positions:
        most = longest
    tried: dict[int, Estimate] = {}

    def fits(number: int) -> bool:
        if number not in tried:
            varied = replace(plan, n_samples=number) if name == "batch" else replace(plan, n_tokens=number)
            tried[number] = estimate(varied, [gpu], on_run)
        return tried[number].cards[0].fits

    if not fits(1):
        return Solved(name, None, True, tried[1], len(tried))
    value = _largest(fits, lambda number: tried[number].peak_reserved_bytes, gpu.usable_bytes, most)
    confirmed = value < most and fits(value) and not fits(value + 1)
    note = None if value < most else f"{most:,} is the most that can be asked for"
    return Solved(name, value, confirmed, tried[value], len(tried), note)


def _largest(fits: Callable[[int], bool], peak_of: Callable[[int], int], capacity_bytes: int, most: int) -> int:
    """The largest number that fits, where 1 does; ``peak_of`` is asked of numbers that were tried."""
    low, high = 1, most + 1  # the one fits; the other does not, or cannot be
    tried = [1]
    while high - low > 1:
        if len(tried) < 2:
            guess = low + 1
        elif len(tried) < _N_BY_LINE:
            guess = _reached(tried[-2], tried[-1], peak_of, capacity_bytes, low, high)
        else:
            guess = (low + high) // 2
        low, high = (guess, high) if fits(guess) else (low, guess)
        tried.append(guess)
    return low


def _reached(one: int, other: int, peak_of: Callable[[int], int], capacity_bytes: int, low: int, high: int) -> int:
    """Where the line through two trials reaches the capacity, strictly between two numbers."""
    slope = (peak_of(other) - peak_of(one)) / (other - one)
    reached = high if slope <= 0 else int(other + (capacity_bytes - peak_of(other)) / slope)
    return min(max(reached, low + 1), high - 1, _MOST_GROWTH * low)


def solve_card(plan: Plan, gpus: Sequence[GpuModel], on_run: OnRun | None = None) -> Solved:
    """The smallest of some cards that a plan fits: tried from the smallest up, each by a dry run of its own kind.

    Larger cards are not tried: the estimate's cards end with the one that was found.

    Raises
    ------
    UsageError
        If there are no cards, or the model cannot be made.
    """
    if not gpus:
        raise UsageError("no card to choose from")
    runs: dict[object, Device] = {}
    cards = []
    for gpu in sorted(gpus, key=lambda gpu: (gpu.usable_bytes, gpu.name)):
        kind = kind_of(gpu)
        if kind not in runs:
            runs[kind] = run_of(plan, gpu, on_run)
        device = runs[kind]
        cards.append(card_fit(device, gpu))
        if cards[-1].fits:
            break
    found = Estimate(plan, device, cards[-1], tuple(cards), len(runs))
    return Solved("gpu", cards[-1].name if cards[-1].fits else None, True, found, len(runs))
