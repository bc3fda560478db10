"""The ledger as a table."""

from __future__ import annotations

from dash import html
from dash.development.base_component import Component

from memscope.attribution.ledger import Ledger
from memscope.figures.ledger import empty_rows, ledger_lines
from memscope.units import format_bytes, format_count
from memscope_dashboard.components.text import swatch


def ledger_table(ledger: Ledger) -> list[Component]:
    """Rows with bytes, share and a bar; the sum; and the names of the rows that are empty."""
    widest = max((line.share_frac for line in ledger_lines(ledger)), default=0) or 1
    rows = [
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
        for line in ledger_lines(ledger)
    ]
    total = html.Tr(
        [
            html.Td(f"{ledger.total_of}"),
            html.Td(
                format_bytes(ledger.total_bytes), className="num", title=f"{format_count(ledger.total_bytes)} bytes"
            ),
            html.Td("the sum, to the byte", className="quiet", colSpan=2),
        ],
        className="total",
    )
    table = html.Table([html.Tbody([*rows, total])], className="ledger")
    nothing = ", ".join(empty_rows(ledger))
    return [table, html.P(f"Nothing in: {nothing}", className="quiet small") if nothing else None]
