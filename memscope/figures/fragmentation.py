"""Fragmentation over events: what is in use and free, and below it the largest request that would succeed."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.analysis import Analysis
from memscope.figures.fragmentation_data import ACTIVE, FragmentationData, fragmentation_data
from memscope.figures.frame import ByteAxis, bare_axis, byte_axis, empty_figure, empty_note, quiet_axis
from memscope.figures.labels import row_label
from memscope.figures.ledger import hatch
from memscope.figures.theme import Theme
from memscope.figures.timeline import TimelineFrame, finished, timeline_frame
from memscope.figures.timeline_data import timeline_data
from memscope.figures.timeline_labels import floats
from memscope.units import format_bytes

_UPPER = (0.34, 1.0)
_LOWER = (0.0, 0.26)
"""Shares of the picture's height."""
_REQUEST_IN_SIGHT = 1.6
"""What the driver could add is drawn to scale up to this many times what is cached; beyond it is named."""
_N_LARGE_MARKS = 40
"""Failed requests in sight, beyond which their crosses are small."""


def fragmentation_figure(
    analysis: Analysis,
    device: int,
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
    if not analysis.device(device).n_events:
        return _blank("no events were recorded: only one moment is known", theme, height)
    data = fragmentation_data(analysis, device, axis=axis, window=window)
    if data is None:
        return _blank("not measured: the segments were not recorded, or the events do not fit them", theme, height)
    run = timeline_data(analysis, device, axis=axis, window=window, n_buckets=2)
    low, high = window or (float(run.x[0]), float(run.x[-1]))
    highest = int(data.reserved_bytes.max())
    frame = timeline_frame(analysis, run, theme, highest_bytes=highest, low=low, high=high, height=height)
    frame.figure.update_layout(
        yaxis={"domain": list(_UPPER)}, xaxis={"anchor": "y2"}, hoversubplots="axis", margin={"t": 18}
    )
    _add_layers(frame.figure, data, theme, frame.scale)
    _add_ooms(frame, data, theme)
    notes = [*_add_requests(frame.figure, data, theme), _worst_note(analysis, device, data, frame, theme)]
    return finished(frame, analysis, run, theme, moment=moment, notes=[note for note in notes if note is not None])


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


def _worst_note(
    analysis: Analysis, device: int, data: FragmentationData, frame: TimelineFrame, theme: Theme
) -> dict[str, Any] | None:
    """Name the moment with most free memory that cannot go back, where it is in sight."""
    summary = analysis.fragmentation_over_time(device)
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
