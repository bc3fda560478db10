"""The waterfall of a difference: from what one moment holds to what another does, a bar a category or a holder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from memscope.attribution.ledger import FREE_RELEASABLE
from memscope.compare.difference import UNALLOCATED, Difference, Row
from memscope.figures.theme import Theme, byte_axis, empty_figure, quiet_axis
from memscope.units import format_bytes, format_count
from memscope.words.compare import row_name, row_short, signed_bytes
from memscope.words.labels import plain, row_label

_HEADROOM = 1.12
_LEAST_SHARE = 0.25
"""The axis begins above zero where every bar would else be a sliver: so much of its range are the changes then."""


def waterfall_figure(difference: Difference, theme: Theme, height: int = 320) -> go.Figure:
    """Draw both sums, and between them what each category adds or takes; what does not change has no bar."""
    rows = [row for row in difference.categories if row.delta_bytes]
    a_bytes, b_bytes = difference.a.allocated_bytes, difference.b.allocated_bytes
    tops = _tops(a_bytes, rows)
    begin, high = _axis_begin(tops), max(tops)
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


MAX_BARS = 10
_BAR_PX = 30
_LABEL_CHARACTERS = 34


@dataclass(frozen=True, slots=True)
class Step:
    """What one holder, or several small ones together, add or take on the way from one sum to the other.

    Attributes
    ----------
    label, whole
        In few words, and all of them.
    category
        Of its colour; empty where several are together.
    a_bytes, b_bytes
        What both moments hold.
    n_rows
        How many rows it stands for.
    """

    label: str
    whole: str
    category: str
    a_bytes: int
    b_bytes: int
    n_rows: int = 1

    @property
    def delta_bytes(self) -> int:
        """What the second moment holds beyond the first."""
        return self.b_bytes - self.a_bytes


def waterfall_steps(
    difference: Difference, rows: Sequence[Row], *, is_reserved: bool = False, most: int = MAX_BARS
) -> tuple[Step, ...]:
    """What leads from the sum of one moment to that of the other, to the byte: rows without a difference are left out.

    Parameters
    ----------
    rows
        ``difference.rows`` or ``difference.categories``, in the order of the bars.
    is_reserved
        Whether the sums are reserved bytes: what is reserved and not allocated is then a step, too.
    most
        Of the rows; the smallest changes beyond them are one step.
    """
    changed = [row for row in rows if row.delta_bytes]
    kept = sorted(changed, key=lambda row: -abs(row.delta_bytes))[:most] if len(changed) > most + 1 else changed
    names = Counter(row_short(row) for row in kept)
    steps = []
    for row in [row for row in changed if row in kept]:
        label = row_short(row)
        told = f", {row_label(row.category)}" if names[label] > 1 else ""
        steps.append(Step(label + told, row_name(row) + told, row.category, row.a_bytes, row.b_bytes))
    rest = [row for row in changed if row not in kept]
    if rest:
        words = f"{format_count(len(rest))} smaller"
        sums = sum(row.a_bytes for row in rest), sum(row.b_bytes for row in rest)
        steps.append(Step(words, f"{words} changes together", "", *sums, len(rest)))
    unallocated = difference.unallocated
    if is_reserved and unallocated is not None and unallocated.delta_bytes:
        name = row_label(UNALLOCATED)
        steps.append(Step(name, name, UNALLOCATED, unallocated.a_bytes, unallocated.b_bytes))
    return tuple(steps)


def steps_figure(ends: tuple[int, int], steps: Sequence[Step], theme: Theme) -> go.Figure:
    """Draw both sums, and between them what each step adds or takes, from the top down; names stand at the left."""
    tops = [ends[0]]
    for step in steps:
        tops.append(tops[-1] + step.delta_bytes)
    names = [f"{i}" for i in range(len(steps) + 2)]
    labels = ["<b>A</b>", *(plain(step.label, _LABEL_CHARACTERS) for step in steps), "<b>B</b>"]
    figure, begin = _rows_figure(names, labels, tops, theme)
    bars = [(begin, tops[0], theme.muted, format_bytes(ends[0]), _sum_words("A", ends[0]))]
    bars += [
        (low, high, _step_color(step, theme), signed_bytes(step.delta_bytes), _step_words(step))
        for step, low, high in zip(steps, tops, tops[1:], strict=False)
    ]
    bars.append((begin, ends[1], theme.muted, format_bytes(ends[1]), _sum_words("B", ends[1])))
    for name, (start, end, color, text, words) in zip(names, bars, strict=True):
        figure.add_bar(
            orientation="h",
            y=[name],
            x=[end - start],
            base=[start],
            marker={"color": color, "line": {"width": 0}},
            hovertemplate=f"{words}<extra></extra>",
        )
        figure.add_annotation(
            x=max(start, end),
            y=name,
            text=text,
            showarrow=False,
            xanchor="left",
            xshift=4,
            font={"color": theme.ink, "size": 12},
        )
    figure.update_layout(barmode="overlay", shapes=_links(names, tops, theme))
    return figure


def _rows_figure(
    names: Sequence[str], labels: Sequence[str], tops: Sequence[int], theme: Theme
) -> tuple[go.Figure, float]:
    """A figure with a row a bar and room for what is written beside them, and where its axis begins."""
    begin, high = _axis_begin(tops), max(tops)
    axis = byte_axis(int(high))
    ticks = [
        (value * axis.unit_bytes, text)
        for value, text in zip(axis.tick_values, axis.tick_texts, strict=True)
        if value * axis.unit_bytes >= begin
    ]
    rows_axis = quiet_axis(
        theme,
        type="category",
        autorange="reversed",
        automargin=True,
        fixedrange=True,
        tickvals=names,
        ticktext=labels,
        tickfont={"size": 12, "color": theme.ink},
        ticklabelstandoff=6,
    )
    bytes_axis = quiet_axis(
        theme,
        range=[begin, high + (high - begin) * 0.26],
        fixedrange=True,
        showgrid=True,
        tickvals=[value for value, _ in ticks],
        ticktext=[text for _, text in ticks],
        title={"text": f"the axis begins at {format_bytes(int(begin))}" if begin else "", "font": {"size": 12}},
    )
    figure = empty_figure(
        theme,
        _BAR_PX * len(names) + (56 if begin else 36),
        margin={"l": 8, "r": 8, "t": 4, "b": 48 if begin else 28},
        hovermode="closest",
        bargap=0.34,
        yaxis=rows_axis,
        xaxis=bytes_axis,
    )
    return figure, begin


def _axis_begin(tops: Sequence[int]) -> float:
    """Where the axis begins: at zero, unless every change would be a sliver then."""
    low, high = min(tops), max(tops)
    return 0 if high - low >= _LEAST_SHARE * high else max(low - (high - low) / _LEAST_SHARE / 2, 0)


def _links(names: Sequence[str], tops: Sequence[int], theme: Theme) -> list[dict[str, object]]:
    """Thin lines that lead from where a bar ends to where the next one begins."""
    return [
        {
            "type": "line",
            "x0": top,
            "x1": top,
            "y0": i,
            "y1": i + 1,
            "layer": "below",
            "line": {"color": theme.faint, "width": 1},
        }
        for i, top in enumerate(tops[: len(names) - 1])
    ]


def _step_color(step: Step, theme: Theme) -> str:
    if not step.category:
        return theme.band
    return theme.color(FREE_RELEASABLE if step.category == UNALLOCATED else step.category)


def _sum_words(label: str, n_bytes: int) -> str:
    return f"<b>{label}</b><br>{format_bytes(n_bytes)} · {format_count(n_bytes)} bytes"


def _step_words(step: Step) -> str:
    sizes = f"{format_bytes(step.a_bytes)} → {format_bytes(step.b_bytes)}"
    lines = [
        f"<b>{plain(step.whole, 88)}</b>",
        f"{signed_bytes(step.delta_bytes)} · {step.delta_bytes:+,} bytes",
        sizes,
    ]
    if step.category and step.label != row_label(step.category):
        lines.append(row_label(step.category))
    return "<br>".join(lines)
