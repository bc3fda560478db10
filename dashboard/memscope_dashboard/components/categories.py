"""The categories of a moment with their bytes: the ledger as a table, and chips that are a legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from memscope.attribution.driver_usage import DEVICE_ROW_MEANINGS, PYTORCH_RESERVED
from memscope.attribution.ledger import Ledger
from memscope.device.device import Moment
from memscope.figures.ledger import LedgerLine, device_lines, empty_rows, ledger_lines, unmeasured_device_rows
from memscope.trace.categories import CATEGORY_BY_LABEL
from memscope.units import format_bytes, format_count
from memscope.words.labels import row_label
from memscope_dashboard.components.text import size, swatch

_SUM = "the sum, to the byte"


def ledger_table(ledger: Ledger) -> list[Component]:
    """Rows with bytes, share and a bar; the sum; and the names of the rows that are empty."""
    rows = _rows(ledger_lines(ledger))
    body = html.Tbody([*rows, _total(ledger.total_of, ledger.total_bytes)])
    table = html.Table([_head(f"of {ledger.total_of}"), body], className="ledger")
    nothing = ", ".join(empty_rows(ledger))
    return [table, html.P(f"Nothing in: {nothing}", className="quiet small") if nothing else None]


def device_table(ledger: Ledger) -> Component:
    """The rows of the device's own count and their sum; what was not measured is named, never 0."""
    count = ledger.driver_usage
    missing = [_missing_row(name) for name in unmeasured_device_rows(count)]
    if count is not None:
        body = [*_rows(device_lines(count)), *missing, _total("device used", count.total_bytes)]
    else:
        reserved = size(ledger.total_bytes if ledger.total_of == "reserved" else None)
        name = html.Td([swatch(PYTORCH_RESERVED), row_label(PYTORCH_RESERVED)])
        body = [html.Tr([name, html.Td(reserved, className="num"), *_blank()]), *missing]
        total = [html.Td("device used"), html.Td(size(None), className="num"), *_blank()]
        body.append(html.Tr(total, className="total"))
    shares = _head("of device used" if count is not None else "")
    return html.Table([shares, html.Tbody(body)], className="ledger device-ledger")


def _head(shares_of: str) -> Component:
    """What the sizes are, and what the shares are of."""
    return html.Thead(
        html.Tr(
            [html.Th(), html.Th("size", className="num"), html.Th(shares_of, className="num"), html.Th()],
        )
    )


def _rows(lines: Sequence[LedgerLine]) -> list[Component]:
    widest = max((line.share_frac for line in lines), default=0) or 1
    return [
        html.Tr(
            [
                html.Td([swatch(line.name), html.Span(line.label)], title=line.meaning or None),
                html.Td(line.size, className="num", title=line.exact),
                html.Td(line.share, className="num quiet"),
                html.Td(
                    html.Span(
                        className=f"share-bar row-{line.name}",
                        style={"width": f"{100 * line.share_frac / widest:.2f}%"},
                    ),
                    className="bar-cell",
                ),
            ]
        )
        for line in lines
    ]


def _missing_row(name: str) -> Component:
    label = html.Td([swatch(name), html.Span(row_label(name))], title=DEVICE_ROW_MEANINGS[name])
    return html.Tr([label, html.Td(size(None), className="num"), *_blank()])


def _blank() -> list[Component]:
    """The cells of share and bar of a row that has none."""
    return [html.Td(className="num"), html.Td(className="bar-cell")]


def _total(name: str, n_bytes: int) -> Component:
    exact = f"{format_count(n_bytes)} bytes"
    return html.Tr(
        [
            html.Td(name),
            html.Td(format_bytes(n_bytes), className="num", title=exact),
            html.Td(_SUM, className="quiet", colSpan=2),
        ],
        className="total",
    )


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
