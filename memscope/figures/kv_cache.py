"""A recorded key/value cache over events: what its bytes hold, and below it the tokens; and its layers at a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.ledger import FREE_PINNED, PENDING_FREES, ROUNDING
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
from memscope.figures.timeline import TimelineFrame, finished, floats, timeline_frame
from memscope.figures.timeline_data import index_window, timeline_data, x_of_events
from memscope.kv_cache.lens import KvLens, KvRow
from memscope.kv_cache.series import SPLITS
from memscope.trace.schema import NONE_ID
from memscope.words.kv_cache import LABELS

ROWS = {
    "token_bytes": "kv_cache",
    "other_bytes": "workspace",
    "unused_bytes": FREE_PINNED,
    "stale_bytes": PENDING_FREES,
    "untold_bytes": "unknown",
    "rounding_bytes": ROUNDING,
}
"""The ledger row whose colour each part of the cache has."""

_UPPER, _LOWER = (0.34, 1.0), (0.0, 0.24)
_N_BUCKETS = 240
_ROW_PX, _HEAD_PX = 24, 40
MAX_LAYERS_DRAWN = 128


def color_of(name: str, theme: Theme) -> str:
    """Colour of a part of the cache."""
    return theme.color(ROWS[name])


def cache_figure(
    lens: KvLens,
    theme: Theme,
    *,
    axis: str = "event",
    window: tuple[float, float] | None = None,
    moment: int | None = None,
    height: int | None = 420,
) -> go.Figure:
    """Draw a device's key/value cache over its run; shape 0 is always the line of the moment.

    Parameters
    ----------
    axis
        ``event`` or ``time``.
    window
        Visible range of the axis, in its unit.
    moment
        Event after which the line of the moment stands.
    """
    device = lens.device
    if not lens or not device.n_events:
        why = "no key/value cache is known of" if not lens else "no events were recorded: only one moment is known"
        return empty_figure(theme, height, xaxis=bare_axis(), yaxis=bare_axis(), annotations=[empty_note(why, theme)])
    run = timeline_data(device, axis=axis, window=window, n_buckets=2)
    low, high = window or (float(run.x[0]), float(run.x[-1]))
    x = x_of_events(device, axis)
    begin, end = index_window(x, window)
    series, tokens = lens.series, lens.held_tokens
    guides = [series.block_bytes, series.stale_bytes, series.unused_bytes, np.maximum(tokens, 0)]
    chosen = extreme_indices(guides, begin, end, _N_BUCKETS)
    highest = int(series.block_bytes[chosen].max())
    frame = timeline_frame(run, theme, highest_bytes=highest, low=low, high=high, height=height)
    scale = byte_axis(int(max(highest, 1) * 1.06), n_ticks=5)
    is_told = bool((tokens[chosen] != NONE_ID).any() and (tokens > 0).any())
    frame.figure.update_layout(
        yaxis=_bytes_axis(theme, scale, highest, domain=list(_UPPER) if is_told else [0, 1]),
        xaxis={"anchor": "y2" if is_told else "y"},
        hoversubplots="axis",
        margin={"t": 18},
    )
    _add_layers(frame.figure, lens, chosen, x[chosen], theme, scale)
    notes = _add_tokens(frame.figure, tokens[chosen], x[chosen], theme) if is_told else []
    return finished(_without_capacity(frame, scale, highest), run, theme, moment=moment, notes=notes)


def _without_capacity(frame: TimelineFrame, scale: ByteAxis, highest: int) -> TimelineFrame:
    """The device's memory is not what a cache is drawn against."""
    return TimelineFrame(frame.figure, scale, highest, frame.low, frame.high, None, is_capacity_in_sight=False)


def _bytes_axis(theme: Theme, scale: ByteAxis, highest: int, **settings: Any) -> dict[str, Any]:
    return quiet_axis(
        theme,
        showgrid=True,
        range=[0, max(highest, 1) * 1.08 / scale.unit_bytes],
        tickmode="array",
        tickvals=scale.tick_values,
        ticktext=scale.tick_texts,
        fixedrange=True,
        **settings,
    )


def _add_layers(
    figure: go.Figure, lens: KvLens, chosen: np.ndarray, x: np.ndarray, theme: Theme, scale: ByteAxis
) -> None:
    for name in SPLITS:
        values = getattr(lens.series, name)[chosen]
        if not values.any():
            continue
        color = color_of(name, theme)
        figure.add_scatter(
            x=x,
            y=floats(values, scale),
            name=LABELS[name],
            stackgroup="cache",
            mode="lines",
            line={"width": 0, "shape": "hv", "color": color},
            fillcolor=color,
            fillpattern=hatch(FREE_PINNED, theme) if name == "unused_bytes" else {"shape": ""},
            hovertemplate=f"%{{y:,.2f}} {scale.unit_name}",
        )


def _add_tokens(figure: go.Figure, tokens: np.ndarray, x: np.ndarray, theme: Theme) -> list[dict[str, Any]]:
    """Draw the tokens held; a gap where they are not told. The note that names the line."""
    told = tokens != NONE_ID
    top = int(tokens.max())
    figure.update_layout(
        yaxis2=quiet_axis(
            theme,
            showgrid=True,
            domain=list(_LOWER),
            anchor="x",
            range=[0, top * 1.15],
            tickformat=",d",
            nticks=3,
            fixedrange=True,
        )
    )
    figure.add_scatter(
        x=x,
        y=np.where(told, tokens, np.nan),
        name="tokens held",
        mode="lines",
        line={"width": 2, "shape": "hv", "color": theme.ink},
        hovertemplate="%{y:,d}",
        yaxis="y2",
    )
    gap = "" if told.all() else "; gaps: not told"
    return [
        {
            "xref": "paper",
            "x": 0.005,
            "xanchor": "left",
            "yref": "paper",
            "y": _LOWER[1] + 0.005,
            "yanchor": "bottom",
            "text": f"tokens held by all sequences{gap}",
            "showarrow": False,
            "bgcolor": theme.surface,
            "font": {"size": 12, "color": theme.muted},
        }
    ]


def layers_height(n_rows: int) -> int:
    """Height of the picture of layers, in pixels."""
    return _HEAD_PX + _ROW_PX * max(min(n_rows, MAX_LAYERS_DRAWN), 1)


def layers_figure(rows: tuple[KvRow, ...], theme: Theme) -> go.Figure:
    """Draw layers (or caches) at a moment as one bar each, split by what the bytes hold; the first is at the top."""
    shown = rows[:MAX_LAYERS_DRAWN]
    if not shown:
        note = [empty_note("nothing of the cache is there at this moment", theme)]
        return empty_figure(theme, layers_height(3), xaxis=bare_axis(), yaxis=bare_axis(), annotations=note)
    highest = max(row.block_bytes for row in shown)
    scale = byte_axis(int(max(highest, 1) * 1.02), n_ticks=4)
    figure = empty_figure(
        theme,
        layers_height(len(shown)),
        margin={"l": 24 + 7 * max(len(row.name) for row in shown), "r": 24, "t": 4, "b": 28},
        barmode="stack",
        bargap=0.25,
        hovermode="closest",
        xaxis=quiet_axis(
            theme,
            showgrid=True,
            range=[0, max(highest, 1) * 1.02 / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            fixedrange=True,
        ),
        yaxis=quiet_axis(
            theme,
            range=[len(shown) - 0.5, -0.5],
            tickmode="array",
            tickvals=list(range(len(shown))),
            ticktext=[row.name for row in shown],
            tickfont={"size": 12, "color": theme.ink},
            ticklabelstandoff=6,
            fixedrange=True,
        ),
    )
    for name in SPLITS:
        sizes = [getattr(row, name) for row in shown]
        if not any(sizes):
            continue
        figure.add_bar(
            y=list(range(len(shown))),
            x=[size / scale.unit_bytes for size in sizes],
            orientation="h",
            name=LABELS[name],
            marker={
                "color": color_of(name, theme),
                "pattern": hatch(FREE_PINNED, theme) if name == "unused_bytes" else {"shape": ""},
                "line": {"width": 0},
            },
            customdata=[f"{size:,} B" for size in sizes],
            hovertemplate=f"%{{customdata}}<extra>{LABELS[name]}</extra>",
        )
    return figure
