"""Memory over events or time: a stack of categories under the lines of allocated, reserved and capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.analysis import Analysis
from memscope.figures.frame import ByteAxis, bare_axis, byte_axis, empty_figure, empty_note, quiet_axis
from memscope.figures.labels import row_label
from memscope.figures.ledger import hatch
from memscope.figures.theme import Theme
from memscope.figures.timeline_data import TimelineData, timeline_data, x_of_events
from memscope.figures.timeline_labels import add_marks, capacity_line, capacity_note, floats, layer_names
from memscope.figures.timeline_marks import mark_shapes, strip_height
from memscope.trace.schema import NONE_ID

_CAPACITY_IN_SIGHT = 1.6
"""A capacity up to this many times the highest line is drawn to scale; a higher one is named at the top edge."""


def timeline_figure(
    analysis: Analysis,
    device: int,
    theme: Theme,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    moment: int | None = None,
    height: int | None = 420,
) -> go.Figure:
    """Draw a device's timeline.

    Shape 0 is always the line of the moment, so that it can be moved without drawing the rest again.

    Parameters
    ----------
    axis
        ``event`` or ``time``.
    window
        Visible range of the axis, in its unit; only what lies in it is drawn, in as much detail as fits.
    moment
        Event after which the line of the moment stands.
    """
    if not analysis.device(device).n_events:
        note = empty_note("no events were recorded: only one moment is known", theme)
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])
    data = timeline_data(analysis, device, axis=axis, window=window)
    low, high = window or (float(data.x[0]), float(data.x[-1]))
    frame = timeline_frame(analysis, data, theme, highest_bytes=0, low=low, high=high, height=height)
    add_layers(frame.figure, data, theme, frame.scale)
    add_lines(frame.figure, data, theme, frame.scale)
    add_marks(frame.figure, analysis, data, theme, frame.scale)
    names = layer_names(data, theme, frame.scale, frame.top_bytes, low, high)
    return finished(frame, analysis, data, theme, moment=moment, notes=names)


@dataclass(frozen=True, slots=True)
class TimelineFrame:
    """A figure with its axes, before anything is drawn in it.

    Attributes
    ----------
    scale
        Of the bytes.
    top_bytes
        What the highest line, or the capacity where that is in sight, stands for.
    low, high
        Visible range of the horizontal axis.
    """

    figure: go.Figure
    scale: ByteAxis
    top_bytes: int
    low: float
    high: float
    capacity_bytes: int | None
    is_capacity_in_sight: bool


def timeline_frame(
    analysis: Analysis,
    data: TimelineData,
    theme: Theme,
    *,
    highest_bytes: int,
    low: float,
    high: float,
    height: int | None,
) -> TimelineFrame:
    """Make the axes of a picture over a device's run.

    Parameters
    ----------
    highest_bytes
        What must fit beside PyTorch's own series, 0 if nothing.
    """
    capacity = analysis.trace.metadata.device_total_bytes.get(data.device)
    reserved = 0 if data.reserved_bytes is None else data.reserved_bytes.max()
    highest = int(max(data.active_bytes.max(), reserved, highest_bytes, 1))
    is_in_sight = capacity is not None and capacity <= _CAPACITY_IN_SIGHT * highest
    top = max(highest, capacity or 0) if is_in_sight else highest
    scale = byte_axis(int(top * 1.06))
    figure = empty_figure(
        theme,
        height,
        margin={"l": 72, "r": 24, "t": 10 + strip_height(data, low, high), "b": 34},
        hovermode="x unified",
        dragmode="zoom",
        xaxis=_x_axis(data, theme, low, high),
        yaxis=quiet_axis(
            theme,
            showgrid=True,
            range=[0, top * 1.08 / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            fixedrange=True,
        ),
    )
    return TimelineFrame(figure, scale, top, low, high, capacity, is_in_sight)


def finished(
    frame: TimelineFrame,
    analysis: Analysis,
    data: TimelineData,
    theme: Theme,
    *,
    moment: int | None,
    notes: Sequence[dict[str, Any]],
) -> go.Figure:
    """Add what stands around the series: the moment's line as shape 0, steps, phases, the capacity, and notes."""
    shapes, strip_notes = mark_shapes(analysis, data, theme, frame.low, frame.high)
    written = [*strip_notes, *notes]
    if frame.capacity_bytes is not None:
        written.append(capacity_note(frame.capacity_bytes, frame.is_capacity_in_sight, theme, frame.scale))
        if frame.is_capacity_in_sight:
            shapes.append(capacity_line(frame.capacity_bytes, theme, frame.scale))
    x = x_of_events(analysis, data.device, data.axis)
    frame.figure.update_layout(
        shapes=[moment_shape(x, analysis, data.device, moment, theme), *shapes],
        annotations=[*frame.figure.layout.annotations, *written],
    )
    return frame.figure


def moment_shape(x: np.ndarray, analysis: Analysis, device: int, moment: int | None, theme: Theme) -> dict[str, Any]:
    """The vertical line of the moment; ``x`` is from :func:`~memscope.figures.timeline_data.x_of_events`."""
    usage = analysis.device(device).usage
    index = 0 if moment is None or moment == NONE_ID else usage.index_of(moment)
    at = float(x[index])
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": at,
        "x1": at,
        "y0": 0,
        "y1": 1,
        "line": {"color": theme.ink, "width": 1.5},
        "visible": moment is not None,
    }


def _x_axis(data: TimelineData, theme: Theme, low: float, high: float) -> dict[str, Any]:
    is_time = data.axis == "time"
    return quiet_axis(
        theme,
        range=[low, high],
        tickformat=".6~f" if is_time else ",d",
        ticksuffix=" s" if is_time else "",
        nticks=8,
        showspikes=True,
        spikemode="across",
        spikesnap="cursor",
        spikethickness=1,
        spikedash="solid",
        spikecolor=theme.muted,
        unifiedhovertitle={"text": "%{x:.6~f} s" if is_time else "after event %{x:,d}"},
    )


def add_layers(figure: go.Figure, data: TimelineData, theme: Theme, scale: ByteAxis) -> None:
    """Stack the layers that hold anything."""
    x = data.x
    for name, values in data.layers.items():
        if not values.any():
            continue
        figure.add_scatter(
            x=x,
            y=floats(values, scale),
            name=row_label(name),
            stackgroup="active",
            mode="lines",
            line={"width": 0, "shape": "hv", "color": theme.color(name)},
            fillcolor=theme.color(name),
            fillpattern=hatch(name, theme),
            hovertemplate=f"%{{y:,.1f}} {scale.unit_name}",
        )


def add_lines(figure: go.Figure, data: TimelineData, theme: Theme, scale: ByteAxis) -> None:
    """Draw allocated as a thin line and reserved as a solid one."""
    figure.add_scatter(
        x=data.x,
        y=floats(data.allocated_bytes, scale),
        name="allocated",
        mode="lines",
        line={"width": 1, "shape": "hv", "color": theme.ink},
        opacity=0.75,
        hovertemplate=f"<b>%{{y:,.1f}} {scale.unit_name}</b>",
    )
    if data.reserved_bytes is not None:
        figure.add_scatter(
            x=data.x,
            y=floats(data.reserved_bytes, scale),
            name="reserved",
            mode="lines",
            line={"width": 2, "shape": "hv", "color": theme.ink},
            hovertemplate=f"<b>%{{y:,.1f}} {scale.unit_name}</b>",
        )
