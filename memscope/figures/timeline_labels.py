"""What is written into a timeline: the peak, out-of-memory errors, the capacity, and the names of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.analysis import Analysis
from memscope.figures.frame import ByteAxis
from memscope.figures.labels import row_label
from memscope.figures.theme import Theme
from memscope.figures.timeline_data import TimelineData
from memscope.units import format_bytes

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


def add_marks(figure: go.Figure, analysis: Analysis, data: TimelineData, theme: Theme, scale: ByteAxis) -> None:
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
            customdata=[format_bytes(int(analysis.trace.size_bytes[event])) for event in data.event[shown]],
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
