"""What every picture over a device's run has: its axis, zoom, and the moment chosen by a click.

The parts' ids begin with the name of their view: ``NAME-graph``, ``NAME-axis``, ``NAME-reset``, ``NAME-window``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Device
from memscope.figures.theme import theme_named
from memscope.figures.timeline import moment_shape
from memscope.figures.timeline_data import x_of_events
from memscope_dashboard.components.text import picture
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore


def run_controls(name: str) -> list[Component]:
    """The button that ends a zoom, and the choice of the axis."""
    return [
        html.Button("whole run", id=f"{name}-reset", className="go", type="button", style={"visibility": "hidden"}),
        dmc.SegmentedControl(
            id=f"{name}-axis",
            data=[{"value": "event", "label": "events"}, {"value": "time", "label": "time"}],
            value="event",
            size="xs",
        ),
    ]


def run_graph(name: str) -> list[Component]:
    """The picture's panel, and where its visible range is kept."""
    return [
        html.Div(picture(f"{name}-graph", "fill-graph"), className="panel fill-panel"),
        dcc.Store(id=f"{name}-window"),
        dcc.Store(id=f"{name}-line"),
    ]


def run_note(device: Device, axis: str) -> str:
    """How to read and use the picture."""
    text = "Click to choose the moment; drag across to zoom in, double-click to see the whole run"
    if axis == "time" and not device.has_times:
        text = "Times were not recorded, so events are counted. " + text
    return text


def drawn_axis(device: Device, axis: str) -> str:
    """The axis that is drawn: events where times were not recorded."""
    return axis if device.has_times else "event"


def shown_window(window: dict[str, Any] | None, axis: str, query: Query) -> tuple[float, float] | None:
    """The visible range that was chosen for this trace, device and axis; None for everything."""
    chosen = (axis, query.trace_id, query.device)
    if window is None or (window["axis"], window["trace"], window["device"]) != chosen:
        return None
    return float(window["low"]), float(window["high"])


def reset_style(shown: tuple[float, float] | None) -> dict[str, str]:
    """The button that ends a zoom is seen while there is one."""
    return {"visibility": "hidden" if shown is None else "visible"}


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
    if query.device is None:
        return no_update
    device = query.opinions(store).device
    x = x_of_events(device, axis)
    index = max(int(np.searchsorted(x, float(click["points"][0]["x"]), side="right")) - 1, 0)
    return {"event": device.usage.event_at(index)}


def draw_run(
    store: TraceStore,
    figure_of: Callable[..., go.Figure],
    subject: dict[str, Any] | None,
    scheme: str | None,
    axis: str,
    window: dict[str, Any] | None,
    data: dict[str, Any] | None,
) -> list[Any]:
    """Figure and the reset button for a device, an axis and a visible range.

    ``figure_of`` takes a device, a theme, and ``axis``, ``window``, ``moment`` and ``height`` by name.
    """
    if subject is None or data is None or scheme is None or data["device"] is None:
        raise PreventUpdate
    query = Query.from_data(data)
    moment = query.moment(store)
    shown = shown_window(window, axis, query)
    figure = figure_of(
        moment.device,
        theme_named(scheme),
        axis=drawn_axis(moment.device, axis),
        window=shown,
        moment=moment.event,
        height=None,
    )
    return [figure, reset_style(shown)]


def follow_moment(app: Dash, store: TraceStore, name: str) -> None:
    """Move the moment's line, a figure's first shape, without drawing the figure again.

    The line comes by the store ``NAME-line``, not as a patch of the figure: dash cannot apply a patch that arrives
    when its view has been left.
    """

    def follow(data: dict[str, Any] | None, scheme: str | None, axis: str) -> dict[str, Any]:
        if data is None or scheme is None or data["device"] is None:
            raise PreventUpdate
        moment = Query.from_data(data).moment(store)
        return moment_shape(x_of_events(moment.device, axis), moment.device, moment.event, theme_named(scheme))

    app.callback(
        Output(f"{name}-line", "data"),
        Input("moment", "data"),
        State("scheme", "data"),
        State(f"{name}-axis", "value"),
        prevent_initial_call=True,
    )(follow)
    app.clientside_callback(
        ClientsideFunction("memscope", "moveLine"),
        Output(f"{name}-graph", "figure", allow_duplicate=True),
        Input(f"{name}-line", "data"),
        State(f"{name}-graph", "figure"),
        prevent_initial_call=True,
    )


def register_run_graph(app: Dash, store: TraceStore, name: str) -> None:
    """Wire the moment's line, the click that chooses it, and the zoom; the view itself draws the figure."""

    def click(clicked: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
        return clicked_event(store, clicked, axis, data)

    def zoom(relayout: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
        return visible_window(relayout, axis, data)

    follow_moment(app, store, name)
    axis_and_moment = (State(f"{name}-axis", "value"), State("moment", "data"))
    app.callback(
        Output("jump", "data", allow_duplicate=True),
        Input(f"{name}-graph", "clickData"),
        *axis_and_moment,
        prevent_initial_call=True,
    )(click)
    app.callback(
        Output(f"{name}-window", "data"),
        Input(f"{name}-graph", "relayoutData"),
        *axis_and_moment,
        prevent_initial_call=True,
    )(zoom)
    app.callback(
        Output(f"{name}-window", "data", allow_duplicate=True),
        Input(f"{name}-reset", "n_clicks"),
        prevent_initial_call=True,
    )(lambda clicks: None if clicks else no_update)
