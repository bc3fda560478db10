"""Replays side by side: what each setting would have reserved for the same requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from memscope.attribution.ledger import FREE_PINNED
from memscope.figures.frame import bare_axis, byte_axis, empty_figure, quiet_axis
from memscope.figures.ledger import hatch
from memscope.figures.theme import Theme
from memscope.replay.compare import Comparison
from memscope.replay.result import Exactness
from memscope.units import format_bytes
from memscope.words.labels import plain
from memscope.words.replay import RECORDED, change_words, result_label

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
