"""Fragmentation as text and as JSON: of a moment, over time, and what pins it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from memscope.device.device import Moment
from memscope.fragmentation.over_time import Outline, OverTime, WorstMoment
from memscope.fragmentation.pins import Holder, Pin
from memscope.reports.json import fragmentation_of, trace_json, usage_json
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.reports.text import print_fragmentation_line, print_trust_header, when
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_duration, format_fraction, format_handle, format_items
from memscope.words.labels import SCATTER_MEANING, row_label, scatter_words

_NOT_MEASURED = "not measured"
_PIN_MEANINGS = (
    "free, held: in the segment beside these blocks; live: the blocks together",
    "gives back: what freeing these blocks and then emptying the cache returns to the driver",
)
_BARS = " ▁▂▃▄▅▆▇█"
_N_OUTLINE_TEXT = 60
_N_BESIDE_OUTLINE = 32
"""Of a line with an outline, what its name and its highest value take."""
_N_OUTLINE_JSON = 200


def print_fragmentation(
    moment: Moment, top: int, console: Console, *, over_time: bool = False, has_header: bool = True
) -> None:
    """Print a moment's fragmentation, by group, what pins it, and how it was over time; the header is the trace's."""
    if has_header:
        print_trust_header(moment.device.recording, console)
    console.print()
    if not moment.lifetimes.segments_are_known:
        console.print(Text("fragmentation is not measured: the segments were not recorded", style="yellow"))
        return
    reserved = _NOT_MEASURED if moment.reserved_bytes is None else format_bytes(moment.reserved_bytes)
    usage = f"{format_bytes(moment.allocated_bytes)} allocated, {reserved} reserved"
    console.print(Text(f"Device {moment.device.index} {when(moment)}: {usage}", style="bold"))
    if _why_then(moment):
        console.print(Text(f"  {_why_then(moment)}", style="dim"))
    print_fragmentation_line(moment, console)
    worst = moment.device.worst_fragmented()
    if worst is not None and worst.reserved_bytes is not None:
        console.print(
            f"  most free at once: {format_bytes(worst.reserved_bytes - worst.active_bytes)} of "
            f"{format_bytes(worst.reserved_bytes)} reserved, {when(worst)}"
        )
    _print_groups(moment, console)
    _print_pins(moment, top, console)
    if over_time:
        _print_over_time(moment, console)


def _why_then(moment: Moment) -> str:
    """What moment this is, if it is the one chosen for fragmentation and not the peak that a report is of."""
    device = moment.device
    peak = device.peak()
    if moment.event == peak.event or moment.event != device.fragmentation_moment().event:
        return ""
    what = "the request that failed" if moment.event == device.lifetimes.fatal_oom_event else "the peak of reserved"
    return f"this is {what}; memscope report is of the peak of allocated, {when(peak)}"


def _print_groups(moment: Moment, console: Console) -> None:
    table = FittedTable(
        Column("pool", Kind.NAME),
        Column("stream", Kind.NAME),
        Column("class", Kind.NAME),
        Column("reserved"),
        Column("active", place=3),
        Column("rounding", place=6),
        Column("releasable", place=2),
        Column("pinned", place=1),
        Column("largest free", place=4),
        Column("scatter", place=5),
    )
    for group in moment.fragmentation.groups:
        table.add_row(
            "not recorded" if group.pool is None else "default" if group.pool == (0, 0) else str(group.pool),
            "not recorded" if group.stream is None else "default" if group.stream == 0 else format_handle(group.stream),
            group.size_class or "",
            format_bytes(group.reserved_bytes),
            format_bytes(group.active_bytes),
            format_bytes(group.rounding_bytes),
            format_bytes(group.releasable_bytes),
            format_bytes(group.free_in_split_segments_bytes),
            format_bytes(group.largest_free_block_bytes),
            scatter_words(group.scatter_frac),
        )
    table.print(console)
    console.print(Text(f"  scatter: {SCATTER_MEANING}", style="dim"))


def _print_pins(moment: Moment, top: int, console: Console) -> None:
    pins = moment.pins(top)
    if not pins:
        console.print("  no live block pins free memory")
        return
    console.print()
    console.print(Text("Free memory that live blocks keep from going back", style="bold"))
    table = FittedTable(
        Column("free, held"),
        Column("gives back", place=1),
        Column("live", place=2),
        Column("blocks", place=3),
        Column("age", Kind.WORDS, place=4),
        Column("the largest of them", Kind.WORDS),
    )
    for pin in pins:
        (largest,) = moment.holders(pin, 1)
        table.add_row(
            format_bytes(pin.held_bytes),
            format_bytes(pin.returned_bytes),
            format_bytes(pin.pinning_bytes),
            format_count(len(pin.allocation_ids)),
            _age_words(largest),
            _holder_words(moment, largest),
        )
    table.print(console)
    for meaning in _PIN_MEANINGS:
        console.print(Text(f"  {meaning}", style="dim"))
    if not all(pin.is_pool_known for pin in pins):
        unknown = "  the recording does not tell all pools: what lies in a private one goes back only when that is gone"
        console.print(Text(unknown, style="yellow"))


def _holder_words(moment: Moment, holder: Holder) -> str:
    who = holder.owner or moment.device.site_of(holder.row) or "no stack recorded"
    return f"{row_label(holder.category.label)}: {who}"


def _age_words(holder: Holder) -> str:
    """``1,465 events, from step 0``; what predates the events is older than all of them."""
    over = "over " if holder.alloc_event is None else ""
    parts = [f"{over}{format_items(holder.age_events, 'event')}"]
    if holder.age_ns is not None:
        parts.append(format_duration(holder.age_ns))
    if holder.step is not None:
        step = holder.step if holder.step.lower().startswith("step") else f"step {holder.step}"
        parts.append(f"from {step}")
    return ", ".join(parts)


def _print_over_time(moment: Moment, console: Console) -> None:
    device = moment.device
    summary = device.fragmentation_over_time
    outline = device.fragmentation_outline(min(_N_OUTLINE_TEXT, max(console.width - _N_BESIDE_OUTLINE, 10)))
    console.print()
    console.print(Text("Over time", style="bold"))
    if summary is None or outline is None:
        console.print(Text("  not measured: the events do not fit the recorded segments", style="yellow"))
        return
    for line in _summary_lines(moment, summary):
        console.print(f"  {line}")
    _print_outline(outline, console)
    _print_worst(moment, summary, console)


def _summary_lines(moment: Moment, summary: OverTime) -> list[str]:
    lines = []
    if summary.mean_utilisation_by_event_frac is not None and summary.lowest_utilisation_frac is not None:
        by_time = summary.mean_utilisation_by_time_frac
        time_words = _NOT_MEASURED if by_time is None else format_fraction(by_time)
        lowest = moment.device.at(summary.lowest_utilisation_event)
        lines.append(
            f"utilisation: {format_fraction(summary.mean_utilisation_by_event_frac)} of reserved in use, "
            f"the mean over all events (over time: {time_words})"
        )
        lines.append(
            f"lowest at half of the reserved peak or more: {format_fraction(summary.lowest_utilisation_frac)}, "
            f"{when(lowest)}"
        )
    if summary.efficiency_frac is not None:
        lines.append(
            f"efficiency: {format_fraction(summary.efficiency_frac)}, peak active "
            f"{format_bytes(summary.peak_active_bytes)} of peak reserved {format_bytes(summary.peak_reserved_bytes)}"
        )
    if summary.smallest_largest_request_bytes is not None:
        tightest = moment.device.at(summary.smallest_largest_request_event)
        lines.append(
            f"tightest: a request of at most {format_bytes(summary.smallest_largest_request_bytes)} would have "
            f"succeeded {when(tightest)}"
        )
    return lines


def _print_outline(outline: Outline, console: Console) -> None:
    top = max(int(outline.reserved_bytes.max()), 1)
    lines = (
        ("reserved", outline.reserved_bytes),
        ("active", outline.active_bytes),
        ("pinned", outline.pinned_bytes),
        ("releasable", outline.releasable_bytes),
    )
    for name, values in lines:
        bars = "".join(_BARS[-(-int(value) * (len(_BARS) - 1) // top)] for value in values)
        console.print(Text(f"  {name:<11}{bars}  at most {format_bytes(int(values.max()))}"))


def _print_worst(moment: Moment, summary: OverTime, console: Console) -> None:
    if not summary.worst:
        console.print("  no free memory was ever kept from going back")
        return
    console.print()
    console.print(Text("Moments with most free memory that could not go back", style="bold"))
    table = FittedTable(
        Column("pinned"),
        Column("reserved"),
        Column("active", place=2),
        Column("active, of reserved", place=3),
        Column("largest free", place=4),
        Column("free blocks", place=5),
        Column("when", Kind.WORDS, place=1),
    )
    for worst in summary.worst:
        table.add_row(
            format_bytes(worst.pinned_bytes),
            format_bytes(worst.reserved_bytes),
            format_bytes(worst.active_bytes),
            "" if worst.utilisation_frac is None else format_fraction(worst.utilisation_frac),
            format_bytes(worst.largest_free_block_bytes),
            format_count(worst.n_free_blocks),
            when(moment.device.at(worst.event)),
        )
    table.print(console)


def fragmentation_json(moment: Moment, top: int) -> dict[str, Any]:
    """The object of ``memscope frag --json``."""
    worst = moment.device.worst_fragmented()
    return {
        "trace": trace_json(moment.device.recording),
        "device": moment.device.index,
        **usage_json(moment),
        "fragmentation": fragmentation_of(moment),
        "most_free": None if worst is None else usage_json(worst),
        "pins": [_pin_json(moment, pin) for pin in (moment.pins(top) if moment.lifetimes.segments_are_known else ())],
        "over_time": _over_time_json(moment),
    }


def _pin_json(moment: Moment, pin: Pin) -> dict[str, Any]:
    return {
        "segment_address": moment.device.trace.metadata.real_address(pin.segment_address),
        "segment_bytes": pin.segment_bytes,
        "is_expandable": pin.is_expandable,
        "is_pool_known": pin.is_pool_known,
        "held_bytes": pin.held_bytes,
        "returned_bytes": pin.returned_bytes,
        "pinning_bytes": pin.pinning_bytes,
        "blocks": [_holder_json(moment, holder) for holder in moment.holders(pin)],
        "n_blocks": len(pin.allocation_ids),
        "rows": list(pin.allocation_ids),
    }


def _holder_json(moment: Moment, holder: Holder) -> dict[str, Any]:
    return {
        "row": holder.row,
        "address": moment.device.trace.metadata.real_address(holder.address),
        "block_bytes": holder.block_bytes,
        "requested_bytes": holder.requested_bytes,
        "category": holder.category.label,
        "owner": holder.owner,
        "site": moment.device.site_of(holder.row),
        "alloc_event": holder.alloc_event,
        "age_events": holder.age_events,
        "age_ns": holder.age_ns,
        "step": holder.step,
    }


def _over_time_json(moment: Moment) -> dict[str, Any] | None:
    """The series in a few numbers and a coarse outline; None where it was not measured."""
    device = moment.device
    summary = device.fragmentation_over_time
    outline = device.fragmentation_outline(_N_OUTLINE_JSON)
    if summary is None or outline is None:
        return None
    content = asdict(summary)
    content["efficiency_frac"] = summary.efficiency_frac
    for name in ("lowest_utilisation_event", "smallest_largest_request_event"):
        where = describe_moment(device.trace, content[name]) if content[name] != NONE_ID else ""
        content[name.replace("_event", "_where")] = where or None
    content["worst"] = [_worst_json(moment, worst) for worst in summary.worst]
    columns = {name: values.tolist() for name, values in outline.columns().items()}
    if np.any(outline.largest_request_bytes == NONE_ID):
        columns["largest_request_bytes"] = None
    content["outline"] = columns
    return content


def _worst_json(moment: Moment, worst: WorstMoment) -> dict[str, Any]:
    where = describe_moment(moment.device.trace, worst.event)
    return {**asdict(worst), "utilisation_frac": worst.utilisation_frac, "where": where or None}
