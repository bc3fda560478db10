"""The sizes of the free blocks of a moment, as a histogram of their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from memscope.figures.frame import bare_axis, byte_axis, empty_figure, empty_note, quiet_axis
from memscope.figures.labels import pool_label, stream_label
from memscope.figures.replay_curves import CURVE_COLORS
from memscope.figures.theme import Theme
from memscope.fragmentation.holes import Holes, half_size_bytes
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count

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
    """``38 free blocks, 1.2 GiB: the largest 240.0 MiB, half of the bytes in blocks of 64.0 MiB or more``."""
    half = half_size_bytes(holes)
    if half is None:
        return "No free blocks at this moment"
    n = sum(len(group.size_bytes) for group in holes)
    total = sum(group.total_bytes for group in holes)
    largest = max(int(group.size_bytes[0]) for group in holes)
    if n == 1:
        return f"1 free block of {format_bytes(total)}"
    return (
        f"{format_count(n)} free blocks, {format_bytes(total)}: the largest {format_bytes(largest)}, "
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
                f"block{'s' if counts[position, b] != 1 else ''}, {format_bytes(int(totals[position, b]))}"
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
