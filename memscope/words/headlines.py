"""What a picture says, in a sentence: the titles of views and of the report's sections."""

from __future__ import annotations

from memscope.attribution.ledger import FREE_PRIVATE_POOLS, InferredBytes
from memscope.device.device import Device, Moment
from memscope.trace.categories import CategorySource
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_fraction
from memscope.words.labels import row_label

_FRAGMENTED_FRAC = 0.1
"""Free memory that cannot go back, as a share of reserved, from which it is the finding."""


def where(moment: Moment) -> str:
    """Where a moment lies: ``step 1, backward`` where that was marked, else ``event 8,361``."""
    if moment.event == NONE_ID:
        return "the start" if moment.lifetimes.n_events else "the end of the recording"
    return describe_moment(moment.device.trace, moment.event) or f"event {moment.event:,}"


def _largest(moment: Moment, n: int = 2) -> str:
    """The largest categories, as shares of what the ledger sums to: the same numbers as in its rows."""
    ledger = moment.ledger
    rows = sorted((row for row in ledger.rows if row.is_category and row.bytes), key=lambda row: -row.bytes)[:n]
    named = [f"{row_label(row.name)} {format_fraction(row.bytes / ledger.total_bytes)}" for row in rows]
    return f"{', '.join(named)} of {format_bytes(ledger.total_bytes)} {ledger.total_of}" if named else ""


def ledger_finding(moment: Moment) -> str:
    """``Peak 909.5 MiB at step 1, backward: activations 46.1 %, optimizer state 23.9 % of 1.1 GiB reserved``."""
    peak = moment.device.peak()
    largest = _largest(moment)
    tail = f": {largest}" if largest else ""
    if moment.event == peak.event:
        return f"Peak {format_bytes(moment.allocated_bytes)} allocated at {where(moment)}{tail}"
    highest = f", {format_bytes(peak.allocated_bytes)} at the peak"
    return f"{format_bytes(moment.allocated_bytes)} allocated at {where(moment)}{highest}{tail}"


def coverage_words(moment: Moment) -> str:
    """How much of what is in use has a category, and what decided it; empty where nothing is in use."""
    coverage = moment.coverage
    total_bytes = coverage.attributed_bytes + coverage.unknown_bytes
    if not total_bytes:
        return ""
    names = {name: "inferred" if name == CategorySource.INFERRED.label else f"by {name}" for name in coverage.by_source}
    sources = ", ".join(f"{format_bytes(size)} {names[name]}" for name, size in coverage.by_source.items() if size)
    told = f"{format_bytes(coverage.attributed_bytes)} of {format_bytes(total_bytes)} requested"
    return f"with a category: {told}{f' ({sources})' if sources else ''}"


def inferred_words(part: InferredBytes) -> str:
    """``weights 726.5 MiB inferred, 95 % sure:`` and the evidence."""
    label = row_label(part.category)
    return f"{label} {format_bytes(part.bytes)} inferred, {part.confidence_words}: {part.evidence}"


def timeline_finding(device: Device) -> str:
    """How high the lines go, and where."""
    peak = device.peak()
    n_ooms = len(device.oom_events)
    text = f"Allocated peaks at {format_bytes(peak.allocated_bytes)} at {where(peak)}"
    reserved = device.usage.reserved_bytes
    if reserved is not None and peak.allocated_bytes:
        highest = int(reserved.max())
        text += f"; reserved at {format_bytes(highest)}, {format_bytes(highest - peak.allocated_bytes)} more"
    if n_ooms:
        text += f"; out of memory {n_ooms} time{'s' if n_ooms > 1 else ''}"
    return text


def map_finding(moment: Moment) -> str:
    """How much of what is reserved is free, and whether it could go back."""
    if not moment.lifetimes.segments_are_known:
        return f"{format_bytes(moment.active_bytes)} active at {where(moment)}; the segments were not recorded"
    overall = moment.fragmentation.overall
    if not overall.reserved_bytes:
        return f"Nothing is reserved at {where(moment)}"
    held = overall.free_in_split_segments_bytes
    reserved = f"{format_bytes(overall.reserved_bytes)} reserved in {overall.n_segments:,} segments"
    if held >= _FRAGMENTED_FRAC * overall.reserved_bytes:
        share = format_fraction(held / overall.reserved_bytes)
        return f"{format_bytes(held)} free but pinned by live blocks, {share} of {reserved}"
    return (
        f"{format_fraction(overall.active_bytes / overall.reserved_bytes)} of {reserved} is in use at {where(moment)}"
    )


def fragmentation_finding(moment: Moment) -> str:
    """How much free memory live blocks keep, or how little, and what would still fit."""
    if not moment.lifetimes.segments_are_known:
        return "Fragmentation is not measured: the segments were not recorded"
    overall = moment.fragmentation.overall
    if not overall.reserved_bytes:
        return f"Nothing is reserved at {where(moment)}"
    private = moment.ledger[FREE_PRIVATE_POOLS]
    held = overall.free_in_split_segments_bytes - private
    if held >= _FRAGMENTED_FRAC * overall.reserved_bytes:
        share = format_fraction(held / overall.reserved_bytes)
        return f"{format_bytes(held)} free but pinned by live blocks at {where(moment)}, {share} of reserved"
    if private >= _FRAGMENTED_FRAC * overall.reserved_bytes:
        share = format_fraction(private / overall.reserved_bytes)
        return f"{format_bytes(private)} free in private pools at {where(moment)}, {share} of reserved"
    used = format_fraction(overall.active_bytes / overall.reserved_bytes)
    pinned = f"live blocks pin {format_bytes(held)}" if held else "no live block pins free memory"
    return f"{used} of {format_bytes(overall.reserved_bytes)} reserved is in use at {where(moment)}; {pinned}"


def allocations_finding(moment: Moment) -> str:
    """How many are live, and how few of them hold most."""
    sizes = moment.lifetimes.allocations.block_bytes[moment.rows]
    if not len(sizes):
        return f"Nothing is live at {where(moment)}"
    total = int(sizes.sum())
    n_half = int((sizes.cumsum() * 2 < total).sum()) + 1
    holders = "the largest alone holds" if n_half == 1 else f"the largest {n_half:,} hold"
    return f"{len(sizes):,} allocations hold {format_bytes(total)} at {where(moment)}; {holders} half of it"
