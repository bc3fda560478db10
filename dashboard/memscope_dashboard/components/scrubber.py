"""The footer: the whole run in one strip, its handle, and what the moment is."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Moment
from memscope.errors import MemscopeError
from memscope.figures.theme import theme_named
from memscope.figures.timeline_data import scrubber_figure
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID, Action
from memscope.units import format_bytes, format_count
from memscope_dashboard.components.text import picture, size
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore


def layout() -> Component:
    """The footer's components."""
    strip = [
        picture("scrubber-graph", "strip-graph", is_static=True),
        dmc.Slider(
            id="scrubber",
            min=0,
            max=1,
            step=1,
            value=0,
            size=2,
            thumbSize=14,
            label=None,
            updatemode="drag",
            className="strip-slider",
            thumbLabel="Moment: index of an event",
        ),
    ]
    return html.Div(
        [
            html.Div([html.Div(id="moment-words", className="moment-words"), _controls()], className="moment-bar"),
            html.Div(strip, className="strip"),
        ],
        className="footer",
    )


def _controls() -> Component:
    def button(id_: str, text: str, tip: str) -> Component:
        return html.Button(text, id=id_, className="go", title=tip, type="button")

    return html.Div(
        [
            button("go-back", "◀", "One event back"),
            dmc.NumberInput(
                id="event-input",
                size="xs",
                w=96,
                hideControls=True,
                allowDecimal=False,
                thousandSeparator=",",
                debounce=True,
                className="event-input",
                **{"aria-label": "Event"},
            ),
            button("go-on", "▶", "One event on"),
            button("go-peak", "▲ peak", "The highest allocated bytes"),
            button("go-oom", "✕ OOM", "The next out-of-memory error"),
            button("go-end", "end", "The last event"),
        ],
        className="moment-controls",
    )


def moment_words(moment: Moment) -> list[Any]:
    """What the moment is, in a line."""
    trace = moment.device.trace
    if moment.event == NONE_ID:
        did = "before the first event" if moment.lifetimes.n_events else "the recorded state"
    else:
        action = Action(int(trace.action[moment.event])).name.lower()
        n_bytes = int(trace.size_bytes[moment.event])
        did = f"{action} {format_bytes(n_bytes)}" if n_bytes > 0 else action
    where = describe_moment(trace, moment.event)
    start = "start" if moment.lifetimes.n_events else "end"
    at = start if moment.event == NONE_ID else f"event {format_count(moment.event)}"
    parts: list[Any] = [
        html.B(at, className="num"),
        html.Span(where) if where else None,
        html.Span(did, className="quiet"),
    ]
    parts += [
        html.Span([size(moment.allocated_bytes), " allocated"]),
        html.Span([size(moment.reserved_bytes), " reserved"]),
    ]
    return [part for part in parts if part is not None]


def register(app: Dash, store: TraceStore) -> None:
    """Wire the strip, its handle and the line of words."""

    def draw(subject: dict[str, Any], scheme: str) -> Any:
        if subject is None or subject["device"] is None or scheme is None:
            raise PreventUpdate
        return scrubber_figure(Query.from_data(subject).opinions(store).device, theme_named(scheme))

    def say(data: dict[str, Any]) -> list[Any]:
        if data is None:
            raise PreventUpdate
        try:
            return moment_words(Query.from_data(data).moment(store))
        except MemscopeError:
            return [html.Span("no moment: the trace cannot be shown", className="quiet")]

    app.callback(Output("scrubber-graph", "figure"), Input("subject", "data"), Input("scheme", "data"))(draw)
    app.callback(Output("moment-words", "children"), Input("moment", "data"))(say)
    app.clientside_callback(
        ClientsideFunction("memscope", "scrub"),
        Output("scrub-heard", "data"),
        Input("scrubber", "value"),
        State("moment", "data"),
        State("bounds", "data"),
        prevent_initial_call=True,
    )
