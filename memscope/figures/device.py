"""What a device says is used over a run, against what PyTorch knows of it, on one axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.analysis import Analysis
from memscope.attribution.device_count import PYTORCH_RESERVED
from memscope.figures.device_data import DeviceSeries, device_series
from memscope.figures.frame import ByteAxis, bare_axis, empty_figure, empty_note
from memscope.figures.labels import row_label
from memscope.figures.theme import Theme
from memscope.figures.timeline import TimelineFrame, add_layers, add_lines, finished, timeline_frame
from memscope.figures.timeline_data import TimelineData, timeline_data
from memscope.figures.timeline_labels import add_marks, layer_names
from memscope.trace.schema import NONE_ID

DEVICE_USED = "device used"
PROCESS_USED = "this process"
_FEW_SAMPLES = 40
"""Up to so many samples each is marked by a dot: a line alone would hide how few there are."""
_MIN_GAP_FRAC = 0.06
"""Two lines closer than this share of the axis have no room for a name between them."""


def device_count_figure(
    analysis: Analysis,
    device: int,
    theme: Theme,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    moment: int | None = None,
    height: int | None = 420,
) -> go.Figure:
    """Draw the device's own count over a run: PyTorch's lines, and above them what each sample tells apart.

    Shape 0 is always the line of the moment. The bands are those of the samples that can be set against what PyTorch
    had reserved; between two samples the last one stays, while PyTorch's own lines show every event.

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
        note = empty_note("no events were recorded: only one moment is known", theme)
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])
    series = device_series(analysis, device, axis=axis, window=window)
    data = timeline_data(analysis, device, axis=axis, window=window)
    low, high = window or _span(data, series)
    data = _to_the_edges(data, low, high)
    frame = timeline_frame(analysis, data, theme, highest_bytes=series.highest_bytes, low=low, high=high, height=height)
    stacked = replace(data, x=series.band_x, layers=series.bands)
    add_layers(frame.figure, stacked, theme, frame.scale)
    add_lines(frame.figure, data, theme, frame.scale)
    _add_counts(frame.figure, series, theme, frame.scale)
    add_marks(frame.figure, analysis, data, theme, frame.scale)
    names = layer_names(stacked, theme, frame.scale, frame.top_bytes, low, high)
    own = row_label(PYTORCH_RESERVED)  # its line is drawn, and the line of allocated bytes would cross the name
    names = [*(name for name in names if name["text"] != own), *_line_names(series, frame, theme)]
    return finished(frame, analysis, data, theme, moment=moment, notes=names)


def _span(data: TimelineData, series: DeviceSeries) -> tuple[float, float]:
    """The whole run: the device is sampled before PyTorch's first event and after its last."""
    low, high = float(data.x[0]), float(data.x[-1])
    return (low, high) if series.span is None else (min(low, series.span[0]), max(high, series.span[1]))


def _to_the_edges(data: TimelineData, low: float, high: float) -> TimelineData:
    """The same, with PyTorch's lines drawn on where the picture begins before the first event or ends after the last.

    Nothing changes there: a point that is added has the bytes of its neighbour, and a position that no event has.
    """
    ends = (int(low < data.x[0]), int(high > data.x[-1]))

    def held(values: Any) -> Any:
        return None if values is None else np.pad(values, ends, mode="edge")

    return replace(
        data,
        x=np.pad(data.x, ends, constant_values=(low, high)),
        event=np.pad(data.event, ends, constant_values=(int(data.event[0]) - 1, int(data.event[-1]) + 1)),
        layers={},
        active_bytes=held(data.active_bytes),
        allocated_bytes=held(data.allocated_bytes),
        reserved_bytes=held(data.reserved_bytes),
    )


def _add_counts(figure: go.Figure, series: DeviceSeries, theme: Theme, scale: ByteAxis) -> None:
    """The lines of every sample, also of those taken while segments came or went; a gap where it was not measured."""
    mode = "lines+markers" if len(series.x) <= _FEW_SAMPLES else "lines"
    for name, values, width in ((PROCESS_USED, series.process_bytes, 1), (DEVICE_USED, series.used_bytes, 1.5)):
        if not (values != NONE_ID).any():
            continue
        figure.add_scatter(
            x=series.x,
            y=np.where(values == NONE_ID, np.nan, values / scale.unit_bytes).astype(np.float32),
            name=name,
            mode=mode,
            line={"width": width, "shape": "hv", "color": theme.muted},
            marker={"size": 5, "color": theme.muted},
            hovertemplate=f"<b>%{{y:,.1f}} {scale.unit_name}</b>",
        )


def _line_names(series: DeviceSeries, frame: TimelineFrame, theme: Theme) -> list[dict[str, Any]]:
    """Name the device's line above its end, and the process's where there is room below that."""
    names: list[dict[str, Any]] = []
    above: int | None = None
    for name, values in ((DEVICE_USED, series.used_bytes), (PROCESS_USED, series.process_bytes)):
        known = np.flatnonzero((values != NONE_ID) & (series.x >= frame.low) & (series.x <= frame.high))
        if not len(known):
            continue
        size = int(values[known[-1]])
        if above is not None and above - size < _MIN_GAP_FRAC * frame.top_bytes:
            continue
        above = size
        names.append(
            {
                "x": float(series.x[known[-1]]),
                "xanchor": "right",
                "y": size / frame.scale.unit_bytes,
                "yanchor": "bottom",
                "text": name,
                "showarrow": False,
                "bgcolor": theme.surface,
                "borderpad": 2,
                "opacity": 0.92,
                "yshift": 2,
                "font": {"color": theme.ink, "size": 12},
            }
        )
    return names
