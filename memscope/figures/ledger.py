"""The ledger as lines of a table and as one stacked bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from memscope.attribution.driver_usage import (
    DEVICE_ROW_MEANINGS,
    NON_PYTORCH,
    OTHER_PROCESSES,
    UNEXPLAINED,
    DriverUsage,
    LedgerRow,
)
from memscope.attribution.ledger import PENDING_FREES, ROW_MEANINGS, Ledger
from memscope.figures.theme import HATCHED_ROWS, Theme, bare_axis, empty_figure
from memscope.trace.categories import Category
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.labels import row_label

_MIN_TEXT_FRAC = 0.055
_CHARACTER_FRAC = 0.0135
"""Width of a character, as a share of a bar of the width it has in the app."""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One row of a ledger, ready to be shown.

    Attributes
    ----------
    name, label
        For machines and for people.
    size, share, exact
        ``503.2 MiB``, ``49.6 %`` and ``527,625,620 bytes``.
    share_frac
        Share of the ledger's total, 0 where that is 0.
    meaning
        What the row says, empty for a category.
    is_hatched
        Whether it is free memory or unexplained, which are drawn hatched.
    """

    name: str
    label: str
    bytes: int
    size: str
    share: str
    exact: str
    share_frac: float
    meaning: str
    is_hatched: bool


def ledger_lines(ledger: Ledger) -> list[LedgerLine]:
    """The rows that hold bytes, in stacking order; ``unknown`` always, because nothing is guessed away."""
    return _lines(ledger.rows, ledger.total_bytes, ROW_MEANINGS, Category.UNKNOWN.label)


def device_lines(count: DriverUsage) -> list[LedgerLine]:
    """The rows of a device's own count that hold bytes, PyTorch's first; ``unexplained`` always."""
    return _lines(count.rows, count.total_bytes, DEVICE_ROW_MEANINGS, UNEXPLAINED)


def unmeasured_device_rows(count: DriverUsage | None) -> list[str]:
    """Names of the rows of a device's own count that nothing measured; their bytes are among the unexplained."""
    measured = set() if count is None else {row.name for row in count.rows}
    return [name for name in (NON_PYTORCH, OTHER_PROCESSES) if name not in measured]


def _lines(rows: Sequence[LedgerRow], total_bytes: int, meanings: dict[str, str], always: str) -> list[LedgerLine]:
    return [
        LedgerLine(
            name=row.name,
            label=row_label(row.name),
            bytes=row.bytes,
            size=format_bytes(row.bytes),
            share=format_fraction(row.bytes / total_bytes) if total_bytes else "",
            exact=f"{format_count(row.bytes)} bytes",
            share_frac=row.bytes / total_bytes if total_bytes else 0.0,
            meaning=meanings.get(row.name, ""),
            is_hatched=row.name in HATCHED_ROWS,
        )
        for row in rows
        if row.bytes or row.name == always
    ]


def empty_rows(ledger: Ledger) -> list[str]:
    """Labels of the rows that hold nothing and are therefore not drawn."""
    return [row_label(row.name) for row in ledger.rows if not row.bytes and row.name != Category.UNKNOWN.label]


def hatch(name: str, theme: Theme) -> dict[str, object]:
    """Plotly's fill of a ledger row: plain, hatched for free memory, dotted for pending frees."""
    color = theme.color(name)
    if name in HATCHED_ROWS:
        return {
            "shape": "/",
            "fillmode": "replace",
            "fgcolor": color,
            "bgcolor": theme.surface,
            "size": 6,
            "solidity": 0.4,
        }
    if name == PENDING_FREES:
        return {"shape": ".", "fgcolor": theme.surface, "bgcolor": color, "size": 5, "solidity": 0.3}
    return {"shape": ""}


def ledger_figure(ledger: Ledger, theme: Theme, height: int = 64) -> go.Figure:
    """Draw a ledger as one bar; the rows wide enough carry their name and size."""
    figure = empty_figure(
        theme,
        height,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        barmode="stack",
        hovermode="closest",
        xaxis=bare_axis(range=[0, max(ledger.total_bytes, 1)]),
        yaxis=bare_axis(range=[-0.5, 0.5]),
    )
    begin = 0
    for line in ledger_lines(ledger):
        if not line.bytes:
            continue
        share = f"{line.share} of {ledger.total_of}"
        fits = line.share_frac >= max(_MIN_TEXT_FRAC, _CHARACTER_FRAC * max(len(line.label), len(line.size)))
        figure.add_bar(
            x=[line.bytes],
            y=[0],
            orientation="h",
            width=1,
            name=line.label,
            marker={
                "color": theme.color(line.name),
                "pattern": hatch(line.name, theme),
                "line": {"width": 1, "color": theme.surface},
            },
            text=[f"{line.label}<br><b>{line.size}</b>" if fits and not line.is_hatched else ""],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            constraintext="none",
            textfont={"color": theme.ink_on(line.name), "size": 12},
            hovertemplate=f"<b>{line.label}</b><br>{line.size} · {share}<br>{line.exact}<extra></extra>",
        )
        if fits and line.is_hatched:
            figure.add_annotation(
                x=begin + line.bytes / 2,
                y=0,
                text=f"{line.label}<br><b>{line.size}</b>",
                showarrow=False,
                bgcolor=theme.surface,
                borderpad=2,
                font={"color": theme.ink, "size": 12},
            )
        begin += line.bytes
    return figure
