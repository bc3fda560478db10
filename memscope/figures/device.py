"""What a device says is used over a run, against what PyTorch knows of it, on one axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.driver_usage import (
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
    DriverUsageSamples,
    driver_usage_samples,
)
from memscope.device.device import Device
from memscope.figures.theme import ByteAxis, Theme, bare_axis, empty_figure, empty_note, extreme_indices
from memscope.figures.timeline import (
    TimelineFrame,
    add_layers,
    add_lines,
    add_marks,
    finished,
    layer_names,
    timeline_frame,
)
from memscope.figures.timeline_data import TimelineData, index_window, timeline_data, x_of_events
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.words.labels import row_label


@dataclass(frozen=True, slots=True)
class DeviceSeries:
    """What a device said, at some of its samples.

    Attributes
    ----------
    x
        float64 (m,): where each sample stands on the horizontal axis, never falling.
    used_bytes, process_bytes
        int64 (m,): of the whole device and of the recorded process; −1 is "not measured".
    band_x
        float64 (k,): the same for those samples that can be set against what was reserved.
    bands
        Row of the device's count → int64 (k,) bytes, in stacking order; at each sample they sum to
        what it said is used.
    span
        First and last place of all samples, also of those outside the visible range; None without samples.
    """

    x: np.ndarray
    used_bytes: Int64Array
    process_bytes: Int64Array
    band_x: np.ndarray
    bands: dict[str, Int64Array]
    span: tuple[float, float] | None

    @property
    def highest_bytes(self) -> int:
        """The highest that was measured, 0 if nothing was."""
        return max(int(self.used_bytes.max(initial=0)), int(self.process_bytes.max(initial=0)), 0)


def device_series(
    device: Device,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    n_buckets: int = 240,
) -> DeviceSeries:
    """Reduce a device's samples to about ``5 · n_buckets``, or fewer.

    Parameters
    ----------
    window
        Visible range of the axis, in its own unit; None is everything.
    """
    samples, is_usable = driver_usage_samples(device.lifetimes)
    x = x_of_samples(device, samples, axis)
    chosen = np.arange(len(x), dtype=np.int64)
    if len(x):
        begin, end = index_window(x, window)
        chosen = extreme_indices([samples.used_bytes, samples.process_bytes], begin, end, n_buckets)
    stacked = chosen[is_usable[chosen]]
    return DeviceSeries(
        x=x[chosen],
        used_bytes=samples.used_bytes[chosen],
        process_bytes=samples.process_bytes[chosen],
        band_x=x[stacked],
        bands=_bands(samples.take(stacked)),
        span=(float(x[0]), float(x[-1])) if len(x) else None,
    )


def x_of_samples(device: Device, samples: DriverUsageSamples, axis: str) -> np.ndarray:
    """Horizontal position of each sample: float64 (n,), on the clock of the events or at the event before it.

    On the clock a sample may lie before the first event, below 0, or after the last.
    """
    places = x_of_events(device, axis)[samples.moment]
    if axis == "time" and device.has_times:
        start_ns = int(device.trace.time_ns[device.lifetimes.first_event])
        seconds = (samples.time_ns - start_ns) / 1e9
        places = np.where(samples.time_ns == NONE_ID, places, seconds)
    rising: np.ndarray = np.maximum.accumulate(places) if len(places) else places
    return rising


def _bands(samples: DriverUsageSamples) -> dict[str, Int64Array]:
    """The rows of each usable sample; what was not measured is 0 wide, and its bytes are unexplained."""
    reserved = samples.reserved_bytes
    non_pytorch = np.where(samples.process_bytes == NONE_ID, 0, samples.process_bytes - reserved)
    others = np.maximum(samples.others_bytes, 0)
    return {
        PYTORCH_RESERVED: reserved,
        NON_PYTORCH: non_pytorch,
        OTHER_PROCESSES: others,
        UNEXPLAINED: samples.used_bytes - reserved - non_pytorch - others,
    }


DEVICE_USED = "device used"
PROCESS_USED = "this process"
_FEW_SAMPLES = 40
"""Up to so many samples each is marked by a dot: a line alone would hide how few there are."""
_MIN_GAP_FRAC = 0.06
"""Two lines closer than this share of the axis have no room for a name between them."""


def driver_usage_figure(
    device: Device,
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
    if not device.n_events:
        note = empty_note("no events were recorded: only one moment is known", theme)
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[note])
    series = device_series(device, axis=axis, window=window)
    data = timeline_data(device, axis=axis, window=window)
    low, high = window or _span(data, series)
    data = _to_the_edges(data, low, high)
    frame = timeline_frame(data, theme, highest_bytes=series.highest_bytes, low=low, high=high, height=height)
    stacked = replace(data, x=series.band_x, layers=series.bands)
    add_layers(frame.figure, stacked, theme, frame.scale)
    add_lines(frame.figure, data, theme, frame.scale)
    _add_counts(frame.figure, series, theme, frame.scale)
    add_marks(frame.figure, data, theme, frame.scale)
    names = layer_names(stacked, theme, frame.scale, frame.top_bytes, low, high)
    own = row_label(PYTORCH_RESERVED)  # its line is drawn, and the line of allocated bytes would cross the name
    names = [*(name for name in names if name["text"] != own), *_line_names(series, frame, theme)]
    return finished(frame, data, theme, moment=moment, notes=names)


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
