"""The ledger: one moment's bytes, row by row, summing exactly to what is reserved.

What the device holds beyond that is counted apart, at the moments when it was sampled: see ``driver_usage``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.attribution.driver_usage import (
    DriverUsage,
    LedgerRow,
    ModelledCollectives,
    driver_usage_at,
    modelled_collectives,
    unbacked_bytes,
)
from memscope.errors import InvariantError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import large_segment_bytes
from memscope.lifetimes.state import AllocatorState, releasable_bytes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import BlockState
from memscope.trace.tables import BoolArray, Int64Array

ROUNDING = "rounding"
PENDING_FREES = "pending_frees"
FREE_RELEASABLE = "free_releasable"
FREE_PINNED = "free_pinned"
FREE_PRIVATE_POOLS = "free_private_pools"

ROW_MEANINGS = {
    ROUNDING: "given beyond the request",
    PENDING_FREES: "freed, but other streams may still use it",
    FREE_RELEASABLE: "unused; empty_cache() would give it back",
    FREE_PINNED: "unused, but live blocks keep its segment",
    FREE_PRIVATE_POOLS: "unused, in private pools (CUDA graphs, MemPool)",
}


NOT_ON_THE_DEVICE = "of it not on the device"
NOT_ON_THE_DEVICE_MEANING = "at least: unmapped while an engine sleeps, or in another place"


@dataclass(frozen=True, slots=True)
class Ledger:
    """One device's bytes after one event.

    Attributes
    ----------
    event
        The event that it comes after, −1 for before the first.
    rows
        Every category's requested bytes in stacking order, then rounding, pending frees and free memory.
    total_bytes
        Their sum.
    total_of
        What that is: ``reserved`` (torch's reserved bytes), or ``active`` where segments were not recorded and the rows
        of free memory are therefore missing.
    driver_usage
        Everything that is used on the device, sampled nearest to the event; None where it was not measured.
    not_measured
        Why it was not.
    unbacked_bytes
        At least so much of what is reserved is not on the device; see :func:`~.driver_usage.unbacked_bytes`.
    modelled_collectives
        What communicators would hold beyond it, in a dry run that had any.
    """

    event: int
    device: int
    rows: tuple[LedgerRow, ...]
    total_bytes: int
    total_of: str
    driver_usage: DriverUsage | None = None
    not_measured: str = ""
    unbacked_bytes: int = 0
    modelled_collectives: ModelledCollectives | None = None

    def __getitem__(self, name: str) -> int:
        """Bytes of the row of that name; KeyError if it is not in this ledger."""
        for row in self.rows:
            if row.name == name:
                return row.bytes
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class InferredBytes:
    """Requested bytes in use at a moment whose category was inferred, how sure that is, and by what evidence."""

    category: str
    bytes: int
    n_allocations: int
    confidence: float
    evidence: str

    @property
    def confidence_words(self) -> str:
        """The confidence as it is written everywhere: ``99 % sure``."""
        return f"{100 * self.confidence:.0f} % sure"


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the requested bytes in use at a moment has a category, and what decided it.

    ``inferred`` are the parts of ``by_source["inferred"]``, the largest first.
    """

    attributed_bytes: int
    unknown_bytes: int
    by_source: dict[str, int]
    inferred: tuple[InferredBytes, ...]

    @property
    def attributed_frac(self) -> float | None:
        """Share of requested bytes with a category, None where nothing is in use."""
        total = self.attributed_bytes + self.unknown_bytes
        return self.attributed_bytes / total if total else None


def ledger_at(lifetimes: DeviceLifetimes, attribution: Attribution, event: int) -> Ledger:
    """Draw up the ledger of a device after an event.

    Raises
    ------
    InvariantError
        If the rows do not sum to the device's own series, or those beyond them to the device's own count: a ledger that
        does not close is never returned.
    """
    table = lifetimes.allocations
    active, pending = table.active_at(event), table.pending_at(event)
    in_use = active & ~pending
    by_category = [
        int(table.requested_bytes[in_use & (attribution.category == category)].sum()) for category in Category
    ]
    rows = [LedgerRow(category.label, size, True) for category, size in zip(Category, by_category, strict=True)]
    rounding = int((table.block_bytes[in_use] - table.requested_bytes[in_use]).sum())
    rows.append(LedgerRow(ROUNDING, rounding, False))
    rows.append(LedgerRow(PENDING_FREES, int(table.block_bytes[pending].sum()), False))
    usage = lifetimes.usage
    index = usage.index_of(event) if event >= 0 else 0
    if usage.reserved_bytes is None:
        expected, total_of = int(usage.active_bytes[index]), "active"
    else:
        handle_bytes = large_segment_bytes(lifetimes.trace.metadata.alloc_conf)
        rows += _free_rows(lifetimes.state_at(event), handle_bytes)
        expected, total_of = int(usage.reserved_bytes[index]), "reserved"
    total = sum(row.bytes for row in rows)
    if total != expected:
        raise InvariantError(f"ledger of event {event} sums to {total:,} bytes, the {total_of} series has {expected:,}")
    driver_usage, not_measured = driver_usage_at(lifetimes, event)
    unbacked = unbacked_bytes(lifetimes, event)
    collectives = modelled_collectives(lifetimes)
    return Ledger(
        event, lifetimes.device, tuple(rows), total, total_of, driver_usage, not_measured, unbacked, collectives
    )


def _free_rows(state: AllocatorState, large_handle_bytes: int) -> list[LedgerRow]:
    blocks, segments = state.blocks, state.segments
    free = blocks.state == BlockState.INACTIVE
    private = segments.pool_id[blocks.segment_id] > 0
    free_bytes = int(blocks.size_bytes[free & ~private].sum())
    releasable = int(releasable_bytes(state, large_handle_bytes).sum())
    return [
        LedgerRow(FREE_RELEASABLE, releasable, False),
        LedgerRow(FREE_PINNED, free_bytes - releasable, False),
        LedgerRow(FREE_PRIVATE_POOLS, int(blocks.size_bytes[free & private].sum()), False),
    ]


def coverage_at(lifetimes: DeviceLifetimes, attribution: Attribution, event: int) -> Coverage:
    """Say how much of what is in use after an event has a category."""
    table = lifetimes.allocations
    in_use = table.active_at(event) & ~table.pending_at(event)
    by_source = {
        source.label: int(table.requested_bytes[in_use & (attribution.source == source)].sum())
        for source in CategorySource
        if source is not CategorySource.NONE
    }
    unknown = int(table.requested_bytes[in_use & (attribution.category == Category.UNKNOWN)].sum())
    attributed = int(table.requested_bytes[in_use].sum()) - unknown
    return Coverage(attributed, unknown, by_source, _inferred(attribution, table.requested_bytes, in_use))


def _inferred(attribution: Attribution, size_bytes: Int64Array, in_use: BoolArray) -> tuple[InferredBytes, ...]:
    """What is in use by each inference: those of the same category, confidence and evidence together."""
    parts: dict[tuple[str, float, str], tuple[int, int]] = {}
    for number, inference in enumerate(attribution.inferences):
        sizes = size_bytes[in_use & (attribution.inference_id == number)]
        key = inference.category.label, inference.confidence, inference.reason
        n_bytes, n = parts.get(key, (0, 0))
        parts[key] = n_bytes + int(sizes.sum()), n + len(sizes)
    found = [InferredBytes(key[0], *sums, *key[1:]) for key, sums in parts.items() if sums[1]]
    return tuple(sorted(found, key=lambda one: -one.bytes))


def usage_by_category(lifetimes: DeviceLifetimes, attribution: Attribution) -> dict[Category, np.ndarray]:
    """Requested bytes of each category while active, after each event: int64 (n + 1,) each, empty ones left out."""
    series = {}
    table = lifetimes.allocations
    for category in Category:
        rows = np.flatnonzero(attribution.category == category)
        if len(rows):
            series[category] = lifetimes.weighted_usage(rows, table.requested_bytes[rows])
    return series
