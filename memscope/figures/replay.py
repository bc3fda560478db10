"""Replays side by side: what each setting would have reserved for the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from memscope.attribution.ledger import FREE_PINNED
from memscope.figures.frame import bare_axis, byte_axis, empty_figure, quiet_axis
from memscope.figures.ledger import hatch
from memscope.figures.theme import Theme
from memscope.replay.result import ReplayResult
from memscope.units import format_bytes, format_fraction
from memscope.words.labels import plain

ROW_PX = 40
_WORTHWHILE_FRAC = 0.02
"""A saving smaller than this share of the recorded peak is not worth a change."""
_NEAR_BOUND_FRAC = 0.05
"""Reserved this close to the lower bound leaves nothing for another setting to save."""

_SMALLEST_FRAC = 0.0005
"""The smallest change that one decimal of a percentage can show."""

RECORDED = "recorded"
REPLAYED = "recorded settings, replayed"


@dataclass(frozen=True, slots=True)
class ReplayLine:
    """One row of the comparison.

    Attributes
    ----------
    label
        The setting, as one would write it.
    result
        What came of it; None for the recording itself and where it cannot be replayed.
    peak_reserved_bytes, peak_active_bytes
        None where they were not measured.
    n_device_allocs, n_device_frees, n_retries
        None where there is no such thing.
    problem
        Why there is no result, else empty.
    """

    label: str
    exactness: str
    result: ReplayResult | None
    peak_reserved_bytes: int | None
    peak_active_bytes: int | None
    n_device_allocs: int | None = None
    n_device_frees: int | None = None
    n_retries: int | None = None
    problem: str = ""

    @property
    def is_candidate(self) -> bool:
        """Whether it is a setting that one could use: served to the end, and no bound."""
        return self.result is not None and self.result.oom is None and self.exactness != "bound"

    @property
    def efficiency_frac(self) -> float | None:
        """Peak active bytes over peak reserved bytes; None where they were not measured."""
        if not self.peak_reserved_bytes or self.peak_active_bytes is None:
            return None
        return self.peak_active_bytes / self.peak_reserved_bytes


def setting_label(strategy: str, conf: str | None) -> str:
    """A strategy and its settings as people write them."""
    if strategy != "caching":
        return strategy.replace("-", " ")
    return conf or "default settings"


def change_words(line: ReplayLine, recorded_bytes: int | None) -> str:
    """How a row's peak differs from the recorded one: ``−12.3 %``."""
    if line.peak_reserved_bytes is None or not recorded_bytes or line.label == RECORDED:
        return ""
    change = line.peak_reserved_bytes / recorded_bytes - 1
    if line.peak_reserved_bytes == recorded_bytes:
        return "equal"
    if abs(change) < _SMALLEST_FRAC:
        return "almost equal"
    return f"{'+' if change > 0 else '−'}{format_fraction(abs(change))}"


def replay_finding(lines: Sequence[ReplayLine]) -> str:
    """The verdict in plain words.

    Savings are counted from the replay under the recorded settings: where that differs from the recording, comparing
    with the recording would count the replay's own error as a saving.
    """
    recorded = next(line for line in lines if line.label == RECORDED)
    bound = next((line for line in lines if line.exactness == "bound"), None)
    candidates = [line for line in lines if line.is_candidate and line.peak_reserved_bytes is not None]
    if not candidates:
        return "No setting could be replayed"
    best = min(candidates, key=lambda line: line.peak_reserved_bytes or 0)
    size = best.peak_reserved_bytes or 0
    again = replayed_line(lines)
    before = recorded.peak_reserved_bytes if again is None else again.peak_reserved_bytes
    if before is None:
        return f"{best.label} would have reserved {format_bytes(size)}; what was reserved is not measured"
    if before - size >= _WORTHWHILE_FRAC * before:
        saved = format_fraction((before - size) / before)
        return f"{best.label} would have reserved {format_bytes(size)} instead of {format_bytes(before)}: {saved} less"
    above = None if bound is None or not bound.peak_reserved_bytes else before / bound.peak_reserved_bytes - 1
    if above is not None and above <= _NEAR_BOUND_FRAC:
        words = f"{format_bytes(before)} reserved is {format_fraction(above)} above what any allocator needs"
        return f"Fragmentation is not the problem: {words}"
    tail = "" if above is None else f", {format_fraction(above)} above what any allocator needs"
    return f"No setting tried here would have helped: {format_bytes(before)} reserved{tail}"


def replayed_line(lines: Sequence[ReplayLine]) -> ReplayLine | None:
    """The replay under the recorded settings, None where it failed."""
    return next((line for line in lines if line.result is not None and line.label == REPLAYED), None)


def calibration_words(lines: Sequence[ReplayLine]) -> str:
    """Whether the replay under the recorded settings gives what was recorded: the error of everything else here."""
    recorded = next(line for line in lines if line.label == RECORDED)
    again = replayed_line(lines)
    if again is None or again.peak_reserved_bytes is None:
        return "The recorded settings could not be replayed, so the error of the other rows is not known."
    if recorded.peak_reserved_bytes is None:
        return "Reserved bytes were not recorded, so the error of these replays is not known."
    if again.peak_reserved_bytes == recorded.peak_reserved_bytes:
        return "Check: replayed under the recorded settings, the peak is the recorded one to the byte."
    error = again.peak_reserved_bytes / recorded.peak_reserved_bytes - 1
    off = f"{format_fraction(abs(error))} {'above' if error > 0 else 'below'}"
    return f"⚠ Check: replayed under the recorded settings, the peak is {off} the recorded one; so are the others."


def replay_figure(lines: Sequence[ReplayLine], theme: Theme) -> go.Figure:
    """Draw peak reserved bytes as bars: the part that was active at its own peak solid, the rest hatched.

    The lower bound, where there is one, is drawn as a line through all bars.
    """
    drawn = [line for line in lines if line.peak_reserved_bytes is not None]
    largest = max((line.peak_reserved_bytes or 0 for line in drawn), default=1) or 1
    scale = byte_axis(largest)
    figure = empty_figure(
        theme,
        ROW_PX * max(len(drawn), 1) + 34,
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
        yaxis=bare_axis(range=[len(drawn) - 0.5, -0.5]),
    )
    recorded = next((line.peak_reserved_bytes for line in lines if line.label == RECORDED), None)
    notes = []
    for row, line in enumerate(drawn):
        _add_bar(figure, line, row, theme, scale.unit_bytes)
        notes += _bar_notes(line, row, recorded, theme, scale.unit_bytes)
    bound = next((line.peak_reserved_bytes for line in drawn if line.exactness == "bound"), None)
    shapes = []
    if bound is not None:
        x = bound / scale.unit_bytes
        dash = {"color": theme.muted, "width": 1.5, "dash": "dash"}
        shapes.append({"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": dash})
    figure.update_layout(annotations=notes, shapes=shapes)
    return figure


def _add_bar(figure: go.Figure, line: ReplayLine, row: int, theme: Theme, unit: int) -> None:
    reserved, active = line.peak_reserved_bytes or 0, line.peak_active_bytes or 0
    solid = theme.ink if line.label == RECORDED else theme.muted
    hover = f"<b>{plain(line.label, 60)}</b><br>reserved {reserved:,} bytes<br>active {active:,} bytes<extra></extra>"
    shared: dict[str, Any] = {"y": [row], "orientation": "h", "width": 0.36, "offset": 0.02, "hovertemplate": hover}
    opacity = 0.45 if line.exactness == "bound" else 1
    figure.add_bar(x=[min(active, reserved) / unit], marker={"color": solid, "opacity": opacity}, **shared)
    if reserved > active:
        pattern = {"color": theme.color(FREE_PINNED), "pattern": hatch(FREE_PINNED, theme)}
        figure.add_bar(x=[(reserved - active) / unit], marker=pattern | {"line": {"width": 0}}, **shared)
    if line.result is not None and line.result.oom is not None:
        cross = {"symbol": "x", "size": 10, "color": theme.red}
        figure.add_scatter(x=[reserved / unit], y=[row + 0.2], mode="markers", marker=cross, hoverinfo="skip")


def _bar_notes(line: ReplayLine, row: int, recorded: int | None, theme: Theme, unit: int) -> list[dict[str, Any]]:
    base = {"showarrow": False, "xanchor": "left", "font": {"size": 12, "color": theme.ink}}
    kind = "" if line.label == RECORDED else f" <span style='color:{theme.muted}'>· {line.exactness}</span>"
    name = base | {
        "bgcolor": theme.surface,
        "borderpad": 0,
        "x": 0,
        "y": row - 0.2,
        "text": f"{plain(line.label, 70)}{kind}",
    }
    words = f"<b>{format_bytes(line.peak_reserved_bytes or 0)}</b>"
    change = change_words(line, recorded)
    words += f"  <span style='color:{theme.muted}'>{change}</span>" if change else ""
    if line.result is not None and line.result.oom is not None:
        words += f"  <span style='color:{theme.red}'>out of memory</span>"
    size = base | {"x": (line.peak_reserved_bytes or 0) / unit, "y": row + 0.2, "xshift": 8, "text": words}
    return [name, size]
