"""A serving replay over time, reduced to what a picture can show, and its picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from memscope.figures.serving import ink_on_part, is_hatched, part_color, part_fill
from memscope.figures.theme import ByteAxis, Theme, bare_axis, byte_axis, empty_figure, empty_note, quiet_axis
from memscope.serving.result import KvMemoryOverTime, KvResult, KvTimeline
from memscope.units import format_bytes, format_count
from memscope.words.serving import CLAIMED_PARTS, ClaimedPart, result_label

Float64Array = npt.NDArray[np.float64]

OVER_TIME_PX = 460
_N_POINTS = 240
_MARGIN_PX = {"l": 64, "r": 16, "t": 12, "b": 38}
_DOMAINS = {"y": (0.53, 1.0), "y2": (0.32, 0.46), "y3": (0.13, 0.25), "y4": (0.0, 0.06)}
_MIN_LABEL_FRAC = 0.07
"""Height of a part's name, with some air, as a share of the axis."""
_CAPACITY_IN_SIGHT = 1.6
_FEW = 2
"""Up to here an axis of counts has a tick at each."""
_SOME_WAIT = 0.5
"""Fewer waiting requests than this, on average over a span, are not counted out."""
_HALF_LABEL_FRAC = 0.045
"""Half the width of a part's name, as a share of the axis."""


@dataclass(frozen=True, slots=True)
class ServingCurve:
    """A serving replay in equal spans of time; every array has one entry a span.

    Attributes
    ----------
    label
        Of its manager.
    mean_running, mean_waiting
        float64: time-weighted means.
    peak_running
        float64: the most at once.
    """

    label: str
    capacity_bytes: int
    memory: KvMemoryOverTime
    mean_running: Float64Array
    peak_running: Float64Array
    mean_waiting: Float64Array

    def part_bytes(self, part: ClaimedPart) -> Float64Array:
        """Time-weighted means of a part of the memory: float64 (m,)."""
        column = {"tokens": "token_bytes"}.get(part.name, f"{part.name}_bytes")
        return np.asarray(getattr(self.memory, column), np.float64)

    @property
    def preemptions(self) -> npt.NDArray[np.int64]:
        """Preemptions within each span: int64 (m,)."""
        return np.diff(self.memory.n_preemptions, prepend=0)


def serving_curve(result: KvResult, n_points: int = _N_POINTS) -> ServingCurve:
    """The curve of a replay in at most ``n_points`` spans."""
    spans = result.concurrency(n_points)
    columns = [
        np.array([span[name] for span in spans], np.float64)
        for name in ("mean_running", "peak_running", "mean_waiting")
    ]
    memory = result.memory_over_time(n_points)
    return ServingCurve(result_label(result), result.capacity_bytes, memory, *columns)


def without_timeline(result: KvResult) -> KvResult:
    """A result whose timeline is empty: dozens of whole ones of long replays would fill the memory."""
    nothing = np.empty(0, np.int64)
    return dataclasses.replace(result, timeline=KvTimeline(*(nothing for _ in dataclasses.fields(KvTimeline))))


def over_time_figure(curve: ServingCurve | None, theme: Theme, height: int | None = OVER_TIME_PX) -> go.Figure:
    """Draw memory split into tokens and each kind of waste, and below it, on the same time axis, who ran and waited.

    The time is an estimate of the cost model, and the axis says so.
    """
    if curve is None or not len(curve.memory):
        note = [empty_note("nothing is replayed", theme)]
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=note)
    x = _edges(curve.memory) / 1e6
    parts = {part: _stepped(curve.part_bytes(part)) for part in CLAIMED_PARTS}
    stacked = sum(parts.values(), np.zeros(len(x)))
    highest = int(max(stacked.max(), 1))
    is_in_sight = curve.capacity_bytes <= _CAPACITY_IN_SIGHT * highest
    top = max(highest, curve.capacity_bytes) if is_in_sight else highest
    scale = byte_axis(int(top * 1.06), n_ticks=5)
    figure = empty_figure(
        theme,
        height,
        margin=_MARGIN_PX,
        hovermode="x unified",
        hoversubplots="axis",
        **_axes(curve, x, top, scale, theme),
    )
    for part, values in parts.items():
        _add_part(figure, part, x, values, theme, scale)
    _add_requests(figure, curve, x, theme)
    _add_preemptions(figure, curve, x, theme)
    figure.update_layout(
        shapes=_capacity_shapes(curve, is_in_sight, theme, scale),
        annotations=[
            *_part_names(parts, x, top, theme, scale),
            _capacity_note(curve, is_in_sight, theme, scale),
            *_row_names(curve, theme),
        ],
    )
    return figure


def _edges(memory: KvMemoryOverTime) -> Float64Array:
    """Where spans begin and end, in microseconds: float64 (m + 1,)."""
    return np.concatenate((memory.start_us[:1], memory.end_us)).astype(np.float64)


def _stepped(values: npt.NDArray[Any]) -> Float64Array:
    """Values of spans at their edges, for a line that is drawn up or down first and then along."""
    return np.concatenate((values[:1], values)).astype(np.float64)


def _axes(curve: ServingCurve, x: Float64Array, top: int, scale: ByteAxis, theme: Theme) -> dict[str, Any]:
    line = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikedash": "solid"}
    shared: dict[str, Any] = {"fixedrange": True, "anchor": "x"}
    return {
        "xaxis": quiet_axis(
            theme,
            anchor="free",
            position=0,
            range=[float(x[0]), float(x[-1])],
            ticksuffix=" s",
            tickformat=",",
            hoverformat=",.3~f",
            nticks=8,
            fixedrange=True,
            spikecolor=theme.faint,
            title={"text": "estimated time", "standoff": 4, "font": {"size": 12}},
            **line,
        ),
        "yaxis": quiet_axis(
            theme,
            domain=_DOMAINS["y"],
            showgrid=True,
            range=[0, top * 1.08 / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            **shared,
        ),
        "yaxis2": _count_axis("y2", float(curve.peak_running.max()), theme),
        "yaxis3": _count_axis("y3", float(curve.mean_waiting.max()), theme),
        "yaxis4": _count_axis("y4", float(curve.preemptions.max()), theme)
        | {"showticklabels": False, "showgrid": False},
    }


def _count_axis(name: str, most: float, theme: Theme) -> dict[str, Any]:
    """The axis of one of the lower rows, from 0 to the most of something."""
    shown = {"domain": _DOMAINS[name], "range": [0, max(most, 1.0) * 1.1], "anchor": "x", "fixedrange": True}
    ticks = {"dtick": 1} if most <= _FEW else {"nticks": 3}
    return quiet_axis(theme, showgrid=True, tickformat=",d", **ticks, **shown)


def _add_part(
    figure: go.Figure, part: ClaimedPart, x: Float64Array, values: Float64Array, theme: Theme, scale: ByteAxis
) -> None:
    fill = {"fillpattern": part_fill(part, theme)} if is_hatched(part) else {"fillcolor": part_color(part, theme)}
    figure.add_scatter(
        x=x,
        y=values / scale.unit_bytes,
        name=part.label,
        mode="lines",
        stackgroup="memory",
        line={"width": 0, "shape": "vh", "color": part_color(part, theme)},
        customdata=[format_bytes(int(value)) for value in values],
        hovertemplate="%{customdata}",
        **fill,
    )


def _add_requests(figure: go.Figure, curve: ServingCurve, x: Float64Array, theme: Theme) -> None:
    running, waiting, peak = (_stepped(v) for v in (curve.mean_running, curve.mean_waiting, curve.peak_running))
    figure.add_scatter(
        x=x,
        y=running,
        yaxis="y2",
        name="running",
        mode="lines",
        line={"width": 2, "shape": "vh", "color": theme.ink},
        customdata=peak,
        hovertemplate="%{y:,.1f}, at most %{customdata:,.0f}",
    )
    figure.add_scatter(
        x=x,
        y=waiting,
        yaxis="y3",
        name="waiting",
        mode="lines",
        line={"width": 1.5, "shape": "vh", "color": theme.muted},
        hovertemplate="%{y:,.1f}",
    )


def _add_preemptions(figure: go.Figure, curve: ServingCurve, x: Float64Array, theme: Theme) -> None:
    """A bar for each span, also where it is 0, so that the box under the pointer says so."""
    figure.add_bar(
        x=(x[:-1] + x[1:]) / 2,
        width=np.diff(x),
        y=curve.preemptions,
        yaxis="y4",
        name="preempted",
        marker={"color": theme.muted, "line": {"width": 0}},
        hovertemplate="%{y:,d}",
    )


def _capacity_shapes(curve: ServingCurve, is_in_sight: bool, theme: Theme, scale: ByteAxis) -> list[dict[str, Any]]:
    y = curve.capacity_bytes / scale.unit_bytes
    line = {"color": theme.muted, "width": 1.5, "dash": "dash"}
    capacity = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
    return [capacity] if is_in_sight else []


def _capacity_note(curve: ServingCurve, is_in_sight: bool, theme: Theme, scale: ByteAxis) -> dict[str, Any]:
    note = {
        "xref": "paper",
        "x": 0.995,
        "xanchor": "right",
        "showarrow": False,
        "font": {"color": theme.muted, "size": 12},
    }
    words = f"capacity {format_bytes(curve.capacity_bytes)}"
    if is_in_sight:
        return note | {"yref": "y", "y": curve.capacity_bytes / scale.unit_bytes, "yanchor": "bottom", "text": words}
    return note | {"yref": "paper", "y": 1, "yanchor": "top", "text": f"↑ {words}, above"}


def _row_names(curve: ServingCurve, theme: Theme) -> list[dict[str, Any]]:
    """What the lower rows show, above each."""
    n, most = int(curve.memory.n_preemptions[-1]), float(curve.mean_waiting.max())
    texts = {
        "y2": f"requests running, at most {format_count(int(curve.peak_running.max()))}",
        "y3": f"requests waiting, at most {most:,.0f}" if most >= _SOME_WAIT else "hardly any request waits",
        "y4": f"{format_count(n)} preemption{'' if n == 1 else 's'}" if n else "no preemptions",
    }
    place = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    font = {"size": 12, "color": theme.muted}
    return [place | {"y": _DOMAINS[axis][1], "text": text, "font": font} for axis, text in texts.items()]


def _part_names(
    parts: dict[ClaimedPart, Float64Array], x: Float64Array, top: int, theme: Theme, scale: ByteAxis
) -> list[dict[str, Any]]:
    """Name each part where its band is thick enough for long enough to carry its name."""
    notes, below = [], np.zeros(len(x))
    half = (x[-1] - x[0]) * _HALF_LABEL_FRAC
    for part, values in parts.items():
        place = _roomiest(x, below, below + values, half)
        below = below + values
        if place is not None and place[2] >= _MIN_LABEL_FRAC * top:
            color = ink_on_part(part, theme)
            note = {"x": place[0], "y": place[1] / scale.unit_bytes, "text": part.label, "showarrow": False}
            backing = {"bgcolor": theme.surface, "borderpad": 1} if is_hatched(part) else {}
            notes.append(note | backing | {"font": {"color": color, "size": 12}})
    return notes


def _roomiest(
    x: Float64Array, below: Float64Array, above: Float64Array, half: float
) -> tuple[float, float, float] | None:
    """Middle, height and room of the place where a name of that half width has most room in a band."""
    best: tuple[float, float, float] | None = None
    for middle in np.linspace(x[0] + half, x[-1] - half, 48):
        begin = max(int(np.searchsorted(x, middle - half)), 0)
        end = min(int(np.searchsorted(x, middle + half)) + 1, len(x))
        floor, ceiling = float(below[begin:end].max()), float(above[begin:end].min())
        if best is None or ceiling - floor > best[2]:
            best = (float(middle), (floor + ceiling) / 2, ceiling - floor)
    return best


def over_time_words(curve: ServingCurve | None) -> str:
    """What the picture over time shows, for those who cannot see it."""
    if curve is None or not len(curve.memory):
        return "Nothing is replayed."
    taken, n = int(curve.memory.peak_alloc_bytes.max()), int(curve.memory.n_preemptions[-1])
    return (
        f"Memory of {curve.label} over time: at most {format_bytes(taken)} of {format_bytes(curve.capacity_bytes)} "
        f"taken, {format_count(int(curve.peak_running.max()))} requests at once, {format_count(n)} preemptions."
    )
