"""Small pieces of text: headings, sizes with their exact bytes, key–value lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from memscope.figures.theme import picture_config
from memscope.trace.trace import Trace
from memscope.units import format_bytes, format_count
from memscope.words.labels import NOT_MEASURED

_QUANTITY = re.compile(r"([\d.,]+ (?:[KMGT]iB|B|%))")


def size(n_bytes: int | None) -> Component:
    """A size with its exact bytes on hover, or "not measured"."""
    if n_bytes is None:
        return html.Span(NOT_MEASURED, className="not-measured")
    return html.Span(format_bytes(n_bytes), title=f"{format_count(n_bytes)} bytes", className="num")


def finding(text: str) -> list[Any]:
    """A view's title, in which a number is never parted from its unit."""
    return [html.Span(part, className="num") if i % 2 else part for i, part in enumerate(_QUANTITY.split(text))]


def view_heading(title_id: str, note_id: str | None = None, controls: Sequence[Any] = ()) -> Component:
    """A view's head: the finding, a quiet line below it, controls to the right."""
    words = [html.H1(id=title_id, className="finding")]
    if note_id is not None:
        words.append(html.Div(id=note_id, className="quiet"))
    return html.Div(
        [html.Div(words, className="words"), html.Div(list(controls), className="controls")], className="head"
    )


def swatch(row: str) -> Component:
    """The colour of a ledger row, hatched where the pictures hatch it."""
    return html.Span(className=f"swatch row-{row}", **{"aria-hidden": "true"})


def facts(pairs: Sequence[tuple[str, Any]]) -> Component:
    """A list of names and values; pairs without a value are left out."""
    rows = [html.Div([html.Dt(name), html.Dd(value)]) for name, value in pairs if value is not None]
    return html.Dl(rows, className="facts")


def recording_notes(trace: Trace) -> list[Component]:
    """What this way of recording cannot see, folded up; nothing where it has no notes."""
    notes = [html.Li(text) for text in trace.metadata.shown_notes]
    if not notes:
        return []
    how_many = f"{len(notes)} note{'s' if len(notes) > 1 else ''} on this way of recording"
    return [html.Details([html.Summary(how_many), html.Ul(notes, className="notes")])]


def tile(label: str, value: Any, note: Any) -> Component:
    """One of a view's main numbers, with a quiet line below it."""
    parts = [(label, "tile-label"), (value, "tile-value"), (note, "quiet")]
    return html.Div([html.Div(part, className=name) for part, name in parts], className="tile")


def section(title: str, *children: Any, id: str | None = None) -> Component:  # noqa: A002
    """A titled panel."""
    names = {} if id is None else {"id": id}
    return html.Section([html.H2(title), *children], className="panel", **names)


def picture(id_: str, class_name: str = "", *, is_static: bool = False) -> Component:
    """A place for a figure, blank until it comes."""
    blank = {"visible": False}
    clear = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": blank, "yaxis": blank}
    figure = {"data": [], "layout": {**clear, "shapes": [blank]}}
    return dcc.Graph(id=id_, figure=figure, config=picture_config(is_static=is_static), className=class_name)


def code_line(line: str) -> Component:
    """A line of code, or a setting, to copy."""
    copy = dmc.CopyButton(value=line, children="copy", copiedChildren="copied", size="compact-xs", variant="default")
    return html.Div([html.Code(line), copy], className="tuned-line")
