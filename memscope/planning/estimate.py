"""What a model takes, and which cards it fits.

The dry run has no limit; each card's capacity is applied afterwards, by a replay: what fits only because cached
segments are given back under pressure fits, and is said to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memscope.analysis import Analysis
from memscope.device.device import Device
from memscope.device.limits import Limits
from memscope.gpus import GpuModel
from memscope.planning._models import dry_run
from memscope.planning.plan import Plan
from memscope.replay.caching.engine import replay_caching

OnRun = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CardFit:
    """Whether a plan fits a card.

    Attributes
    ----------
    capacity_bytes
        What PyTorch can have of it.
    peak_reserved_bytes
        Without a limit.
    n_retries
        How often cached segments were given back to serve a request.
    """

    name: str
    fits: bool
    capacity_bytes: int
    peak_reserved_bytes: int
    n_retries: int

    @property
    def spare_bytes(self) -> int:
        """What is left at the peak without a limit; below 0 where that is more than the card has."""
        return self.capacity_bytes - self.peak_reserved_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan takes, on the first card asked for, and how it fits each.

    Attributes
    ----------
    device
        The dry run's device.
    cards
        In the order in which they were asked for.
    """

    plan: Plan
    device: Device
    cards: tuple[CardFit, ...]

    @property
    def peak_allocated_bytes(self) -> int:
        """Most bytes of blocks in use."""
        return self.device.peak().allocated_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """Most bytes of segments, without a limit."""
        return self.device.peak_reserved().reserved_bytes or 0


def estimate(plan: Plan, gpus: Sequence[GpuModel], on_run: OnRun | None = None) -> Estimate:
    """Dry-run a plan, once for each size of cuBLAS's workspace among the cards, and set it beside each.

    Raises
    ------
    UsageError
        If the model cannot be made.
    """
    devices: dict[int, Device] = {}
    cards = []
    for gpu in gpus:
        key = gpu.cublas_workspace_bytes
        if key not in devices:
            if on_run is not None:
                on_run(f"{plan.config.name}, batch {plan.n_samples:,} of {plan.n_tokens:,} tokens, on {gpu.name}")
            devices[key] = Analysis(dry_run(plan, gpu)).devices[0]
        cards.append(card_fit(devices[key], gpu))
    return Estimate(plan, devices[gpus[0].cublas_workspace_bytes], tuple(cards))


def card_fit(device: Device, gpu: GpuModel) -> CardFit:
    """Whether what a dry run asked for can be served on a card."""
    peak = device.peak_reserved().reserved_bytes or 0
    if peak <= gpu.usable_bytes:
        return CardFit(gpu.name, True, gpu.usable_bytes, peak, 0)
    if device.peak().allocated_bytes > gpu.usable_bytes:
        return CardFit(gpu.name, False, gpu.usable_bytes, peak, 0)
    limits = Limits(total_bytes=gpu.usable_bytes, reserved_by_others_bytes=0)
    served = replay_caching(device.lifetimes, limits=limits, keeps_usage=False)
    return CardFit(gpu.name, served.oom is None, gpu.usable_bytes, peak, served.n_retries or 0)
