"""The waterfall of a difference: from what one moment holds to what another does, a bar a category."""

from __future__ import annotations

import plotly.graph_objects as go

from memscope.compare.difference import Difference, Row
from memscope.figures.theme import Theme, byte_axis, empty_figure, quiet_axis
from memscope.units import format_bytes
from memscope.words.compare import signed_bytes
from memscope.words.labels import row_label

_HEADROOM = 1.12
_LEAST_SHARE = 0.25
"""The axis begins above zero where every bar would else be a sliver: so much of its range are the changes then."""


def waterfall_figure(difference: Difference, theme: Theme, height: int = 320) -> go.Figure:
    """Draw both sums, and between them what each category adds or takes; what does not change has no bar."""
    rows = [row for row in difference.categories if row.delta_bytes]
    a_bytes, b_bytes = difference.a.allocated_bytes, difference.b.allocated_bytes
    tops = _tops(a_bytes, rows)
    low, high = min(tops), max(tops)
    begin = 0 if high - low >= _LEAST_SHARE * high else max(low - (high - low) / _LEAST_SHARE / 2, 0)
    axis = byte_axis(int(high * _HEADROOM))
    figure = empty_figure(
        theme,
        height,
        margin={"l": 8, "r": 8, "t": 16, "b": 8},
        showlegend=False,
        hovermode="closest",
        xaxis=quiet_axis(theme, type="category"),
        yaxis=quiet_axis(
            theme,
            range=[begin, begin + (high - begin) * _HEADROOM],
            tickvals=[] if begin else [value * axis.unit_bytes for value in axis.tick_values],
            ticktext=[] if begin else axis.tick_texts,
        ),
    )
    if begin:
        figure.add_annotation(
            x=0,
            y=1,
            xref="paper",
            yref="paper",
            text=f"the axis begins at {format_bytes(int(begin))}",
            showarrow=False,
            xanchor="left",
            yanchor="top",
            font={"color": theme.muted, "size": 12},
        )
    _add_bar(figure, "A", begin, a_bytes, theme.muted, format_bytes(a_bytes), theme)
    below = a_bytes
    for row in rows:
        color = theme.color(row.category)
        _add_bar(
            figure, row_label(row.key), below, below + row.delta_bytes, color, signed_bytes(row.delta_bytes), theme
        )
        below += row.delta_bytes
    _add_bar(figure, "B", begin, b_bytes, theme.muted, format_bytes(b_bytes), theme)
    return figure


def _tops(first: int, rows: list[Row]) -> list[int]:
    """Where each bar ends."""
    tops = [first]
    for row in rows:
        tops.append(tops[-1] + row.delta_bytes)
    return tops


def _add_bar(figure: go.Figure, label: str, begin: float, end: float, color: str, words: str, theme: Theme) -> None:
    figure.add_bar(
        x=[label],
        y=[end - begin],
        base=[begin],
        marker={"color": color, "line": {"width": 0}},
        width=0.7,
        hovertemplate=f"<b>{label}</b><br>{words}<extra></extra>",
    )
    figure.add_annotation(
        x=label,
        y=max(begin, end),
        text=words,
        showarrow=False,
        yanchor="bottom",
        font={"color": theme.ink, "size": 12},
    )
