"""The categories of a moment with their bytes: a legend that is also a reading."""

from __future__ import annotations

from collections.abc import Iterable

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from memscope.device.device import Moment
from memscope.figures.ledger import ledger_lines
from memscope.trace.categories import CATEGORY_BY_LABEL
from memscope.words.labels import row_label
from memscope_dashboard.components.text import swatch


def category_chips(moment: Moment) -> list[Component]:
    """One chip for each row of the moment's ledger that holds bytes, in stacking order."""
    return [
        html.Span(
            [swatch(line.name), html.Span(line.label, className="chip-name"), html.Span(line.size, className="num")],
            className="chip",
            title=f"{line.exact}{f' — {line.meaning}' if line.meaning else ''}",
        )
        for line in ledger_lines(moment.ledger)
        if line.bytes
    ]


def category_choice(moment: Moment) -> list[Component]:
    """Chips that can be switched on, one for each category that holds bytes at the moment; none on means all."""
    lines = [line for line in ledger_lines(moment.ledger) if line.bytes and line.name in CATEGORY_BY_LABEL]
    return [
        dmc.Chip(
            [swatch(line.name), html.Span(line.label, className="chip-name"), html.Span(line.size, className="num")],
            value=line.name,
            size="xs",
            variant="outline",
            radius="sm",
        )
        for line in lines
    ]


def category_legend(names: Iterable[str]) -> list[Component]:
    """One chip for each ledger row of some moments together: its colour and name, without a size."""
    return [html.Span([swatch(name), html.Span(row_label(name))], className="chip quiet") for name in names]
