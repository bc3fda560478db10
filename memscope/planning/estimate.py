"""What a model takes, and which cards it fits.

Dry runs have no limit; each card's capacity is applied afterwards, by a replay: what fits only because cached segments
are given back under pressure fits, and is said to. Kernels differ by card, so each card is judged by a dry run of its
own kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memscope.analysis import Analysis
from memscope.device.device import Device
from memscope.gpus import GpuModel
from memscope.planning._models import dry_run
from memscope.planning.plan import Plan
from memscope.replay.within import served_within

OnRun = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CardFit:
    """Whether a plan fits a card.

    Attributes
    ----------
    capacity_bytes
        What PyTorch can have of it.
    peak_allocated_bytes, peak_reserved_bytes
        Of the dry run of a card of this kind, without a limit.
    n_retries
        How often cached segments were given back to serve a request.
    """

    name: str
    fits: bool
    capacity_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    n_retries: int

    @property
    def spare_bytes(self) -> int:
        """What is left at the peak without a limit; below 0 where that is more than the card has."""
        return self.capacity_bytes - self.peak_reserved_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan takes on one card, and how it fits each.

    Attributes
    ----------
    device
        The device of the dry run of :attr:`card`.
    card
        The card that the peaks and the ledger are of: the first that was asked for, or the one that was found.
    cards
        In the order in which they were asked for.
    n_runs
        Dry runs that this took.
    """

    plan: Plan
    device: Device
    card: CardFit
    cards: tuple[CardFit, ...]
    n_runs: int = 1

    @property
    def peak_allocated_bytes(self) -> int:
        """Most bytes of blocks in use."""
        return self.card.peak_allocated_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """Most bytes of segments, without a limit."""
        return self.card.peak_reserved_bytes


def kind_of(gpu: GpuModel) -> tuple[tuple[int, int], int]:
    """What a dry run asks of a card besides its memory: cards that are alike in it share a dry run.

    The capability chooses kernels and libraries' workspaces, the multiprocessors the scratch memory of reductions and
    sorts.
    """
    return gpu.capability, gpu.n_multiprocessors


def run_of(plan: Plan, gpu: GpuModel, on_run: OnRun | None = None) -> Device:
    """The device of a plan's dry run on a card of a kind.

    Raises
    ------
    UsageError
        If the model cannot be made.
    """
    if on_run is not None:
        on_run(f"{plan.config.name}, batch {plan.n_samples:,} of {plan.n_tokens:,} tokens, on {gpu.name}")
    return Analysis(dry_run(plan, gpu)).devices[0]


def estimate(plan: Plan, gpus: Sequence[GpuModel], on_run: OnRun | None = None) -> Estimate:
    """Dry-run a plan, once for each kind of card, and set it beside each; the peaks are of the first.

    Raises
    ------
    UsageError
        If the model cannot be made.
    """
    alike: dict[tuple[tuple[int, int], int], list[int]] = {}
    for i, gpu in enumerate(gpus):
        alike.setdefault(kind_of(gpu), []).append(i)
    found: dict[int, CardFit] = {}
    first = None
    for indices in alike.values():
        device = run_of(plan, gpus[indices[0]], on_run)
        first = device if first is None else first  # the others' events are let go of
        found.update((i, card_fit(device, gpus[i])) for i in indices)
    assert first is not None, "a card at least is asked for"
    cards = tuple(found[i] for i in range(len(gpus)))
    return Estimate(plan, first, cards[0], cards, len(alike))


def card_fit(device: Device, gpu: GpuModel) -> CardFit:
    """Whether what a dry run asked for can be served on a card."""
    capacity, allocated = gpu.usable_bytes, device.peak().allocated_bytes
    reserved = device.peak_reserved().reserved_bytes or 0
    within = served_within(device.lifetimes, capacity, allocated, reserved)
    return CardFit(gpu.name, within.fits, capacity, allocated, reserved, within.n_retries)
