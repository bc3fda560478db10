"""The address space at a moment: segments as rows, blocks in the colours of their categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.analysis import Moment
from memscope.figures.frame import bare_axis, empty_figure
from memscope.figures.labels import plain, pool_label, row_label, stream_label
from memscope.figures.ledger import hatch
from memscope.figures.map_layout import KINDS, MERGED, AddressMap, GroupKey, MapGroup, Rectangles, lay_out, map_scale
from memscope.figures.theme import FREE_ROWS, Theme
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_fraction

ROW_PX = 20
_HEADER_ROWS = 1.35
"""Height of a group's heading, in rows."""


def map_figure(
    moment: Moment, theme: Theme, *, scale: dict[GroupKey, int] | None = None, pinned: int | None = None
) -> go.Figure:
    """Draw the address map of a moment.

    The first shapes outline the pinned allocation; bars carry the row of their allocation (or −1) as ``customdata``.

    Parameters
    ----------
    scale
        Row widths from :func:`~memscope.figures.map_layout.map_scale`; computed if not given.
    pinned
        Row of the allocation to outline.
    """
    analysis = moment.analysis
    scale = map_scale(analysis, moment.device) if scale is None else scale
    layout = lay_out(moment.state, analysis.attribution(moment.device), scale)
    lines = layout.n_rows + _HEADER_ROWS * len(layout.groups)
    figure = empty_figure(
        theme,
        int(lines * ROW_PX) + 8,
        margin={"l": 0, "r": 0, "t": 0, "b": 8},
        barmode="overlay",
        hovermode="closest",
        xaxis=bare_axis(range=[0, 1]),
        yaxis=bare_axis(range=[max(lines, 1), 0]),
    )
    y = _row_positions(layout)
    _add_segments(figure, layout, y, theme)
    _add_blocks(figure, moment, layout, y, theme)
    notes = [_heading(moment, group, theme, y) for group in layout.groups]
    figure.update_layout(annotations=notes, shapes=pinned_shapes(layout, pinned, theme))
    return figure


def map_of(moment: Moment, scale: dict[GroupKey, int]) -> AddressMap:
    """The layout that :func:`map_figure` draws."""
    return lay_out(moment.state, moment.analysis.attribution(moment.device), scale)


def pinned_shapes(layout: AddressMap, pinned: int | None, theme: Theme) -> list[dict[str, Any]]:
    """Outlines of the pieces of an allocation; none where it is not drawn by itself."""
    if pinned is None:
        return []
    y = _row_positions(layout)
    pieces = np.flatnonzero(layout.allocation_id[layout.blocks.source] == pinned)
    return [
        {
            "type": "rect",
            "x0": float(layout.blocks.start_frac[i]),
            "x1": float(layout.blocks.end_frac[i]),
            "y0": float(y[layout.blocks.row[i]]) - 0.47,
            "y1": float(y[layout.blocks.row[i]]) + 0.47,
            "line": {"color": theme.ink, "width": 2.5},
        }
        for i in pieces[:200]
    ]


def _row_positions(layout: AddressMap) -> np.ndarray:
    """Vertical middle of each row, leaving room for the headings: float64 (rows,)."""
    y = np.arange(layout.n_rows, dtype=np.float64) + 0.5
    for position, group in enumerate(layout.groups):
        y[group.first_row : group.first_row + group.n_rows] += _HEADER_ROWS * (position + 1)
    return y


def _heading(moment: Moment, group: MapGroup, theme: Theme, y: np.ndarray) -> dict[str, Any]:
    trace = moment.analysis.trace
    pool_id, stream_id, is_large = group.key
    pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
    stream = None if stream_id < 0 else int(trace.stream_handles[stream_id])
    used = format_fraction(group.active_bytes / group.reserved_bytes) if group.reserved_bytes else ""
    text = (
        f"<b>{'large' if is_large else 'small'} blocks</b> · {pool_label(pool)} · {stream_label(stream)} · "
        f"{group.n_segments:,} segment{'s' if group.n_segments != 1 else ''}, {format_bytes(group.reserved_bytes)}, "
        f"{used} in use · row = {format_bytes(group.row_bytes)}"
    )
    return {
        "x": 0,
        "xanchor": "left",
        "y": float(y[group.first_row]) - 0.62,
        "yanchor": "bottom",
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": theme.muted},
    }


def _bars(pieces: Rectangles, chosen: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    base = pieces.start_frac[chosen]
    return {
        "orientation": "h",
        "base": base.astype(np.float32),
        "x": (pieces.end_frac[chosen] - base).astype(np.float32),
        "y": y[pieces.row[chosen]].astype(np.float32),
    }


def _add_segments(figure: go.Figure, layout: AddressMap, y: np.ndarray, theme: Theme) -> None:
    """A border behind each segment, so that its ends can be seen where blocks of two segments meet."""
    every = np.arange(len(layout.segments.row))
    figure.add_bar(
        **_bars(layout.segments, every, y),
        width=0.94,
        marker={"color": theme.surface, "line": {"width": 1, "color": theme.muted}},
        hoverinfo="skip",
    )


def _add_blocks(figure: go.Figure, moment: Moment, layout: AddressMap, y: np.ndarray, theme: Theme) -> None:
    kind = layout.kind[layout.blocks.source]
    for position, name in enumerate(KINDS):
        chosen = np.flatnonzero(kind == position)
        if not len(chosen):
            continue
        source = layout.blocks.source[chosen]
        marker: dict[str, Any] = {
            "color": theme.band,
            "pattern": {"shape": "|", "fgcolor": theme.surface, "size": 3, "solidity": 0.3},
        }
        if name != MERGED:
            marker = {"color": theme.color(name), "pattern": hatch(name, theme)}
        figure.add_bar(
            **_bars(layout.blocks, chosen, y),
            width=0.88,
            name=row_label(name),
            marker=marker | {"line": {"width": 0 if name in FREE_ROWS else 0.6, "color": theme.surface}},
            customdata=layout.allocation_id[source].tolist(),
            hovertext=_hover_texts(moment, layout, source, name),
            hovertemplate="%{hovertext}<extra></extra>",
        )


def _hover_texts(moment: Moment, layout: AddressMap, source: np.ndarray, name: str) -> list[str]:
    made: dict[int, str] = {}
    for i in source.tolist():
        if i not in made:
            made[i] = _hover_text(moment, layout, i, name)
    return [made[i] for i in source.tolist()]


def _hover_text(moment: Moment, layout: AddressMap, position: int, name: str) -> str:
    size = int(layout.size_bytes[position])
    text = f"<b>{format_bytes(size)}</b> "
    if name == MERGED:
        n = int(layout.n_merged[position])
        active = format_bytes(int(layout.active_bytes[position]))
        return f"<b>{n:,} smaller, {format_bytes(size)}</b><br>{active} of it in use"
    text += row_label(name)
    row = int(layout.allocation_id[position])
    if row != NONE_ID:
        analysis = moment.analysis
        owner = analysis.trace.string(int(analysis.attribution(moment.device).owner_id[row]))
        site = moment.site_of(row)
        text += "".join(f"<br>{plain(line, 72)}" for line in (owner, site) if line)
    return f"{text}<br>{int(layout.address[position]):#x}"
