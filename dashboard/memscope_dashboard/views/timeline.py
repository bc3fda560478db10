"""Timeline: memory over the run, by category; zooming asks for more detail, clicking chooses the moment."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.figures.theme import theme_named
from memscope.figures.timeline import timeline_figure
from memscope.words.headlines import timeline_finding
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.categories import category_chips
from memscope_dashboard.components.run_graph import (
    drawn_axis,
    register_run_graph,
    reset_style,
    run_controls,
    run_graph,
    run_note,
    shown_window,
)
from memscope_dashboard.components.text import finding, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View


def layout() -> Component:
    """Components and ids only."""
    return view_frame(
        "timeline",
        view_heading("timeline-title", "timeline-note", run_controls("timeline")),
        html.Div(id="timeline-chips", className="chips"),
        *run_graph("timeline"),
    )


def update(
    store: TraceStore,
    subject: dict[str, Any] | None,
    scheme: str | None,
    axis: str,
    window: dict[str, Any] | None,
    data: dict[str, Any] | None,
) -> list[Any]:
    """Title, note, figure and the reset button for a device, an axis and a visible range."""
    if subject is None or data is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(data)
    moment = query.moment(store)
    device = moment.device
    shown = shown_window(window, axis, query)
    figure = timeline_figure(
        device,
        theme_named(scheme),
        axis=drawn_axis(device, axis),
        window=shown,
        moment=moment.event,
        height=None,
    )
    reset = reset_style(shown)
    if not moment.lifetimes.n_events:
        how = "The overview, the address map and the allocations show the recorded state."
        return ["No events were recorded: there is nothing over time", how, figure, reset]
    return [finding(timeline_finding(device)), run_note(device, axis), figure, reset]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        return update(store, *args)

    def chips(data: dict[str, Any] | None) -> list[Component]:
        if data is None or data["device"] is None:
            raise PreventUpdate
        return category_chips(Query.from_data(data).moment(store))

    outputs = [Output(f"timeline-{name}", "children") for name in ("title", "note")]
    outputs += [Output("timeline-graph", "figure"), Output("timeline-reset", "style")]
    inputs: list[Input | State] = [Input("subject", "data"), Input("scheme", "data"), Input("timeline-axis", "value")]
    inputs += [Input("timeline-window", "data"), State("moment", "data")]
    register_update(app, "timeline", answer, outputs, inputs)
    app.callback(Output("timeline-chips", "children"), Input("moment", "data"))(chips)
    register_run_graph(app, store, "timeline")


VIEW = View("timeline", "Timeline", layout, register)
