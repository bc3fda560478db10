"""Replays: what each setting would have reserved for the same requests, side by side and over the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.ledger import FREE_PINNED
from memscope.figures.ledger import hatch
from memscope.figures.theme import (
    ByteAxis,
    Theme,
    bare_axis,
    byte_axis,
    empty_figure,
    empty_note,
    extreme_indices,
    quiet_axis,
)
from memscope.figures.timeline import capacity_line, capacity_note
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.compare import Comparison
from memscope.replay.result import Exactness, ReplayResult
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count
from memscope.words.labels import plain
from memscope.words.replay import RECORDED, change_words, result_label

Measure = Literal["reserved", "unused"]
"""What is drawn: reserved bytes, or the part of them that was not in use."""

CURVE_COLORS = {
    "light": (
        *("#4834B0", "#0E8C7F", "#B04AA2", "#1E7A3C", "#3E97C9", "#8A8420"),
        *("#7A5C3E", "#8A8FE0", "#5E6B2E", "#146B8C", "#7C3FA0", "#5FB89A"),
    ),
    "dark": (
        *("#9C90F0", "#4FCBB9", "#DE8AD3", "#62B873", "#88CCEE", "#CFCF5A"),
        *("#C7A07A", "#6F7BF7", "#A8B86A", "#3FA3C7", "#B874E0", "#A5E3CC"),
    ),
}
"""Colours of the curves by theme; after the last they come round again. No category has one of them."""

DASHES: dict[Exactness, str] = {"exact": "solid", "modelled": "dash", "bound": "dot"}
"""How the curves of a strategy are drawn, by the best that its results can be."""

_MARGIN_PX = {"l": 72, "r": 24, "t": 10, "b": 34}
_CAPACITY_IN_SIGHT = 1.6
_CURVE_IN_SIGHT = 2.5
"""A curve is drawn to scale up to this many times the recording's peak; one that leaves the picture is named there."""
_HEADROOM = 1.1
_N_BUCKETS = 160


@dataclass(frozen=True, slots=True)
class ReplayCurve:
    """A run's memory over its events, reduced to what a picture can show.

    Attributes
    ----------
    index
        int64 (m,): moments, 0 before the device's first event and i after its i-th.
    reserved_bytes, active_bytes
        int64 (m,): at those moments. Every peak and trough of reserved bytes, and of what was not in use, is kept.
    has_failed
        Whether the run ended there, out of memory.
    """

    index: Int64Array
    reserved_bytes: Int64Array
    active_bytes: Int64Array
    has_failed: bool = False

    def bytes_of(self, measure: Measure) -> Int64Array:
        """The values of a measure: int64 (m,)."""
        if measure == "reserved":
            return self.reserved_bytes
        unused: Int64Array = self.reserved_bytes - self.active_bytes
        return unused


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """A replay's curve with its name and look.

    Attributes
    ----------
    key
        What names it among others on a page.
    exactness
        Of its result.
    family, position
        The best that its strategy's results can be, and its place among the curves of such: they give its look, which
        stays whatever comes of a replay.
    """

    key: str
    label: str
    exactness: Exactness
    family: Exactness
    position: int
    curve: ReplayCurve
    is_best: bool = False


def reduced_curve(usage: UsageSeries, *, has_failed: bool = False, n_buckets: int = _N_BUCKETS) -> ReplayCurve | None:
    """A usage series reduced to about ``5 · n_buckets`` moments; None where reserved bytes are not known."""
    reserved, active = usage.reserved_bytes, usage.active_bytes
    if reserved is None:
        return None
    keep = [int(np.argmax(reserved)), len(usage) - 1]
    chosen = extreme_indices([reserved, reserved - active], 0, len(usage), n_buckets, keep)
    return ReplayCurve(chosen, reserved[chosen], active[chosen], has_failed)


def result_curve(result: ReplayResult) -> ReplayCurve:
    """The curve of a replay."""
    curve = reduced_curve(result.usage, has_failed=result.oom is not None)
    if curve is None:
        raise ValueError("a replay knows what it reserved")
    return curve


def curve_color(theme_name: str, family: Exactness, position: int) -> str | None:
    """Colour of a curve; None for a bound, which has the quiet one of the text."""
    colors = CURVE_COLORS[theme_name]
    return None if family == "bound" else colors[position % len(colors)]


def curves_figure(
    recorded: ReplayCurve | None,
    drawn: Sequence[DrawnCurve],
    x: np.ndarray,
    theme: Theme,
    *,
    axis: str = "event",
    measure: Measure = "reserved",
    capacity_bytes: int | None = None,
    moment: dict[str, Any] | None = None,
    height: int | None = 320,
) -> go.Figure:
    """Draw the recording as a strong line, and the replays over it.

    Shape 0 is the line of the moment, so that it can be moved without drawing the rest again.

    Parameters
    ----------
    recorded
        None where reserved bytes were not recorded.
    x
        float64 (n + 1,): where each moment stands, from :func:`~memscope.figures.timeline_data.x_of_events`.
    capacity_bytes
        What the allocator could have had; named where it is far above the curves.
    moment
        The line of the moment, from :func:`~memscope.figures.timeline.moment_shape`.
    """
    curves = [*([] if recorded is None else [recorded]), *(one.curve for one in drawn)]
    if len(x) < 2 or not curves:
        blank = empty_note("nothing is replayed", theme)
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[blank])
    peaks = [int(curve.bytes_of(measure).max(initial=0)) for curve in curves]
    in_sight = [peak for peak in peaks if recorded is None or peak <= _CURVE_IN_SIGHT * peaks[0]]
    highest = max(1, *in_sight)
    capacity = capacity_bytes if measure == "reserved" else None
    is_in_sight = capacity is not None and capacity <= _CAPACITY_IN_SIGHT * highest
    top = max(highest, capacity or 0) if is_in_sight else highest
    scale = byte_axis(int(top * 1.06))
    figure = empty_figure(
        theme,
        height,
        margin=_MARGIN_PX,
        hovermode="closest",
        hoverdistance=30,
        dragmode="zoom",
        xaxis=_x_axis(axis, x, theme),
        yaxis=quiet_axis(
            theme,
            showgrid=True,
            range=[0, top * _HEADROOM / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            fixedrange=True,
        ),
    )
    for one in drawn:
        _add_replay(figure, one, x, theme, scale, measure, axis)
    if recorded is not None:
        line = {"width": 2.5, "color": theme.ink, "shape": "hv"}
        _add_curve(figure, "recorded", "recorded", recorded, x, scale, measure, axis, line)
    notes = [] if capacity is None else [capacity_note(capacity, is_in_sight, theme, scale)]
    notes += [note for note in [_out_of_sight(drawn, measure, int(top * _HEADROOM), theme)] if note is not None]
    shapes = [capacity_line(capacity, theme, scale)] if capacity is not None and is_in_sight else []
    figure.update_layout(shapes=[moment or {"type": "line", "visible": False}, *shapes], annotations=notes)
    return figure


def _x_axis(axis: str, x: np.ndarray, theme: Theme) -> dict[str, Any]:
    is_time = axis == "time"
    return quiet_axis(
        theme,
        range=[float(x[0]), float(x[-1])],
        tickformat=".6~f" if is_time else ",d",
        ticksuffix=" s" if is_time else "",
        nticks=8,
        dtick=1 if not is_time and len(x) <= 8 else None,
    )


def _add_replay(
    figure: go.Figure, one: DrawnCurve, x: np.ndarray, theme: Theme, scale: ByteAxis, measure: Measure, axis: str
) -> None:
    color = curve_color(theme.name, one.family, one.position) or theme.muted
    line = {"width": 2.25 if one.is_best else 1.5, "color": color, "dash": DASHES[one.family], "shape": "hv"}
    label = f"{one.label} · {one.exactness}"
    _add_curve(figure, one.key, label, one.curve, x, scale, measure, axis, line)
    if one.curve.has_failed:
        figure.add_scatter(
            x=[float(x[one.curve.index[-1]])],
            y=[float(one.curve.bytes_of(measure)[-1]) / scale.unit_bytes],
            mode="markers",
            meta=one.key,
            marker={"symbol": "x", "size": 9, "color": theme.red},
            hovertemplate=f"<b>{plain(one.label, 60)}</b><br>out of memory<extra></extra>",
        )


def _add_curve(
    figure: go.Figure,
    key: str,
    label: str,
    curve: ReplayCurve,
    x: np.ndarray,
    scale: ByteAxis,
    measure: Measure,
    axis: str,
    line: dict[str, Any],
) -> None:
    values = curve.bytes_of(measure)
    when = "after %{x:.6~f} s" if axis == "time" else "after event %{x:,d}"
    words = "reserved" if measure == "reserved" else "reserved but not active"
    figure.add_scatter(
        x=x[curve.index].astype(np.float32 if float(x[-1]) < 1 << 24 else np.float64),
        y=values.astype(np.float64) / scale.unit_bytes,
        customdata=values.astype(np.float64),
        name=plain(label, 60),
        meta=key,
        mode="lines",
        line=line,
        hovertemplate=(
            f"<b>{plain(label, 60)}</b><br>%{{y:,.2f}} {scale.unit_name} {words}<br>"
            f"%{{customdata:,.0f}} bytes<br>{when}<extra></extra>"
        ),
    )


def _out_of_sight(drawn: Sequence[DrawnCurve], measure: Measure, top_bytes: int, theme: Theme) -> dict[str, Any] | None:
    """The names of the curves that leave the picture, at its top edge."""
    peaks = {one.label: int(one.curve.bytes_of(measure).max(initial=0)) for one in drawn}
    texts = [f"{plain(label, 44)} {format_bytes(peak)}" for label, peak in peaks.items() if peak > top_bytes]
    if not texts:
        return None
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    font = {"size": 12, "color": theme.muted}
    edge = {"xref": "paper", "yref": "paper", "x": 0.995, "y": 1, "xanchor": "right", "yanchor": "top"}
    return edge | {"text": f"↑ {', '.join(texts[:2])}{more}", "showarrow": False, "font": font}


def curves_words(n_drawn: int, has_recorded: bool) -> str:
    """What the picture shows, for those who cannot see it."""
    replays = f"{format_count(n_drawn)} replay{'' if n_drawn == 1 else 's'}"
    return f"Reserved memory over the run: {'the recording and ' if has_recorded else ''}{replays}."


ROW_PX = 40


@dataclass(frozen=True, slots=True)
class _Bar:
    """What is drawn of the recording or of a replay."""

    label: str
    exactness: Exactness | None
    reserved_bytes: int
    active_bytes: int
    change: str = ""
    has_failed: bool = False


def _bars(comparison: Comparison) -> list[_Bar]:
    """The recording, where its reserved bytes were measured, and its replays in the order asked for."""
    recorded = comparison.recorded
    measured = recorded.peak_reserved_bytes
    bars = [] if measured is None else [_Bar(RECORDED, None, measured, recorded.peak_active_bytes)]
    for result in comparison.results:
        reserved = result.peak_reserved_bytes
        sizes = (reserved, result.peak_active_bytes, change_words(reserved, measured))
        bars.append(_Bar(result_label(comparison, result), result.exactness, *sizes, result.oom is not None))
    return bars


def replay_figure(comparison: Comparison, theme: Theme) -> go.Figure:
    """Draw peak reserved bytes as bars: the part that was active at its own peak solid, the rest hatched.

    The lower bound, where there is one, is drawn as a line through all bars.
    """
    bars = _bars(comparison)
    largest = max((bar.reserved_bytes for bar in bars), default=1) or 1
    scale = byte_axis(largest)
    figure = empty_figure(
        theme,
        ROW_PX * max(len(bars), 1) + 34,
        margin={"l": 0, "r": 0, "t": 6, "b": 28},
        barmode="stack",
        hovermode="closest",
        xaxis=quiet_axis(
            theme,
            showgrid=True,
            fixedrange=True,
            range=[0, largest * 1.3 / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
        ),
        yaxis=bare_axis(range=[len(bars) - 0.5, -0.5]),
    )
    notes = []
    for row, bar in enumerate(bars):
        _add_bar(figure, bar, row, theme, scale.unit_bytes)
        notes += _bar_notes(bar, row, theme, scale.unit_bytes)
    shapes = []
    if comparison.lower_bound is not None:
        x = comparison.lower_bound.peak_reserved_bytes / scale.unit_bytes
        dash = {"color": theme.muted, "width": 1.5, "dash": "dash"}
        shapes.append({"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": dash})
    figure.update_layout(annotations=notes, shapes=shapes)
    return figure


def _add_bar(figure: go.Figure, bar: _Bar, row: int, theme: Theme, unit: int) -> None:
    reserved, active = bar.reserved_bytes, bar.active_bytes
    solid = theme.ink if bar.exactness is None else theme.muted
    hover = f"<b>{plain(bar.label, 60)}</b><br>reserved {reserved:,} bytes<br>active {active:,} bytes<extra></extra>"
    shared: dict[str, Any] = {"y": [row], "orientation": "h", "width": 0.36, "offset": 0.02, "hovertemplate": hover}
    opacity = 0.45 if bar.exactness == "bound" else 1
    figure.add_bar(x=[min(active, reserved) / unit], marker={"color": solid, "opacity": opacity}, **shared)
    if reserved > active:
        pattern = {"color": theme.color(FREE_PINNED), "pattern": hatch(FREE_PINNED, theme)}
        figure.add_bar(x=[(reserved - active) / unit], marker=pattern | {"line": {"width": 0}}, **shared)
    if bar.has_failed:
        cross = {"symbol": "x", "size": 10, "color": theme.red}
        figure.add_scatter(x=[reserved / unit], y=[row + 0.2], mode="markers", marker=cross, hoverinfo="skip")


def _bar_notes(bar: _Bar, row: int, theme: Theme, unit: int) -> list[dict[str, Any]]:
    base = {"showarrow": False, "xanchor": "left", "font": {"size": 12, "color": theme.ink}}
    kind = "" if bar.exactness is None else f" <span style='color:{theme.muted}'>· {bar.exactness}</span>"
    name = base | {
        "bgcolor": theme.surface,
        "borderpad": 0,
        "x": 0,
        "y": row - 0.2,
        "text": f"{plain(bar.label, 70)}{kind}",
    }
    words = f"<b>{format_bytes(bar.reserved_bytes)}</b>"
    words += f"  <span style='color:{theme.muted}'>{bar.change}</span>" if bar.change else ""
    if bar.has_failed:
        words += f"  <span style='color:{theme.red}'>out of memory</span>"
    size = base | {"x": bar.reserved_bytes / unit, "y": row + 0.2, "xshift": 8, "text": words}
    return [name, size]
