"""What all pictures share: one palette in a light and a dark cut, fonts, margins, hover labels, axes in binary units.

The category colours are told apart under the three common colour-blindnesses and in grey; red is kept for errors and
out-of-memory, amber for trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.driver_usage import (
    COLLECTIVES,
    CUDA_CONTEXT,
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
)
from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE, PENDING_FREES, ROUNDING
from memscope.errors import UsageError
from memscope.trace.tables import Int64Array
from memscope.units import GiB, KiB, MiB, TiB

FONT_FAMILY = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
MONO_FAMILY = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'

FREE_ROWS = (FREE_RELEASABLE, FREE_PINNED, FREE_PRIVATE_POOLS)
"""The ledger's rows of free memory: drawn hatched, from the lightest hatch to the darkest."""
HATCHED_ROWS = (*FREE_ROWS, UNEXPLAINED)
"""Every row that is drawn hatched: free memory, and what nothing explains."""


@dataclass(frozen=True, slots=True)
class Theme:
    """Every colour that a picture uses.

    Attributes
    ----------
    name
        ``light`` or ``dark``.
    rows
        Colour of each ledger row by its name: the categories, rounding, pending frees, free memory, and those of the
        device's own count.
    ink, muted, faint, grid, surface
        Text, secondary text, marks that should hardly be seen, grid lines, and what lies behind the picture.
    band
        What is merged by level of detail.
    """

    name: str
    rows: dict[str, str]
    ink: str
    muted: str
    faint: str
    grid: str
    surface: str
    band: str
    red: str
    amber: str

    def color(self, row: str) -> str:
        """Colour of a ledger row or category."""
        return self.rows[row]

    def ink_on(self, row: str) -> str:
        """The text colour, dark or light, that reads better on a row's colour."""
        red, green, blue = (int(self.rows[row][i : i + 2], 16) / 255 for i in (1, 3, 5))
        luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        return "#07090C" if luminance > 0.18 else "#FFFFFF"


LIGHT = Theme(
    name="light",
    rows={
        "weights": "#0072B2",
        "gradients": "#56B4E9",
        "optimizer_state": "#8073AC",
        "activations": "#E69F00",
        "kv_cache": "#009E73",
        "inputs": "#B2DF8A",
        "temporaries": "#F0E442",
        "workspace": "#A6761D",
        "communication": "#CC79A7",
        "unknown": "#8A8F98",
        ROUNDING: "#C9CED6",
        PENDING_FREES: "#5B6270",
        FREE_RELEASABLE: "#D5D9E0",
        FREE_PINNED: "#B4BAC4",
        FREE_PRIVATE_POOLS: "#989FAB",
        PYTORCH_RESERVED: "#D5D9E0",
        CUDA_CONTEXT: "#7C8493",
        COLLECTIVES: "#CC79A7",
        NON_PYTORCH: "#5B6270",
        OTHER_PROCESSES: "#2A8C95",
        UNEXPLAINED: "#989FAB",
    },
    ink="#14181F",
    muted="#5B6270",
    faint="#C4C9D2",
    grid="#ECEEF2",
    surface="#FFFFFF",
    band="#A9AFBA",
    red="#C92A2A",
    amber="#B35C00",
)

DARK = Theme(
    name="dark",
    rows={
        "weights": "#4AA3DF",
        "gradients": "#8CD0F5",
        "optimizer_state": "#B2A6DB",
        "activations": "#F5BC42",
        "kv_cache": "#2FC79B",
        "inputs": "#CDEBAE",
        "temporaries": "#F4EC7A",
        "workspace": "#CDA04F",
        "communication": "#E0A3C5",
        "unknown": "#9AA0AA",
        ROUNDING: "#59616E",
        PENDING_FREES: "#C9CED6",
        FREE_RELEASABLE: "#3A424E",
        FREE_PINNED: "#525B69",
        FREE_PRIVATE_POOLS: "#6B7584",
        PYTORCH_RESERVED: "#3A424E",
        CUDA_CONTEXT: "#8B94A3",
        COLLECTIVES: "#E0A3C5",
        NON_PYTORCH: "#6B7280",
        OTHER_PROCESSES: "#56BCC5",
        UNEXPLAINED: "#6B7584",
    },
    ink="#E8EBF0",
    muted="#9AA3B0",
    faint="#3C4450",
    grid="#232932",
    surface="#15191F",
    band="#6B7584",
    red="#FF6B6B",
    amber="#F2A93B",
)

THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_named(name: str) -> Theme:
    """The theme of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in THEMES:
        raise UsageError(f"{name!r} is not a colour scheme: use {' or '.join(THEMES)}")
    return THEMES[name]


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
