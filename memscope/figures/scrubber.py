"""The whole run in a strip: what the dashboard's scrubber shows under its handle."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from memscope.device.device import Device
from memscope.figures.frame import bare_axis, empty_figure, empty_note
from memscope.figures.theme import Theme
from memscope.figures.timeline_data import timeline_data
from memscope.trace.schema import MarkKind


def scrubber_figure(device: Device, theme: Theme, height: int = 66) -> go.Figure:
    """Draw a device's whole run over events, edge to edge: the plot's width is exactly events 0 to n."""
    if not device.n_events:
        note = empty_note("no events were recorded: only one moment is known", theme)
        margin = {"l": 0, "r": 0, "t": 0, "b": 0}
        return empty_figure(theme, height, margin=margin, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])
    data = timeline_data(device, n_buckets=160)
    line = data.active_bytes if data.reserved_bytes is None else data.reserved_bytes
    top = float(max(int(line.max()), 1)) * 1.12
    figure = empty_figure(
        theme,
        height,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        hovermode=False,
        xaxis=bare_axis(range=[float(data.x[0]), max(float(data.x[-1]), float(data.x[0]) + 1)]),
        yaxis=bare_axis(range=[0, top]),
    )
    for name, values in data.layers.items():
        if values.any():
            figure.add_scatter(
                x=data.x,
                y=values.astype(np.float32),
                stackgroup="active",
                mode="lines",
                line={"width": 0, "shape": "hv"},
                fillcolor=theme.color(name),
                opacity=0.9,
            )
    if data.reserved_bytes is not None:
        line_style = {"width": 1.5, "shape": "hv", "color": theme.ink}
        figure.add_scatter(x=data.x, y=data.reserved_bytes.astype(np.float32), mode="lines", line=line_style)
    _add_marks(figure, device, theme, top)
    peak = int(np.flatnonzero(data.event == data.peak_event)[0])
    marker = {"symbol": "triangle-up", "size": 9, "color": theme.ink, "line": {"width": 1, "color": theme.surface}}
    y = [float(data.allocated_bytes[peak])]
    figure.add_scatter(x=[float(data.x[peak])], y=y, mode="markers", marker=marker, cliponaxis=False)
    ooms = np.flatnonzero(np.isin(data.event, data.oom_events))
    if len(ooms):
        cross = {"symbol": "x", "size": 8, "color": theme.red, "line": {"width": 1, "color": theme.surface}}
        figure.add_scatter(x=data.x[ooms], y=line[ooms], mode="markers", marker=cross, cliponaxis=False)
    return figure


def _add_marks(figure: go.Figure, device: Device, theme: Theme, top: float) -> None:
    """Ticks at the foot: tall where a step ends, short where a phase begins."""
    marks, lifetimes = device.trace.marks, device.lifetimes
    for kind, share, color in ((MarkKind.PHASE_BEGIN, 0.08, theme.muted), (MarkKind.STEP, 0.18, theme.ink)):
        chosen = (marks.kind == kind) & (marks.event >= lifetimes.first_event) & (marks.event <= lifetimes.end_event)
        at = np.unique(marks.event[chosen])[:400] - 1.0
        if not len(at):
            continue
        x = np.repeat(at, 3)
        y = np.tile([0.0, share * top, np.nan], len(at))
        figure.add_scatter(x=x, y=y, mode="lines", line={"width": 1, "color": color})
