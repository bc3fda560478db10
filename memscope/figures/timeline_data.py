"""A device's usage over events, reduced to what a picture can show; and the whole run in the dashboard's scrubber."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.ledger import ROUNDING
from memscope.device.device import Device
from memscope.figures.theme import Theme, bare_axis, empty_figure, empty_note, extreme_indices
from memscope.trace.categories import Category
from memscope.trace.marks import Span, marks_of_device, phase_spans, step_spans
from memscope.trace.schema import MarkKind
from memscope.trace.tables import Int64Array

AXES = ("event", "time")
"""What the horizontal axis can count."""

_MAX_OOMS = 300


@dataclass(frozen=True, slots=True)
class TimelineData:
    """Series drawn at the same indices.

    Attributes
    ----------
    event
        int64 (m,): the event after which each point stands; one less than the device's first for its start.
    x
        float64 (m,): the same as drawn, events or seconds since the device's first event.
    layers
        Ledger row name → int64 (m,) bytes, in stacking order; they sum to ``active_bytes``.
    reserved_bytes
        int64 (m,), or None where the segments were not recorded.
    n_events
        Events in the window that the points stand for.
    """

    device: Device
    axis: str
    event: Int64Array
    x: np.ndarray
    layers: dict[str, Int64Array]
    active_bytes: Int64Array
    allocated_bytes: Int64Array
    reserved_bytes: Int64Array | None
    peak_event: int
    oom_events: Int64Array
    phases: tuple[Span, ...]
    steps: tuple[Span, ...]
    n_events: int


def x_of_events(device: Device, axis: str) -> np.ndarray:
    """Horizontal position of the moment after each event, from the device's start: float64 (n + 1,).

    Times are seconds since the first event; where a recorded clock went back, the latest time so far is taken, because
    the order of events is their position.
    """
    lifetimes = device.lifetimes
    if axis == "event" or not device.has_times:
        return np.arange(lifetimes.first_event - 1, lifetimes.end_event, dtype=np.float64)
    times = device.trace.time_ns[lifetimes.first_event : lifetimes.end_event]
    seconds = (np.maximum.accumulate(times) - times[0]) / 1e9
    return np.concatenate([[0.0], seconds])


def index_window(x: np.ndarray, window: tuple[float, float] | None) -> tuple[int, int]:
    """Half-open range of the indices to draw for a visible range of x, one more on either side."""
    if window is None:
        return 0, len(x)
    low, high = sorted(window)
    begin = max(int(np.searchsorted(x, low, side="left")) - 1, 0)
    end = min(int(np.searchsorted(x, high, side="right")) + 1, len(x))
    return (begin, end) if end - begin > 1 else (0, len(x))


def timeline_data(
    device: Device,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    n_buckets: int = 240,
) -> TimelineData:
    """Reduce a device's usage to about ``5 · n_buckets`` points, or fewer.

    Parameters
    ----------
    window
        Visible range of the axis, in its own unit; None is everything.
    """
    lifetimes = device.lifetimes
    usage, trace = lifetimes.usage, device.trace
    x = x_of_events(device, axis)
    begin, end = index_window(x, window)
    guides = [usage.active_bytes] if usage.reserved_bytes is None else [usage.active_bytes, usage.reserved_bytes]
    oom = device.oom_events
    peak_index = int(np.argmax(usage.allocated_bytes))
    at = oom - lifetimes.first_event + 1
    keep = [peak_index, *drawn_ooms(at[(at >= begin) & (at < end)])]
    chosen = extreme_indices(guides, begin, end, n_buckets, keep)
    layers = {
        category.label: series[chosen]
        for category, series in sorted(device.category_usage.items())
        if isinstance(category, Category)
    }
    active = usage.active_bytes[chosen]
    requested = np.sum(list(layers.values()), axis=0, dtype=np.int64) if layers else np.zeros(len(chosen), np.int64)
    return TimelineData(
        device=device,
        axis=axis,
        event=lifetimes.first_event + chosen - 1,
        x=x[chosen],
        layers=layers | {ROUNDING: active - requested},
        active_bytes=active,
        allocated_bytes=usage.allocated_bytes[chosen],
        reserved_bytes=None if usage.reserved_bytes is None else usage.reserved_bytes[chosen],
        peak_event=usage.event_at(peak_index),
        oom_events=oom,
        phases=_within(phase_spans(trace, lifetimes.device), lifetimes.first_event, lifetimes.end_event),
        steps=_within(step_spans(trace, lifetimes.device), lifetimes.first_event, lifetimes.end_event),
        n_events=end - begin,
    )


def drawn_ooms(ooms: Int64Array) -> Int64Array:
    """The failures to mark: all of them, or of very many so many that lie evenly among them, to the last."""
    if len(ooms) <= _MAX_OOMS:
        return ooms
    return ooms[np.linspace(0, len(ooms) - 1, _MAX_OOMS).astype(np.int64)]


def _within(spans: list[Span], first: int, end: int) -> tuple[Span, ...]:
    return tuple(span for span in spans if span.begin < end and span.end >= first and span.end > span.begin)


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
    marks, lifetimes = marks_of_device(device.trace, device.index), device.lifetimes
    for kind, share, color in ((MarkKind.PHASE_BEGIN, 0.08, theme.muted), (MarkKind.STEP, 0.18, theme.ink)):
        chosen = (marks.kind == kind) & (marks.event >= lifetimes.first_event) & (marks.event <= lifetimes.end_event)
        at = np.unique(marks.event[chosen])[:400] - 1.0
        if not len(at):
            continue
        x = np.repeat(at, 3)
        y = np.tile([0.0, share * top, np.nan], len(at))
        figure.add_scatter(x=x, y=y, mode="lines", line={"width": 1, "color": color})
