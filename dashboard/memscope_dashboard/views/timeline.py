"""Timeline: memory over the run, by category; zooming asks for more detail, clicking chooses the moment."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import Dash, Input, Output, Patch, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.analysis import Analysis
from memscope.figures.findings import timeline_finding
from memscope.figures.theme import theme_named
from memscope.figures.timeline import moment_shape, timeline_figure
from memscope.figures.timeline_data import has_times, x_of_events
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.category_chips import category_chips
from memscope_dashboard.components.text import finding, picture, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View


def layout() -> Component:
    """Components and ids only."""
    controls = [
        html.Button("whole run", id="timeline-reset", className="go", type="button", style={"visibility": "hidden"}),
        dmc.SegmentedControl(
            id="timeline-axis",
            data=[{"value": "event", "label": "events"}, {"value": "time", "label": "time"}],
            value="event",
            size="xs",
        ),
    ]
    return view_frame(
        "timeline",
        view_heading("timeline-title", "timeline-note", controls),
        html.Div(id="timeline-chips", className="chips"),
        html.Div(picture("timeline-graph", "fill-graph"), className="panel fill-panel"),
        dcc.Store(id="timeline-window"),
    )


def note(analysis: Analysis, device: int, axis: str) -> str:
    """How to read and use the picture."""
    text = "Click to choose the moment; drag across to zoom in, double-click to see the whole run"
    if axis == "time" and not has_times(analysis, device):
        text = "Times were not recorded, so events are counted. " + text
    return text


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
    analysis, device = moment.analysis, moment.device
    shown = None
    if (
        window is not None
        and window["axis"] == axis
        and window["trace"] == query.trace_id
        and window["device"] == device
    ):
        shown = (float(window["low"]), float(window["high"]))
    drawn_axis = axis if has_times(analysis, device) else "event"
    figure = timeline_figure(
        analysis, device, theme_named(scheme), axis=drawn_axis, window=shown, moment=moment.event, height=None
    )
    reset = {"visibility": "hidden" if shown is None else "visible"}
    if not moment.lifetimes.n_events:
        how = "The overview, the address map and the allocations show the recorded state."
        return ["No events were recorded: there is nothing over time", how, figure, reset]
    return [finding(timeline_finding(analysis, device)), note(analysis, device, axis), figure, reset]


def visible_window(relayout: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
    """The visible range after plotly reported a change: a range, None for everything, or no change."""
    if not relayout:
        return no_update
    if relayout.get("xaxis.autorange"):
        return None
    low, high = relayout.get("xaxis.range[0]"), relayout.get("xaxis.range[1]")
    if low is None or high is None:
        return no_update
    return {"axis": axis, "trace": data["trace"], "device": data["device"], "low": float(low), "high": float(high)}


def clicked_event(store: TraceStore, click: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
    """The event whose end a click on the picture chose."""
    if not click or not click.get("points"):
        return no_update
    query = Query.from_data(data)
    analysis = query.analysis(store)
    if query.device is None:
        return no_update
    x = x_of_events(analysis, query.device, axis)
    index = max(int(np.searchsorted(x, float(click["points"][0]["x"]), side="right")) - 1, 0)
    return {"event": analysis.device(query.device).usage.event_at(index)}


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        return update(store, *args)

    def follow(data: dict[str, Any] | None, scheme: str | None, axis: str) -> Patch:
        if data is None or scheme is None or data["device"] is None:
            raise PreventUpdate
        moment = Query.from_data(data).moment(store)
        patch = Patch()
        x = x_of_events(moment.analysis, moment.device, axis)
        patch["layout"]["shapes"][0] = moment_shape(
            x, moment.analysis, moment.device, moment.event, theme_named(scheme)
        )
        return patch

    def chips(data: dict[str, Any] | None) -> list[Component]:
        if data is None or data["device"] is None:
            raise PreventUpdate
        return category_chips(Query.from_data(data).moment(store))

    def click(clicked: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
        return clicked_event(store, clicked, axis, data)

    def zoom(relayout: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
        return visible_window(relayout, axis, data)

    outputs = [Output(f"timeline-{name}", "children") for name in ("title", "note")]
    outputs += [Output("timeline-graph", "figure"), Output("timeline-reset", "style")]
    inputs: list[Input | State] = [Input("subject", "data"), Input("scheme", "data"), Input("timeline-axis", "value")]
    inputs += [Input("timeline-window", "data"), State("moment", "data")]
    register_update(app, "timeline", answer, outputs, inputs)
    app.callback(
        Output("timeline-graph", "figure", allow_duplicate=True),
        Input("moment", "data"),
        State("scheme", "data"),
        State("timeline-axis", "value"),
        prevent_initial_call=True,
    )(follow)
    app.callback(Output("timeline-chips", "children"), Input("moment", "data"))(chips)
    axis_and_moment = (State("timeline-axis", "value"), State("moment", "data"))
    app.callback(
        Output("jump", "data", allow_duplicate=True),
        Input("timeline-graph", "clickData"),
        *axis_and_moment,
        prevent_initial_call=True,
    )(click)
    app.callback(
        Output("timeline-window", "data"),
        Input("timeline-graph", "relayoutData"),
        *axis_and_moment,
        prevent_initial_call=True,
    )(zoom)
    app.callback(
        Output("timeline-window", "data", allow_duplicate=True),
        Input("timeline-reset", "n_clicks"),
        prevent_initial_call=True,
    )(lambda clicks: None if clicks else no_update)


VIEW = View("timeline", "Timeline", layout, register)
