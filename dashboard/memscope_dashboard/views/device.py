"""Device: what the device itself says is used, against what PyTorch knows of, on one clock."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Moment
from memscope.figures.device import driver_usage_figure
from memscope.words.driver_usage import device_finding, driver_usage_origin, why_not_measured
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.categories import device_table
from memscope_dashboard.components.run_graph import (
    draw_run,
    register_run_graph,
    run_controls,
    run_graph,
    run_note,
)
from memscope_dashboard.components.text import finding, recording_notes, section, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

_LINES = "Thin line: allocated; solid line: reserved."


def layout() -> Component:
    """Components and ids only."""
    return view_frame(
        "device",
        view_heading("device-title", "device-note", run_controls("device")),
        *run_graph("device"),
        section("The device's own count", html.Div(id="device-ledger"), id="device-count"),
    )


def count_panel(moment: Moment) -> list[Component]:
    """The rows of the device's count and which sample they are of, or why there are none and what to do."""
    count = moment.ledger.driver_usage
    if count is not None:
        return [device_table(moment.ledger), html.P(driver_usage_origin(moment, count), className="quiet small")]
    found = [html.P(why_not_measured(moment), className="why-not"), device_table(moment.ledger)]
    return [*found, *recording_notes(moment.device.trace)]


def update(store: TraceStore, data: dict[str, Any] | None, scheme: str | None, axis: str) -> list[Any]:
    """Title, note and the count's rows for a moment."""
    if data is None or scheme is None:
        raise PreventUpdate
    moment = Query.from_data(data).moment(store)
    note = f"{_LINES} {run_note(moment.device, axis)}"
    return [finding(device_finding(moment)), note, count_panel(moment)]


def draw(store: TraceStore, *chosen: Any) -> list[Any]:
    """Figure and the reset button for a device, an axis and a visible range."""
    return draw_run(store, driver_usage_figure, *chosen)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        return update(store, *args)

    def picture(*args: Any) -> list[Any]:
        return draw(store, *args)

    outputs = [Output(f"device-{name}", "children") for name in ("title", "note", "ledger")]
    axis = Input("device-axis", "value")
    register_update(app, "device", answer, outputs, [Input("moment", "data"), Input("scheme", "data"), axis])
    app.callback(
        Output("device-graph", "figure"),
        Output("device-reset", "style"),
        Input("subject", "data"),
        Input("scheme", "data"),
        axis,
        Input("device-window", "data"),
        State("moment", "data"),
    )(picture)
    register_run_graph(app, store, "device")


VIEW = View("device", "Device", layout, register)
