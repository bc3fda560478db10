"""Memory over events or time: a stack of categories under the lines of allocated, reserved and capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.device.device import Device
from memscope.figures.ledger import hatch
from memscope.figures.theme import ByteAxis, Theme, bare_axis, byte_axis, empty_figure, empty_note, quiet_axis
from memscope.figures.timeline_data import TimelineData, timeline_data, x_of_events
from memscope.trace.marks import Span
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes
from memscope.words.labels import plain, row_label

_MIN_LABEL_FRAC = 0.045
"""Height of a layer's name, with some air, as a share of the axis."""
_CHARACTER_FRAC = 0.0108
"""Width of a character, as a share of the axis."""
_N_CANDIDATES = 48
_CENTRING = 0.15
"""How much of its room a place near the edge must have more than one in the middle to carry the name."""
_LATE_FRAC = 0.8
"""From here on the peak's label stands to its left."""


def floats(values: np.ndarray, scale: ByteAxis) -> np.ndarray:
    """Bytes in the unit of a scale, as short floats: float32 (m,)."""
    return (values / scale.unit_bytes).astype(np.float32)


def add_marks(figure: go.Figure, data: TimelineData, theme: Theme, scale: ByteAxis) -> None:
    """Mark the peak of allocated bytes and every out-of-memory error that is in sight."""
    position = int(np.searchsorted(data.event, data.peak_event))
    if position < len(data.event) and data.event[position] == data.peak_event:
        _add_peak(figure, data, position, theme, scale)
    shown = np.flatnonzero(np.isin(data.event, data.oom_events))
    if len(shown):
        line = data.active_bytes if data.reserved_bytes is None else data.reserved_bytes
        figure.add_scatter(
            x=data.x[shown],
            y=floats(line[shown], scale),
            mode="markers",
            name="out of memory",
            marker={"symbol": "x", "size": 10, "color": theme.red, "line": {"width": 1, "color": theme.surface}},
            customdata=[format_bytes(int(data.device.trace.size_bytes[event])) for event in data.event[shown]],
            hovertemplate="asked for %{customdata}",
            cliponaxis=False,
        )


def _add_peak(figure: go.Figure, data: TimelineData, position: int, theme: Theme, scale: ByteAxis) -> None:
    size = int(data.allocated_bytes[position])
    x, y = float(data.x[position]), size / scale.unit_bytes
    is_late = x - float(data.x[0]) > _LATE_FRAC * float(data.x[-1] - data.x[0])
    outline = {"width": 1.5, "color": theme.surface}
    marker = {"symbol": "triangle-up", "size": 11, "color": theme.ink, "line": outline}
    figure.add_scatter(x=[x], y=[y], mode="markers", marker=marker, hoverinfo="skip", cliponaxis=False)
    figure.add_annotation(
        x=x,
        y=y,
        text=f"<b>peak {format_bytes(size)}</b>",
        showarrow=False,
        xanchor="right" if is_late else "left",
        xshift=-8 if is_late else 8,
        yanchor="top",
        yshift=2,
        bgcolor=theme.surface,
        borderpad=2,
        opacity=0.92,
        font={"color": theme.ink, "size": 12},
    )


def layer_names(
    data: TimelineData, theme: Theme, scale: ByteAxis, top: int, low: float, high: float
) -> list[dict[str, Any]]:
    """Name each layer where it has most room for its name, if it has enough anywhere."""
    notes = []
    below = np.zeros(len(data.x), np.int64)
    for name, values in data.layers.items():
        above = below + values
        if int(values.max(initial=0)) >= _MIN_LABEL_FRAC * top:
            label = row_label(name)
            half = (high - low) * _CHARACTER_FRAC * (len(label) + 1) / 2
            x, y, room = _roomiest(data.x, below, above, half, np.linspace(low + half, high - half, _N_CANDIDATES))
            if room >= _MIN_LABEL_FRAC * top:
                font = {"color": theme.ink_on(name), "size": 12}
                notes.append({"x": x, "y": y / scale.unit_bytes, "text": label, "showarrow": False, "font": font})
        below = above
    return notes


def _roomiest(
    x: np.ndarray, below: np.ndarray, above: np.ndarray, half_width: float, candidates: np.ndarray
) -> tuple[float, float, float]:
    """Where a label of some width has most height inside a layer: its middle, and that height."""
    best, best_score = (0.0, 0.0, -1.0), -1.0
    centre = float(candidates[len(candidates) // 2])
    for middle in candidates.tolist():
        begin = max(int(np.searchsorted(x, middle - half_width, side="right")) - 1, 0)
        end = int(np.searchsorted(x, middle + half_width, side="right"))
        if end <= begin:
            continue
        floor, ceiling = float(below[begin:end].max()), float(above[begin:end].min())
        score = (ceiling - floor) * (1 - _CENTRING * abs(middle - centre) / max(centre - candidates[0], 1e-12))
        if score > best_score:
            best, best_score = (middle, (floor + ceiling) / 2, ceiling - floor), score
    return best


def capacity_line(capacity: int, theme: Theme, scale: ByteAxis) -> dict[str, Any]:
    """The dashed line of the device's memory."""
    y = capacity / scale.unit_bytes
    line = {"color": theme.muted, "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def capacity_note(capacity: int, is_in_sight: bool, theme: Theme, scale: ByteAxis) -> dict[str, Any]:
    """The name of that line: on it, or at the top edge where the line is out of sight."""
    note: dict[str, Any] = {
        "xref": "paper",
        "x": 0.005,
        "xanchor": "left",
        "showarrow": False,
        "font": {"color": theme.muted, "size": 12},
    }
    if is_in_sight:
        return note | {
            "y": capacity / scale.unit_bytes,
            "yanchor": "bottom",
            "text": f"capacity {format_bytes(capacity)}",
        }
    return note | {"yref": "paper", "y": 1, "yanchor": "top", "text": f"↑ capacity {format_bytes(capacity)}, above"}


_STRIP_PX = 20
_MAX_DEPTH = 2
_MAX_SPANS = 80
_PLOT_PX = 680
_CHARACTER_PX = 7.4


def strip_height(data: TimelineData, low: float, high: float) -> int:
    """Pixels that the strips above the plot take."""
    del low, high
    return _STRIP_PX * len(_strips(data))


def _strips(data: TimelineData) -> list[tuple[Span, ...]]:
    """The strips from bottom to top: phases by depth, innermost lowest, then the steps.

    Profilers mark a step as a phase too; such a phase is drawn once, as the step.
    """
    step_labels = {span.label for span in data.steps}
    phases = [span for span in data.phases if span.label not in step_labels]
    depths = sorted({span.depth for span in phases}, reverse=True)[-_MAX_DEPTH:]
    strips = [tuple(span for span in phases if span.depth == depth) for depth in depths]
    return [*strips, data.steps] if data.steps else strips


def mark_shapes(
    data: TimelineData, theme: Theme, low: float, high: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shapes and annotations of the steps and phases that can be seen in ``low … high``."""
    x = x_of_events(data.device, data.axis)
    first = data.device.lifetimes.first_event
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for row, spans in enumerate(_strips(data)):
        is_steps = spans is data.steps
        drawn = _visible(spans, x, first, low, high)
        for position, (span, begin, end) in enumerate(drawn):
            shapes.append(_strip_shape(begin, end, row, position, theme))
            if is_steps or len(drawn) <= _MAX_SPANS // 2:
                shapes.append(_bound_shape(begin, theme))
            label = _label(span, is_steps)
            room = (end - begin) / (high - low) * _PLOT_PX / _CHARACTER_PX - 1
            if room >= min(len(label), 4):
                notes.append(_strip_note((begin + end) / 2, row, plain(label, max(int(room), 3)), theme))
    return shapes, notes


def _label(span: Span, is_step: bool) -> str:
    return f"step {span.label}" if is_step and not span.label.lower().startswith("step") else span.label


def _visible(
    spans: Sequence[Span], x: np.ndarray, first: int, low: float, high: float
) -> list[tuple[Span, float, float]]:
    """The widest spans inside the visible range, with their ends in its unit, in order."""
    found = []
    for span in spans:
        begin = float(x[np.clip(span.begin - first, 0, len(x) - 1)])
        end = float(x[np.clip(span.end - first, 0, len(x) - 1)])
        begin, end = max(begin, low), min(end, high)
        if end > begin:
            found.append((span, begin, end))
    found = sorted(found, key=lambda item: item[1] - item[2])[:_MAX_SPANS]
    return sorted(found, key=lambda item: item[1])


def _strip_shape(begin: float, end: float, row: int, position: int, theme: Theme) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x",
        "x0": begin,
        "x1": end,
        "yref": "paper",
        "ysizemode": "pixel",
        "yanchor": 1,
        "y0": row * _STRIP_PX + 3,
        "y1": (row + 1) * _STRIP_PX + 1,
        "line": {"width": 1, "color": theme.surface},
        "fillcolor": theme.faint if position % 2 else theme.grid,
        "layer": "below",
    }


def _bound_shape(at: float, theme: Theme) -> dict[str, Any]:
    line = {"color": theme.faint, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _strip_note(middle: float, row: int, text: str, theme: Theme) -> dict[str, Any]:
    return {
        "x": middle,
        "xref": "x",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "yshift": row * _STRIP_PX + 1,
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": theme.muted},
    }


_CAPACITY_IN_SIGHT = 1.6
"""A capacity up to this many times the highest line is drawn to scale; a higher one is named at the top edge."""


def timeline_figure(
    device: Device,
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
    if not device.n_events:
        note = empty_note("no events were recorded: only one moment is known", theme)
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])
    data = timeline_data(device, axis=axis, window=window)
    low, high = window or (float(data.x[0]), float(data.x[-1]))
    frame = timeline_frame(data, theme, highest_bytes=0, low=low, high=high, height=height)
    add_layers(frame.figure, data, theme, frame.scale)
    add_lines(frame.figure, data, theme, frame.scale)
    add_marks(frame.figure, data, theme, frame.scale)
    names = layer_names(data, theme, frame.scale, frame.top_bytes, low, high)
    return finished(frame, data, theme, moment=moment, notes=names)


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
    capacity = data.device.trace.metadata.device_total_bytes.get(data.device.index)
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
    data: TimelineData,
    theme: Theme,
    *,
    moment: int | None,
    notes: Sequence[dict[str, Any]],
) -> go.Figure:
    """Add what stands around the series: the moment's line as shape 0, steps, phases, the capacity, and notes."""
    shapes, strip_notes = mark_shapes(data, theme, frame.low, frame.high)
    written = [*strip_notes, *notes]
    if frame.capacity_bytes is not None:
        written.append(capacity_note(frame.capacity_bytes, frame.is_capacity_in_sight, theme, frame.scale))
        if frame.is_capacity_in_sight:
            shapes.append(capacity_line(frame.capacity_bytes, theme, frame.scale))
    x = x_of_events(data.device, data.axis)
    frame.figure.update_layout(
        shapes=[moment_shape(x, data.device, moment, theme), *shapes],
        annotations=[*frame.figure.layout.annotations, *written],
    )
    return frame.figure


def moment_shape(x: np.ndarray, device: Device, moment: int | None, theme: Theme) -> dict[str, Any]:
    """The vertical line of the moment; ``x`` is from :func:`~memscope.figures.timeline_data.x_of_events`."""
    usage = device.usage
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
