"""Findings as a list: each leads to the view and the moment that prove it."""

from __future__ import annotations

import json
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.errors import MemscopeError
from memscope.findings.finding import Finding, Findings
from memscope.trace.schema import NONE_ID
from memscope.units import format_count
from memscope.words.labels import short_place, split_site
from memscope_dashboard.components.inspector import pin_data
from memscope_dashboard.components.text import finding as with_units
from memscope_dashboard.components.text import section, size
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

_VIEWS = {"timeline": "timeline", "map": "address map", "allocations": "allocations", "kv": "KV cache"}


def layout() -> Component:
    """The place of the findings."""
    return section("Findings", html.Div(id="overview-findings", className="finding-place"))


def finding_list(findings: Findings, query: Query) -> list[Component]:
    """A device's findings, worst first, and what could not be looked for.

    Each stands in an element ``{"type": "finding", "index": i, "pin": …}``, so that a click can also pin what shows it:
    what is to be pinned is in the element, because the page is on its way to another when the click is heard.
    """
    items = [_item(one, query, position) for position, one in enumerate(findings.findings)]
    shown = [html.Ul(items, className="findings")] if items else [html.P("Nothing found that needs attention.")]
    notes = [html.Div(f"{note[:1].upper()}{note[1:]}.") for note in findings.notes]
    return [*shown, html.Div(notes, className="quiet small finding-notes") if notes else None]


def _item(one: Finding, query: Query, position: int) -> Component:
    target = Query(query.trace_id, one.device, one.event).search()
    when = "at the start" if one.event == NONE_ID else f"at event {format_count(one.event)}"
    view = _VIEWS.get(one.view, one.view)
    link = dcc.Link(f"{view} {when}", href=f"/{one.view}{target}", className="link")
    return html.Li(
        [
            html.Span(one.severity.label, className=f"severity severity-{one.severity.label}"),
            html.Div(
                [
                    html.Div(with_units(one.title), className="finding-title"),
                    html.Div(one.text, className="quiet"),
                    html.Div(one.fix_words) if one.fix else None,
                    html.Div([_site(site) for site in one.sites], className="finding-sites") if one.sites else None,
                    html.Div(["See the ", link], id=finding_id(one, query, position), className="finding-link"),
                ],
                className="finding-body",
            ),
            html.Div(size(one.bytes) if one.bytes is not None else None, className="finding-bytes"),
        ],
        className="finding-item",
    )


def finding_id(one: Finding, query: Query, position: int) -> dict[str, str | int]:
    """The element's id; ``pin`` is what the browser keeps of the allocation that shows the finding best, as JSON."""
    target = {"trace": query.trace_id, "device": one.device}
    pin = json.dumps(pin_data(target, one.rows[0])) if len(one.rows) else ""
    return {"type": "finding", "index": position, "pin": pin}


def _site(site: str) -> Component:
    function, place = split_site(site)
    return html.Code(f"{function} · {short_place(place)}" if place else function, title=site)


def update(store: TraceStore, subject: dict[str, Any] | None) -> list[Component]:
    """The findings of the device that is looked at."""
    if subject is None or subject["device"] is None:
        raise PreventUpdate
    query = Query.from_data(subject)
    return finding_list(query.opinions(store).findings, query)


def register(app: Dash, store: TraceStore) -> None:
    """Wire the list; what cannot be computed is said in its place."""

    def answer(subject: dict[str, Any] | None) -> Any:
        try:
            return update(store, subject)
        except MemscopeError as error:
            return html.P(str(error), className="problem-text")

    app.callback(Output("overview-findings", "children"), Input("subject", "data"))(answer)
    app.clientside_callback(
        ClientsideFunction("memscope", "pinFinding"),
        Output("pin", "data", allow_duplicate=True),
        Input({"type": "finding", "index": ALL, "pin": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
