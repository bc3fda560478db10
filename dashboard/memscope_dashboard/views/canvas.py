"""Canvas: every allocation over the run, each in its place; drawn, zoomed and searched by the browser itself."""

from __future__ import annotations

from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.words.headlines import timeline_finding
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.canvas.routes import register_routes
from memscope_dashboard.components.text import finding, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

_HOW_TO_READ = (
    "Each shape is one allocation: over events as high as its block, on those made before it; by address where it lies "
    "at the moment. Click one to pin it."
)


def layout() -> Component:
    """Components and ids only."""
    return view_frame(
        "canvas",
        view_heading("canvas-title", "canvas-words"),
        html.Div(id="canvas-root", className="panel canvas-root"),
        dcc.Store(id="canvas-heard"),
    )


def update(store: TraceStore, subject: dict[str, Any] | None) -> list[Any]:
    """Title and note of a device."""
    if subject is None:
        raise PreventUpdate
    device = Query.from_data(subject).opinions(store).device
    if not device.n_events:
        return [finding("No events were recorded: there is nothing over time"), "The address map shows what was live."]
    return [finding(timeline_finding(device)), _HOW_TO_READ]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""
    register_routes(app, store)

    def answer(subject: dict[str, Any] | None) -> list[Any]:
        return update(store, subject)

    outputs = [Output("canvas-title", "children"), Output("canvas-words", "children")]
    register_update(app, "canvas", answer, outputs, [Input("subject", "data")])
    app.clientside_callback(
        ClientsideFunction("memscope", "canvas"),
        Output("canvas-heard", "data"),
        *[Input(name, "data") for name in ("subject", "scheme", "moment", "pin")],
    )


VIEW = View("canvas", "Canvas", layout, register)
