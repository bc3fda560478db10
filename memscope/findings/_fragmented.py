"""Fragmentation that costs memory: free memory that live blocks keep, and pools that only grow."""

from __future__ import annotations

import numpy as np

from memscope.advise.confs import variable_name
from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, sites_by_bytes
from memscope.findings.returned import Returned
from memscope.fragmentation.pins import Pin, find_pins
from memscope.fragmentation.series import FragmentationSeries, GroupSeries, OverallSeries
from memscope.lifetimes.rules import large_segment_bytes
from memscope.replay.compare import NEGLIGIBLE_FRAC
from memscope.replay.config import forbidden_options
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_fraction, format_handle, format_items

NEAR_PEAK_FRAC = 0.9
"""Fragmentation is judged where more memory was taken and reserved then came to at least this share of its highest."""
WARNING_PINNED_FRAC = 0.10
SEVERE_PINNED_FRAC = 0.25
"""Share of reserved memory that is free and cannot go back. Planned layouts leave less than 5 % of it unused for dense
models, online allocators up to 43 % (STAlloc, arXiv 2507.16274): a tenth is worth a look, a quarter is much."""
MIN_PINNED_BYTES = 64 << 20
"""Three of PyTorch's segments of 20 MiB partly in use are not fragmentation but its granularity."""
MIN_IDLE_BYTES = 256 << 20
WARNING_IDLE_FRAC = 0.25
"""Share of the highest reserved memory that is worth a word although it could go back."""
MIN_GROWN_BYTES = 64 << 20
MIN_GROWN_FRAC = 0.05
MIN_GROWTHS = 3
"""A pool must have grown so often in the second half: one segment more may be one odd request."""


def find_fragmentation(device: Device, returned: Returned) -> list[Finding]:
    """Free memory that live blocks kept, when more was taken from the driver or could not be had.

    Free memory in between, as after each step, costs nothing: the next step uses it again.
    """
    series = device.fragmentation_series
    if series is None:
        return []
    judged = _judged_rows(device, series.overall)
    # What only a private pool's life keeps is left out.
    pinned = (series.overall.free_in_split_segments_bytes - series.free_in_private_pools_bytes())[judged]
    most = int(np.argmax(pinned))
    size, event = int(pinned[most]), int(series.overall.event[judged[most]])
    moment = series.at(event).overall
    reserved = moment.reserved_bytes
    if size < max(MIN_PINNED_BYTES, WARNING_PINNED_FRAC * reserved):
        return _idle(device, series, returned)
    share = size / reserved
    trace = device.trace
    pins = find_pins(
        device.lifetimes.state_at(event), 10, large_handle_bytes=large_segment_bytes(trace.metadata.alloc_conf)
    )
    rows = [row_ for pin in pins for row_ in pin.allocation_ids]
    chosen = np.array(rows, np.int64)
    first = pins[0] if pins else None
    held = (
        ""
        if first is None
        else (
            f" The worst pin: {format_items(len(first.allocation_ids), 'block')}, {_together(first)}, "
            f"hold{'s' if len(first.allocation_ids) == 1 else ''} {format_bytes(first.held_bytes)}."
        )
    )
    fix, returned_bytes = _less_fragmented(device, returned)
    return [
        Finding(
            kind="fragmentation",
            severity=Severity.SEVERE if share >= SEVERE_PINNED_FRAC else Severity.WARNING,
            device=device.index,
            title=f"{format_bytes(size)} free but pinned when more was taken, {format_fraction(share)} of reserved",
            text=(f"Live blocks keep this memory from going back to the driver.{held}"),
            bytes=size,
            event=event,
            view="map",
            rows=tuple(rows[:20]),
            sites=sites_by_bytes(device, chosen, device.allocations.block_bytes[chosen]) if rows else (),
            evidence={
                "reserved_bytes": reserved,
                "active_bytes": moment.active_bytes,
                "largest_free_block_bytes": moment.largest_free_block_bytes,
                "n_free_blocks": moment.n_free_blocks,
                "worst_pin_returned_bytes": None if first is None else first.returned_bytes,
            },
            fix=fix,
            returned_bytes=returned_bytes,
        )
    ]


def _idle(device: Device, series: FragmentationSeries, returned: Returned) -> list[Finding]:
    """Cached memory that nothing used, however full it was, while most was reserved, where it was not pinned."""
    is_highest = series.overall.reserved_bytes == series.overall.reserved_bytes.max()
    row = int(np.argmax(np.where(is_highest, series.overall.active_bytes, -1)))
    reserved, event = int(series.overall.reserved_bytes[row]), int(series.overall.event[row])
    private = int(series.free_in_private_pools_bytes()[row])
    idle = reserved - int(series.overall.active_bytes[row]) - private
    if idle < max(MIN_IDLE_BYTES, WARNING_IDLE_FRAC * reserved):
        return []
    fix, returned_bytes = _less_fragmented(device, returned)
    return [
        Finding(
            kind="idle-cache",
            severity=Severity.INFO,
            device=device.index,
            title=f"{format_bytes(idle)} idle while most was reserved, {format_fraction(idle / reserved)} of it",
            text=(
                "What is cached did not fit what was asked for. PyTorch gives whole unused segments back before a "
                "request fails, but until then no other process can have them."
            ),
            bytes=idle,
            event=event,
            view="map",
            evidence={"reserved_bytes": reserved, "active_bytes": int(series.overall.active_bytes[row])},
            fix=fix,
            returned_bytes=returned_bytes,
        )
    ]


def _less_fragmented(device: Device, returned: Returned) -> tuple[str, int | None]:
    """The switch that ends most fragmentation, where it is not on and a replay says that it does; else the search."""
    is_on = device.trace.metadata.allocator_settings.get("expandable_segments")
    if not is_on and "expandable_segments" not in forbidden_options(device.trace):
        saved = returned.if_expandable()
        if saved and returned.peak_bytes is not None and saved > NEGLIGIBLE_FRAC * returned.peak_bytes:
            return f"set {variable_name(device.trace.metadata)}=expandable_segments:True", saved
    return "none by a switch; memscope tune searches the other allocator settings", None


def _judged_rows(device: Device, table: OverallSeries) -> Int64Array:
    """Rows before memory was taken near the highest, at failed requests, and at the peak of active memory."""
    reserved = table.reserved_bytes
    grows = np.flatnonzero((np.diff(reserved) > 0) & (reserved[1:] >= NEAR_PEAK_FRAC * reserved.max()))
    del reserved
    failed = np.searchsorted(table.event, device.oom_events, side="right") - 1
    return np.concatenate([grows, failed, [np.argmax(table.active_bytes)]]).astype(np.int64)


def _together(pin: Pin) -> str:
    """The size of a pin's blocks, and that it is that of all of them where there are several."""
    return f"{format_bytes(pin.pinning_bytes)}{' together' if len(pin.allocation_ids) > 1 else ''}"


def find_growing_pools(device: Device, returned: Returned) -> list[Finding]:
    """Pools that took memory to the end and gave none back, by more than what was in use in them grew."""
    series = device.fragmentation_series
    if series is None:
        return []
    middle = series.first_event + (series.end_event - series.first_event) // 2
    found = [_growing(device, group, middle, returned) for group in series.groups]
    return [finding for finding in found if finding is not None]


def _growing(device: Device, group: GroupSeries, middle: int, returned: Returned) -> Finding | None:
    table = group.table
    change = np.diff(table.reserved_bytes)
    late = table.event[1:] >= middle
    n_growths = int(np.count_nonzero(late & (change > 0)))
    if np.any(change < 0) or n_growths < MIN_GROWTHS:
        return None
    row = table.row_of(middle)
    before, end = int(table.reserved_bytes[row]), int(table.reserved_bytes[-1])
    needed_before, needed_after = int(table.active_bytes[: row + 1].max()), int(table.active_bytes[row:].max())
    excess = (end - before) - max(needed_after - needed_before, 0)
    if excess < max(MIN_GROWN_BYTES, MIN_GROWN_FRAC * end):
        return None
    name = _group_words(group)
    fix, returned_bytes = _less_fragmented(device, returned)
    return Finding(
        kind="growing-pool",
        severity=Severity.WARNING,
        device=device.index,
        title=f"{name} only grows: {format_bytes(end - before)} more in the second half of the trace",
        text=(
            f"Most that was in use at once grew by {format_bytes(max(needed_after - needed_before, 0))} only; "
            f"{format_bytes(excess)} were taken because what was free did not fit."
        ),
        bytes=excess,
        event=int(table.event[-1]),
        view="timeline",
        evidence={
            "reserved_bytes_at_half": before,
            "reserved_bytes_at_end": end,
            "n_growths_in_second_half": n_growths,
            "size_class": group.size_class,
            "stream": group.stream,
            "pool": None if group.pool is None else f"{group.pool[0]}, {group.pool[1]}",
        },
        fix=fix,
        returned_bytes=returned_bytes,
    )


def _group_words(group: GroupSeries) -> str:
    pool = {None: "A pool", (0, 0): "The default pool"}.get(group.pool, f"Private pool {group.pool}")
    stream = "" if group.stream in (None, 0) else f", stream {format_handle(group.stream)}"
    return f"{pool} ({group.size_class}{stream})"
