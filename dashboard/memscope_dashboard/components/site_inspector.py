"""The inspector of a call or a module that was chosen in the flame graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import dcc, html
from dash.development.base_component import Component

from memscope.device.device import Moment
from memscope.figures.flame_data import FlameKind, frame_label
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.units import format_count, format_fraction
from memscope.words.labels import row_label
from memscope_dashboard.components.text import facts, size, swatch
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query

_N_LARGEST = 6
_N_CALLERS = 40


def inspect_narrowing(moment: Moment, narrowing: Narrowing, query: Query) -> list[Any]:
    """What a call or a module holds at a moment: how much, of what, its callers, its largest allocations."""
    rows = narrowing.rows(moment)
    table = moment.lifetimes.allocations
    n_bytes, total = int(table.block_bytes[rows].sum()), moment.allocated_bytes
    what = "module" if narrowing.kind is FlameKind.MODULES else "call, with what it calls"
    share = f"{format_fraction(n_bytes / total)} of allocated" if total else ""
    end = {"type": "widen", "at": "inspector"}
    return [
        html.Div(
            [
                html.Div(what, className="inspector-category"),
                html.Button("✕", id=end, className="unpin", title="Show all", type="button"),
            ],
            className="inspector-head",
        ),
        html.Div(size(n_bytes), className="inspector-size"),
        html.Div(narrowing.label(moment.device.trace), className="inspector-owner"),
        facts(
            [
                ("share", share),
                ("requested", size(int(table.requested_bytes[rows].sum()))),
                ("allocations", format_count(len(rows))),
            ]
        ),
        dcc.Link("show them in the table", href=f"/allocations{query.search()}", className="link small"),
        *_categories(moment, rows, n_bytes),
        *_callers(moment, narrowing),
        *_largest(moment, rows),
    ]


def _categories(moment: Moment, rows: np.ndarray, total: int) -> list[Component]:
    if not len(rows):
        return [html.P("Nothing of it is allocated at this moment.", className="quiet")]
    sums = np.zeros(len(Category), np.int64)
    category = moment.device.attribution.category[rows]
    np.add.at(sums, category, moment.lifetimes.allocations.block_bytes[rows])
    lines = [
        html.Div(
            [
                swatch(kind.label),
                html.Span(row_label(kind.label)),
                html.Span(format_fraction(int(sums[kind]) / total), className="quiet share"),
                size(int(sums[kind])),
            ],
            className="neighbour",
        )
        for kind in sorted(Category, key=lambda kind: -int(sums[kind]))
        if sums[kind]
    ]
    return [html.H3("Holds"), html.Div(lines, className="neighbours")]


def _callers(moment: Moment, narrowing: Narrowing) -> list[Component]:
    if narrowing.kind is FlameKind.MODULES or narrowing.path == (NONE_ID,):
        return []
    trace = moment.device.trace
    lines = []
    for depth, frame_id in enumerate(reversed(narrowing.path[-_N_CALLERS:])):
        frame = trace.frame(int(frame_id))
        label = frame_label(trace, int(frame_id))
        name = [
            html.Span(frame.name, className="frame-name"),
            html.Span(label.rsplit(" (", 1)[-1].rstrip(")"), className="frame-file"),
        ]
        title = f"{frame.filename}:{frame.line}"
        lines.append(html.Div(name, className="frame own" if not depth else "frame", title=title))
    n = len(narrowing.path)
    words = f"{n} call{'s' if n > 1 else ''}, innermost first"
    return [html.H3(["Called by", html.Span(words, className="quiet")]), html.Div(lines, className="stack")]


def _largest(moment: Moment, rows: np.ndarray) -> list[Component]:
    if not len(rows):
        return []
    device = moment.device
    buttons = []
    for row in rows[:_N_LARGEST].tolist():
        category = device.category_of(row).label
        owner = device.owner_of(row) or row_label(category)
        n_bytes = size(int(device.allocations.block_bytes[row]))
        parts = [swatch(category), html.Span(owner, title=owner, className="cut"), n_bytes]
        pin = {"type": "pin-row", "row": row}
        buttons.append(html.Button(parts, id=pin, className="neighbour link", type="button"))
    n = len(rows)
    of = f"{min(n, _N_LARGEST)} of {format_count(n)}"
    return [html.H3(["Largest", html.Span(of, className="quiet")]), html.Div(buttons, className="neighbours")]
