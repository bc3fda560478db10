"""Fragmentation over events: what is in use and free, and below it the largest request that would succeed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE
from memscope.device.device import Device
from memscope.figures.ledger import hatch
from memscope.figures.replay import CURVE_COLORS
from memscope.figures.theme import (
    ByteAxis,
    Theme,
    bare_axis,
    byte_axis,
    empty_figure,
    empty_note,
    extreme_indices,
    quiet_axis,
)
from memscope.figures.timeline import TimelineFrame, finished, floats, timeline_frame
from memscope.figures.timeline_data import drawn_ooms, index_window, timeline_data, x_of_events
from memscope.fragmentation.holes import Holes, half_size_bytes
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count
from memscope.words.labels import pool_label, row_label, stream_label

ACTIVE = "active"
"""Name of the layer of blocks in use or pending."""


@dataclass(frozen=True, slots=True)
class FragmentationData:
    """Step functions drawn at the same points: each holds until the next one.

    Attributes
    ----------
    event
        int64 (m,): the event after which each point stands, −1 for the start; the last may repeat the one before it,
        where the device's events end.
    x
        float64 (m,): the same as drawn.
    layers
        Name → int64 (m,) bytes, in stacking order: active, then the ledger's rows of free memory. They sum to
        ``reserved_bytes``.
    cached_request_bytes
        int64 (m,): the largest request that would succeed without the driver.
    request_bytes
        int64 (m,): the same with the driver; None where the device's memory is not known.
    oom_x, oom_bytes
        Where requests failed, and what was reserved then: float64 and int64 (k,).
    """

    event: Int64Array
    x: np.ndarray
    layers: dict[str, Int64Array]
    reserved_bytes: Int64Array
    cached_request_bytes: Int64Array
    request_bytes: Int64Array | None
    oom_x: np.ndarray
    oom_bytes: Int64Array


def fragmentation_data(
    device: Device,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    n_buckets: int = 240,
) -> FragmentationData | None:
    """Reduce a device's fragmentation to about ``9 · n_buckets`` points, or fewer; None where it was not measured.

    The peaks and troughs of what is reserved, active, pinned, and of the largest request are kept.

    Parameters
    ----------
    window
        Visible range of the axis, in its own unit; None is everything.
    """
    series = device.fragmentation_series
    if series is None:
        return None
    table, available = series.overall, device.available_bytes
    x = x_of_events(device, axis)
    row_x = x[np.maximum(table.event - series.first_event + 1, 0)]
    private = series.free_in_private_pools_bytes()
    pinned = table.free_in_split_segments_bytes - private
    cached = series.largest_cached_request_bytes()
    begin, end = index_window(row_x, window)
    reserved, active = table.reserved_bytes, table.active_bytes
    guides = [reserved, active, pinned, cached]
    chosen = extreme_indices(guides, begin, end, n_buckets)
    drawn_x, event = row_x[chosen], table.event[chosen].astype(np.int64)
    if end == len(table):
        chosen, drawn_x = np.append(chosen, chosen[-1]), np.append(drawn_x, x[-1])
        event = np.append(event, max(series.end_event - 1, event[-1]))
    ooms = drawn_ooms(device.oom_events)
    return FragmentationData(
        event=event,
        x=drawn_x,
        layers={
            ACTIVE: active[chosen],
            FREE_PINNED: pinned[chosen],
            FREE_PRIVATE_POOLS: private[chosen],
            FREE_RELEASABLE: table.releasable_bytes[chosen],
        },
        reserved_bytes=reserved[chosen],
        cached_request_bytes=cached[chosen],
        request_bytes=None if available is None else series.largest_request_bytes(available)[chosen],
        oom_x=x[ooms - series.first_event + 1],
        oom_bytes=reserved[np.searchsorted(table.event, ooms, side="right") - 1],
    )


_UPPER = (0.34, 1.0)
_LOWER = (0.0, 0.26)
"""Shares of the picture's height."""
_REQUEST_IN_SIGHT = 1.6
"""What the driver could add is drawn to scale up to this many times what is cached; beyond it is named."""
_N_LARGE_MARKS = 40
"""Failed requests in sight, beyond which their crosses are small."""


def fragmentation_figure(
    device: Device,
    theme: Theme,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    moment: int | None = None,
    height: int | None = 420,
) -> go.Figure:
    """Draw a device's fragmentation over its run; shape 0 is always the line of the moment.

    Parameters
    ----------
    axis
        ``event`` or ``time``.
    window
        Visible range of the axis, in its unit.
    moment
        Event after which the line of the moment stands.
    """
    if not device.n_events:
        return _blank("no events were recorded: only one moment is known", theme, height)
    data = fragmentation_data(device, axis=axis, window=window)
    if data is None:
        return _blank("not measured: the segments were not recorded, or the events do not fit them", theme, height)
    run = timeline_data(device, axis=axis, window=window, n_buckets=2)
    low, high = window or (float(run.x[0]), float(run.x[-1]))
    highest = int(data.reserved_bytes.max())
    frame = timeline_frame(run, theme, highest_bytes=highest, low=low, high=high, height=height)
    frame.figure.update_layout(
        yaxis={"domain": list(_UPPER)}, xaxis={"anchor": "y2"}, hoversubplots="axis", margin={"t": 18}
    )
    _add_layers(frame.figure, data, theme, frame.scale)
    _add_ooms(frame, data, theme)
    notes = [*_add_requests(frame.figure, data, theme), _worst_note(device, data, frame, theme)]
    return finished(frame, run, theme, moment=moment, notes=[note for note in notes if note is not None])


def _blank(why: str, theme: Theme, height: int | None) -> go.Figure:
    note = empty_note(why, theme)
    return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])


def _add_layers(figure: go.Figure, data: FragmentationData, theme: Theme, scale: ByteAxis) -> None:
    """Stack what is in use and what is free, under the line of what is reserved."""
    for name, values in data.layers.items():
        if not values.any():
            continue
        color, pattern = (theme.band, {"shape": ""}) if name == ACTIVE else (theme.color(name), hatch(name, theme))
        figure.add_scatter(
            x=data.x,
            y=floats(values, scale),
            name=row_label(name),
            stackgroup="reserved",
            mode="lines",
            line={"width": 0, "shape": "hv", "color": color},
            fillcolor=color,
            fillpattern=pattern,
            hovertemplate=f"%{{y:,.2f}} {scale.unit_name}",
        )
    figure.add_scatter(
        x=data.x,
        y=floats(data.reserved_bytes, scale),
        name="reserved",
        mode="lines",
        line={"width": 2, "shape": "hv", "color": theme.ink},
        hovertemplate=f"<b>%{{y:,.2f}} {scale.unit_name}</b>",
    )


def _add_ooms(frame: TimelineFrame, data: FragmentationData, theme: Theme) -> None:
    seen = (data.oom_x >= frame.low) & (data.oom_x <= frame.high)
    if not seen.any():
        return
    is_crowded = int(seen.sum()) > _N_LARGE_MARKS
    outline = {"width": 0 if is_crowded else 1, "color": theme.surface}
    frame.figure.add_scatter(
        x=data.oom_x[seen],
        y=floats(data.oom_bytes[seen], frame.scale),
        name="out of memory",
        mode="markers",
        marker={"symbol": "x", "size": 5 if is_crowded else 9, "color": theme.red, "line": outline},
        hovertemplate="a request failed",
        cliponaxis=False,
    )


def _add_requests(figure: go.Figure, data: FragmentationData, theme: Theme) -> list[dict[str, Any]]:
    """Draw the largest request that would succeed; the notes that name its lines."""
    cached, whole = data.cached_request_bytes, data.request_bytes
    top = int(cached.max())
    if whole is not None and int(whole.max()) <= _REQUEST_IN_SIGHT * max(top, 1):
        top = int(whole.max())
    top = max(top, 1) if top or whole is None else max(int(whole.max()), 1)
    scale = byte_axis(int(top * 1.06), n_ticks=3)
    figure.update_layout(
        yaxis2=quiet_axis(
            theme,
            showgrid=True,
            domain=list(_LOWER),
            anchor="x",
            range=[0, top * 1.1 / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            fixedrange=True,
        )
    )
    lines = [("without the driver", cached, "solid", 2.0)]
    if whole is not None:
        lines.append(("with the driver", whole, "dash", 1.25))
    for name, values, dash, width in lines:
        figure.add_scatter(
            x=data.x,
            y=floats(values, scale),
            name=f"largest request {name}",
            mode="lines",
            line={"width": width, "shape": "hv", "color": theme.ink if dash == "solid" else theme.muted, "dash": dash},
            hovertemplate=f"%{{y:,.2f}} {scale.unit_name}",
            yaxis="y2",
        )
    text = "largest request that would succeed without the driver"
    if whole is not None:
        text += "; dashed: with it"
        if int(whole.min()) > 1.1 * top:
            text += f" (at least {format_bytes(int(whole.min()))})"
    edge = {"xref": "paper", "x": 0.005, "xanchor": "left", "yref": "paper", "y": _LOWER[1] + 0.005}
    font = {"size": 12, "color": theme.muted}
    return [edge | {"yanchor": "bottom", "text": text, "showarrow": False, "bgcolor": theme.surface, "font": font}]


def _worst_note(device: Device, data: FragmentationData, frame: TimelineFrame, theme: Theme) -> dict[str, Any] | None:
    """Name the moment with most free memory that cannot go back, where it is in sight."""
    summary = device.fragmentation_over_time
    if summary is None or not summary.worst:
        return None
    worst = summary.worst[0]
    found = np.flatnonzero(data.event == worst.event)
    if not len(found) or not frame.low <= float(data.x[found[0]]) <= frame.high:
        return None
    x = float(data.x[found[0]])
    is_late = x - frame.low > 0.7 * (frame.high - frame.low)
    return {
        "x": x,
        "y": (worst.active_bytes + worst.pinned_bytes / 2) / frame.scale.unit_bytes,
        "text": f"<b>worst: {format_bytes(worst.pinned_bytes)} pinned</b>",
        "showarrow": True,
        "arrowhead": 0,
        "arrowwidth": 1.5,
        "arrowcolor": theme.ink,
        "ax": -28 if is_late else 28,
        "ay": 0,
        "xanchor": "right" if is_late else "left",
        "bgcolor": theme.surface,
        "borderpad": 2,
        "opacity": 0.92,
        "font": {"color": theme.ink, "size": 12},
    }


MAX_GROUPS = 5
"""Groups drawn by themselves; the others are one, unless there is only one."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MAX_TICKS = 10


def holes_label(holes: Holes) -> str:
    """Which requests a group of holes can serve: ``large blocks, default pool, default stream``."""
    return f"{holes.size_class} blocks, {pool_label(holes.pool)}, {stream_label(holes.stream)}"


def drawn_holes(holes: Sequence[Holes]) -> list[tuple[str, Int64Array]]:
    """Name and sizes of what is drawn as one: the groups with most free bytes, and the rest together."""
    alone = holes if len(holes) == MAX_GROUPS + 1 else holes[:MAX_GROUPS]
    drawn = [(holes_label(group), group.size_bytes) for group in alone]
    rest = holes[len(alone) :]
    if rest:
        sizes = np.concatenate([group.size_bytes for group in rest])
        drawn.append((f"{format_count(len(rest))} more pools and streams", sizes))
    return drawn


def holes_color(position: int, theme: Theme) -> str:
    """Colour of a group by its place; that of the last is neutral."""
    return CURVE_COLORS[theme.name][position] if position < MAX_GROUPS else theme.band


def holes_finding(holes: tuple[Holes, ...]) -> str:
    """``38 free blocks, 1.2 GiB together: the largest 240.0 MiB, half of the bytes in blocks of 64.0 MiB or more``."""
    half = half_size_bytes(holes)
    if half is None:
        return "No free blocks at this moment"
    n = sum(len(group.size_bytes) for group in holes)
    total = sum(group.total_bytes for group in holes)
    largest = max(int(group.size_bytes[0]) for group in holes)
    if n == 1:
        return f"1 free block of {format_bytes(total)}"
    return (
        f"{format_count(n)} free blocks, {format_bytes(total)} together: the largest {format_bytes(largest)}, "
        f"half of the bytes in blocks of {format_bytes(half)} or more"
    )


def holes_figure(holes: Sequence[Holes], theme: Theme, height: int | None = 200) -> go.Figure:
    """Draw the bytes of free blocks by the power of two that their size lies above; groups are stacked."""
    if not holes:
        note = empty_note("nothing that is reserved is free at this moment", theme)
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])
    drawn = drawn_holes(holes)
    powers = [np.frexp(sizes.astype(np.float64))[1] - 1 for _, sizes in drawn]
    low, high = min(int(p.min()) for p in powers), max(int(p.max()) for p in powers) + 1
    totals, counts = _sums(drawn, powers, low, high)
    scale = byte_axis(int(totals.sum(axis=0).max()), n_ticks=4)
    step = -(-(high - low + 1) // _MAX_TICKS)
    ticks = list(range(low, high + 1, step))
    figure = empty_figure(
        theme,
        height,
        margin={"l": 72, "r": 16, "t": 8, "b": 28},
        barmode="stack",
        bargap=0.08,
        hovermode="closest",
        xaxis=quiet_axis(
            theme, range=[low - 0.4, high + 0.1], tickvals=ticks, ticktext=[_power(t) for t in ticks], fixedrange=True
        ),
        yaxis=quiet_axis(
            theme,
            showgrid=True,
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            range=[0, int(totals.sum(axis=0).max()) * 1.08 / scale.unit_bytes],
            fixedrange=True,
        ),
    )
    for position, (name, _) in enumerate(drawn):
        seen = np.flatnonzero(counts[position])
        figure.add_bar(
            x=(low + seen + 0.5).tolist(),
            y=(totals[position, seen] / scale.unit_bytes).tolist(),
            name=name,
            marker={"color": holes_color(position, theme), "line": {"width": 0}},
            customdata=[
                f"{_power(low + b)} to {_power(low + b + 1)}: {format_count(int(counts[position, b]))} free "
                f"block{'s, together' if counts[position, b] != 1 else ','} {format_bytes(int(totals[position, b]))}"
                for b in seen.tolist()
            ],
            hovertemplate=f"<b>{name}</b><br>%{{customdata}}<extra></extra>",
        )
    return figure


def _sums(
    drawn: list[tuple[str, Int64Array]], powers: list[np.ndarray], low: int, high: int
) -> tuple[Int64Array, Int64Array]:
    """Bytes and numbers of blocks by group and power of two: int64 (groups, high − low) each."""
    totals = np.zeros((len(drawn), high - low), np.int64)
    counts = np.zeros_like(totals)
    for position, ((_, sizes), power) in enumerate(zip(drawn, powers, strict=True)):
        np.add.at(totals[position], power - low, sizes)
        np.add.at(counts[position], power - low, 1)
    return totals, counts


def _power(exponent: int) -> str:
    """A power of two as people write it: ``512 B``, ``2 MiB``."""
    return f"{1 << exponent % 10} {_UNITS[exponent // 10]}"
