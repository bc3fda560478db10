"""Address map: segments and the blocks in them at the moment."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.figures.address_map import map_figure, map_scale
from memscope.figures.theme import theme_named
from memscope.words.headlines import map_finding
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.categories import category_chips
from memscope_dashboard.components.inspector import pin_data
from memscope_dashboard.components.text import finding, picture, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

_HOW_TO_READ = (
    "Each box is a segment, filled with its blocks in order of address; a long segment goes on in the next row. "
    "Pools, streams and size classes have rows of their own, and a row width of their own, so that small segments "
    "stay visible. Click a block to pin it."
)


def layout() -> Component:
    """Components and ids only."""
    return view_frame(
        "map",
        view_heading("map-title", "map-note"),
        html.Div(id="map-chips", className="chips"),
        html.Div(picture("map-graph", "map-graph"), className="panel map-panel"),
    )


def update(store: TraceStore, data: dict[str, Any] | None, scheme: str | None, pin: dict[str, Any] | None) -> list[Any]:
    """Title, note, chips and figure for a moment."""
    if data is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(data)
    moment = query.moment(store)
    if not moment.lifetimes.segments_are_known and not len(moment.state.segments):
        why = "Segment events are missing from this recording, so where its blocks lie is not measured."
        return [finding(map_finding(moment)), why, category_chips(moment), map_figure(moment, theme_named(scheme))]
    index = moment.device.index
    scale = store.remembered(query.trace_id, ("map-scale", index), lambda analysis: map_scale(analysis.device(index)))
    is_same = pin is not None and pin["trace"] == query.trace_id and pin["device"] == query.device
    pinned = int(pin["row"]) if pin is not None and is_same else None
    figure = map_figure(moment, theme_named(scheme), scale=scale, pinned=pinned)
    return [finding(map_finding(moment)), _HOW_TO_READ, category_chips(moment), figure]


def clicked_row(click: dict[str, Any] | None, data: dict[str, Any]) -> Any:
    """The allocation whose block was clicked; free memory and bands have none."""
    if not click or not click.get("points"):
        return no_update
    row = click["points"][0].get("customdata", -1)
    row = row[0] if isinstance(row, list) else row
    return no_update if row is None or row < 0 else pin_data(data, row)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(data: dict[str, Any] | None, scheme: str | None, pin: dict[str, Any] | None) -> list[Any]:
        return update(store, data, scheme, pin)

    outputs = [Output(f"map-{name}", "children") for name in ("title", "note", "chips")]
    inputs: list[Input | State] = [Input("moment", "data"), Input("scheme", "data"), Input("pin", "data")]
    register_update(app, "map", answer, [*outputs, Output("map-graph", "figure")], inputs)
    app.callback(
        Output("pin", "data", allow_duplicate=True),
        Input("map-graph", "clickData"),
        State("moment", "data"),
        prevent_initial_call=True,
    )(clicked_row)


VIEW = View("map", "Address map", layout, register)
