"""What all pictures share: fonts, margins, hover labels, and axes in binary units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.figures.theme import FONT_FAMILY, Theme
from memscope.trace.tables import Int64Array
from memscope.units import GiB, KiB, MiB, TiB

_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class ByteAxis:
    """A scale of bytes: values are divided by ``unit_bytes`` and ticked at round numbers of that unit."""

    unit_bytes: int
    unit_name: str
    tick_values: tuple[float, ...]

    @property
    def tick_texts(self) -> tuple[str, ...]:
        """Labels of the ticks: ``20 GiB``."""
        return tuple("0" if value == 0 else f"{value:g} {self.unit_name}" for value in self.tick_values)


def byte_axis(max_bytes: int, n_ticks: int = 6) -> ByteAxis:
    """A scale from 0 to at least ``max_bytes`` with about ``n_ticks`` round ticks."""
    unit_bytes, unit_name = next(
        ((unit, name) for unit, name in ((TiB, "TiB"), (GiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")) if max_bytes >= unit),
        (1, "B"),
    )
    top = max_bytes / unit_bytes
    fine = (0.1, 0.2, 0.5) if unit_bytes > 1 else ()
    step = next((step for step in (*fine, *_STEPS) if top / step <= n_ticks), _STEPS[-1])
    return ByteAxis(unit_bytes, unit_name, tuple(round(i * step, 6) for i in range(int(top / step) + 1)))


def empty_figure(theme: Theme, height: int | None, **layout: Any) -> go.Figure:
    """A figure with the house's layout and no traces; keyword arguments replace parts of it."""
    settings: dict[str, Any] = {
        "template": None,
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 8, "b": 32},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT_FAMILY, "size": 12, "color": theme.muted},
        "showlegend": False,
        "dragmode": False,
        "hoverlabel": {
            "bgcolor": theme.surface,
            "bordercolor": theme.faint,
            "font": {"family": FONT_FAMILY, "size": 12, "color": theme.ink},
            "align": "left",
            "namelength": -1,
        },
    }
    return go.Figure(layout=settings | layout)


def bare_axis(**settings: Any) -> dict[str, Any]:
    """An axis without line, ticks, grid or numbers."""
    return {"visible": False, "fixedrange": True, "showgrid": False, "zeroline": False} | settings


def quiet_axis(theme: Theme, **settings: Any) -> dict[str, Any]:
    """An axis with small labels and, where asked for, a faint grid."""
    return {
        "showline": False,
        "zeroline": False,
        "showgrid": False,
        "gridcolor": theme.grid,
        "ticks": "",
        "tickfont": {"size": 12, "color": theme.muted},
    } | settings


def empty_note(text: str, theme: Theme) -> dict[str, Any]:
    """What a picture says that has nothing to draw."""
    font = {"size": 14, "color": theme.muted}
    return {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "text": text, "showarrow": False, "font": font}


def picture_config(*, is_static: bool = False) -> dict[str, Any]:
    """Plotly's own settings for a picture: no tool bar, nothing that would leave the machine."""
    return {"displayModeBar": False, "staticPlot": is_static, "responsive": True, "showTips": False}


def extreme_indices(
    series: Sequence[Int64Array], begin: int, end: int, n_buckets: int, keep: Sequence[int] = ()
) -> Int64Array:
    """Indices in ``begin … end − 1`` at which to draw several series together, ascending and distinct.

    The range is cut into buckets, and of each the first index and every guiding series' lowest and highest are taken,
    so that no peak or trough of a guiding series is lost; a short range is returned whole. All series are to be drawn
    at the same indices: then a stack of them still sums to its total.

    Parameters
    ----------
    series
        int64 (n,) each: the guiding series.
    keep
        Indices to take in any case; those outside the range are left out.

    Notes
    -----
    O(series · (end − begin)); at most ``n_buckets · (2 · len(series) + 1) + len(keep) + 1`` indices.
    """
    n = end - begin
    if n <= n_buckets * (2 * len(series) + 1):
        return np.arange(begin, end, dtype=np.int64)
    width = -(-n // n_buckets)
    n_filled = -(-n // width)
    starts = np.arange(n_filled, dtype=np.int64) * width
    chosen = [starts, np.array([n - 1], np.int64)]
    for values in series:
        padded = np.empty(n_filled * width, np.int64)
        padded[:n] = values[begin:end]
        padded[n:] = values[end - 1]
        buckets = padded.reshape(n_filled, width)
        chosen += [starts + buckets.argmax(axis=1), starts + buckets.argmin(axis=1)]
    kept = np.array([index - begin for index in keep if begin <= index < end], np.int64)
    indices = np.unique(np.concatenate([*chosen, kept]))
    return indices[indices < n] + begin
