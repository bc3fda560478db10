"""Ranks side by side: a bar of each one's peak, and a table of colours, rank by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from memscope.figures.theme import ByteAxis, Theme, byte_axis, empty_figure, empty_note, quiet_axis
from memscope.figures.timeline import capacity_line, capacity_note
from memscope.ranks.comparison import AlignedStep, RankComparison, StepUse
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count
from memscope.words.labels import plain, row_label

MEASURES = ("allocated", "reserved")
"""What a table of steps can show the highest of."""
_CAPACITY_IN_SIGHT = 1.6
_BAR_WIDTH = 0.72
_MAX_LABELLED = 10
"""Up to so many bars carry their sizes, and so many columns of a table theirs."""
_MAX_NAMED = 24
_MAX_COLUMNS = 240
_LABEL_LIMIT = 28
_AXIS_CHARACTERS = 75
"""How much all names along an axis may take together."""
_NAME_PX = 6.6
"""Width of a character beside a table of colours."""
_UNMEASURED = -1


def row_names(comparison: RankComparison) -> list[str]:
    """The rows' names, as text: they may be names of files."""
    return [plain(row.label) for row in comparison.rows]


def rank_labels(comparison: RankComparison) -> list[str]:
    """The rows' names as they stand along an axis."""
    return [name.replace(", device ", "<br>device ") for name in row_names(comparison)]


def ranks_figure(
    comparison: RankComparison, theme: Theme, *, chosen: int | None = None, height: int | None = 300
) -> go.Figure:
    """Draw each rank's peak: allocated bytes by category as a bar, the highest reserved as its outline.

    Shape 0 is what stands behind the chosen rank.

    Parameters
    ----------
    chosen
        The row to set off, None for none.
    """
    reserved = [None if row.peak_reserved is None else row.peak_reserved.reserved_bytes for row in comparison.rows]
    capacities = {row.total_bytes for row in comparison.rows}
    highest = max(max(row.peak.allocated_bytes for row in comparison.rows), *[size or 0 for size in reserved], 1)
    capacity = capacities.pop() if len(capacities) == 1 else None
    is_in_sight = capacity is not None and capacity <= _CAPACITY_IN_SIGHT * highest
    top = max(highest, capacity or 0) if is_in_sight else highest
    scale = byte_axis(int(top * 1.06))
    is_labelled = len(comparison.rows) <= _MAX_LABELLED
    figure = empty_figure(
        theme,
        height,
        margin={"l": 72, "r": 24, "t": 12, "b": 44 if any("<br>" in text for text in rank_labels(comparison)) else 28},
        barmode="overlay",
        hovermode="x unified",
        xaxis=_rank_axis(comparison, theme),
        yaxis=quiet_axis(
            theme,
            showgrid=True,
            range=[0, top * (1.24 if is_labelled else 1.08) / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            fixedrange=True,
        ),
    )
    _add_categories(figure, comparison, theme, scale)
    _add_reserved(figure, comparison, reserved, theme, scale)
    _add_out_of_memory(figure, comparison, reserved, theme, scale)
    shapes, notes = [_behind(chosen, theme)], _sizes(comparison, reserved, scale, theme) if is_labelled else []
    if capacity is not None:
        notes.append(capacity_note(capacity, is_in_sight, theme, scale))
        if is_in_sight:
            shapes.append(capacity_line(capacity, theme, scale))
    figure.update_layout(shapes=shapes, annotations=notes)
    return figure


def _rank_axis(comparison: RankComparison, theme: Theme) -> dict[str, Any]:
    """The ranks side by side; many are named by their numbers, and of very many not all."""
    labels = rank_labels(comparison)
    named = labels[:: -(-len(labels) // _MAX_NAMED)]
    if not comparison.is_one_run:
        rows = [row.label for row in comparison.rows][:: -(-len(labels) // _MAX_NAMED)]
        texts = [plain(label, max(_AXIS_CHARACTERS // len(named), 8)) for label in rows]
    else:
        texts = named if len(labels) <= _MAX_LABELLED else [label.removeprefix("rank ") for label in named]
    return quiet_axis(
        theme,
        type="category",
        fixedrange=True,
        range=[-0.5, len(labels) - 0.5],
        tickmode="array",
        tickvals=named,
        ticktext=texts,
        tickangle=0,
    )


def _behind(chosen: int | None, theme: Theme) -> dict[str, Any]:
    at = 0 if chosen is None else chosen
    ends = {"xref": "x", "yref": "paper", "x0": at - 0.46, "x1": at + 0.46, "y0": 0, "y1": 1}
    looks = {"line": {"width": 0}, "fillcolor": theme.grid, "layer": "below"}
    return {"type": "rect", "visible": chosen is not None, **ends, **looks}


def _add_categories(figure: go.Figure, comparison: RankComparison, theme: Theme, scale: ByteAxis) -> None:
    labels = rank_labels(comparison)
    below = np.zeros(len(labels), np.int64)
    for name in dict.fromkeys(name for row in comparison.rows for name in row.category_bytes):
        sizes = np.array([row.category_bytes.get(name, 0) for row in comparison.rows], np.int64)
        if not sizes.any():
            continue
        figure.add_bar(
            x=labels,
            y=sizes / scale.unit_bytes,
            base=below / scale.unit_bytes,
            width=_BAR_WIDTH,
            name=row_label(name),
            marker={"color": theme.color(name), "line": {"width": 0}},
            customdata=[format_bytes(size) for size in sizes.tolist()],
            hovertemplate="%{customdata}",
        )
        below = below + sizes


def _add_reserved(
    figure: go.Figure, comparison: RankComparison, reserved: list[int | None], theme: Theme, scale: ByteAxis
) -> None:
    figure.add_bar(
        x=rank_labels(comparison),
        y=[None if size is None else size / scale.unit_bytes for size in reserved],
        width=_BAR_WIDTH,
        name="highest reserved",
        marker={"color": "rgba(0,0,0,0)", "line": {"width": 2, "color": theme.ink}},
        customdata=["" if size is None else format_bytes(size) for size in reserved],
        hovertemplate="<b>%{customdata}</b>",
    )


def _add_out_of_memory(
    figure: go.Figure, comparison: RankComparison, reserved: list[int | None], theme: Theme, scale: ByteAxis
) -> None:
    rows = [i for i, row in enumerate(comparison.rows) if row.oom_events]
    if not rows:
        return
    labels = rank_labels(comparison)
    counts = [len(comparison.rows[i].oom_events) for i in rows]
    figure.add_scatter(
        x=[labels[i] for i in rows],
        y=[(reserved[i] or comparison.rows[i].peak.allocated_bytes) / scale.unit_bytes for i in rows],
        mode="markers",
        name="out of memory",
        marker={"symbol": "x", "size": 10, "color": theme.red, "line": {"width": 1, "color": theme.surface}},
        customdata=["once" if n == 1 else f"{format_count(n)} times" for n in counts],
        hovertemplate="%{customdata}",
    )


def _sizes(
    comparison: RankComparison, reserved: list[int | None], scale: ByteAxis, theme: Theme
) -> list[dict[str, Any]]:
    """The sizes above each bar: allocated, and below it reserved."""
    notes = []
    for label, row, size in zip(rank_labels(comparison), comparison.rows, reserved, strict=True):
        under = "" if size is None else f"<br>{format_bytes(size)}"
        at = max(row.peak.allocated_bytes, size or 0) / scale.unit_bytes
        notes.append(
            {
                "x": label,
                "y": at,
                "yanchor": "bottom",
                "yshift": 6 if row.oom_events else 2,
                "text": f"<b>{format_bytes(row.peak.allocated_bytes)}</b>{under}",
                "showarrow": False,
                "font": {"color": theme.ink, "size": 12},
            }
        )
    return notes


@dataclass(frozen=True, slots=True)
class StepTable:
    """The highest bytes of each row in each column of steps.

    Attributes
    ----------
    columns
        Half-open ranges of positions in the comparison's steps; more than one step each where there are too many.
    titles
        The columns' names, distinct, with markup escaped.
    highest_bytes
        int64 (rows, columns), −1 where a row recorded none of the column's steps, or not this measure.
    step
        int64 (rows, columns): the step of that highest, −1 where there is none.
    """

    columns: tuple[tuple[int, int], ...]
    titles: tuple[str, ...]
    highest_bytes: Int64Array
    step: Int64Array


def step_table(comparison: RankComparison, measure: str = MEASURES[0], max_columns: int = _MAX_COLUMNS) -> StepTable:
    """Put steps into columns, several in each where there are more than ``max_columns``."""
    steps = comparison.steps
    width = max(-(-len(steps) // max_columns), 1)
    columns = tuple((begin, min(begin + width, len(steps))) for begin in range(0, len(steps), width))
    whole = np.array([[_bytes_of(use, measure) for use in step.uses] for step in steps], np.int64)
    whole = whole.reshape(len(steps), len(comparison.rows))
    best = np.full((len(comparison.rows), len(columns)), _UNMEASURED, np.int64)
    where = best.copy()
    for position, (begin, end) in enumerate(columns):
        best[:, position] = whole[begin:end].max(axis=0)
        where[:, position] = begin + whole[begin:end].argmax(axis=0)
    where[best == _UNMEASURED] = _UNMEASURED
    titles = [_column_title(steps[begin], steps[end - 1]) for begin, end in columns]
    seen: dict[str, int] = {}
    distinct = []
    for title in titles:
        seen[title] = seen.get(title, 0) + 1
        distinct.append(title if seen[title] == 1 else f"{title} #{seen[title]}")
    return StepTable(columns, tuple(distinct), best, where)


def _bytes_of(use: StepUse | None, measure: str) -> int:
    size = None if use is None else use.allocated_bytes if measure == MEASURES[0] else use.reserved_bytes
    return _UNMEASURED if size is None else size


def _column_title(first: AlignedStep, last: AlignedStep) -> str:
    title = plain(first.title, _LABEL_LIMIT)
    return title if first is last else f"{title} – {plain(last.title, _LABEL_LIMIT)}"


def steps_figure(
    comparison: RankComparison, theme: Theme, *, measure: str = MEASURES[0], height: int | None = None
) -> go.Figure:
    """Draw the highest bytes of each rank in each step, by colour and, where there is room, in figures."""
    if not comparison.steps:
        note = empty_note("no steps were recorded: mark them with rec.step()", theme)
        axis = {"visible": False, "fixedrange": True}
        return empty_figure(theme, height, xaxis=axis, yaxis=axis, annotations=[note])
    table = step_table(comparison, measure)
    known = table.highest_bytes[table.highest_bytes != _UNMEASURED]
    low, high = (int(known.min()), int(known.max())) if len(known) else (0, 1)
    scale = byte_axis(max(high, 1))
    is_written = len(table.columns) <= _MAX_LABELLED
    names = [plain(row.label, _LABEL_LIMIT) for row in comparison.rows]
    values = np.where(table.highest_bytes == _UNMEASURED, np.nan, table.highest_bytes / scale.unit_bytes)
    figure = empty_figure(
        theme,
        height,
        margin={"l": max(104, int(24 + _NAME_PX * max(map(len, names)))), "r": 24, "t": 8, "b": 28},
        hovermode="closest",
        xaxis=quiet_axis(theme, type="category", fixedrange=True, nticks=min(len(table.columns), 8)),
        yaxis=quiet_axis(
            theme,
            type="category",
            fixedrange=True,
            autorange="reversed",
            ticklabelstandoff=8,
            tickmode="array",
            tickvals=row_names(comparison),
            ticktext=names,
        ),
    )
    figure.add_heatmap(
        x=table.titles,
        y=row_names(comparison),
        z=values.astype(np.float32),
        zmin=low / scale.unit_bytes,
        zmax=max(high, low + 1) / scale.unit_bytes,
        colorscale="Viridis",
        xgap=1 if len(table.columns) <= 80 else 0,
        ygap=1,
        text=_texts(table) if is_written else None,
        texttemplate="%{text}" if is_written else None,
        hoverongaps=False,
        hovertemplate=f"%{{y}}, %{{x}}<br><b>%{{z:,.1f}} {scale.unit_name}</b> {measure}<extra></extra>",
        colorbar={
            "thickness": 8,
            "outlinewidth": 0,
            "tickmode": "array",
            "tickvals": [low / scale.unit_bytes, high / scale.unit_bytes],
            "ticktext": [format_bytes(low), format_bytes(high)],
            "tickfont": {"size": 12, "color": theme.muted},
            "ticks": "",
        },
        showscale=not is_written and high > low,
    )
    return figure


def _texts(table: StepTable) -> list[list[str]]:
    return [["" if size == _UNMEASURED else format_bytes(size) for size in row] for row in table.highest_bytes.tolist()]
