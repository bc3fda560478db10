"""The key/value cache of the open trace: what it holds over the run, by layer and cache, and what its growth cost."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Device
from memscope.errors import MemscopeError
from memscope.figures.kv_cache import MAX_LAYERS_DRAWN, cache_figure, layers_figure
from memscope.figures.theme import Theme, theme_named
from memscope.trace.schema import NONE_ID
from memscope.units import format_count
from memscope.words.kv_cache import cache_finding
from memscope_dashboard.boundary import register_update
from memscope_dashboard.components.kv_tables import (
    caches_table,
    growth_table,
    growth_title,
    pools_words,
    split_chips,
)
from memscope_dashboard.components.run_graph import draw_run, register_run_graph, run_controls, run_graph, run_note
from memscope_dashboard.components.text import finding, picture, section, view_heading
from memscope_dashboard.kv_lens_board import KvLensBoard
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

_TICK_MS = 400
_PATIENCE_S = 0.15
_NO_CACHE = (
    "Caches of Hugging Face models are found by themselves where memscope records; those of other programs by stack, "
    'by memscope.register_kv_cache, or by memscope.tag("kv_cache").'
)
_GROUPS = (("layer", "layers"), ("cache", "caches"))


def layout() -> Component:
    """Components and ids only."""
    choice = dmc.SegmentedControl(
        id="kvlens-group", data=[{"value": v, "label": text} for v, text in _GROUPS], value="layer", size="xs"
    )
    layers = html.Section(
        [html.Div([html.H2(id="kvlens-layers-title"), choice], className="panel-head"), picture("kvlens-layers")],
        className="panel",
    )
    return html.Div(
        [
            html.Div(id="kvlens-problem"),
            html.Div(
                [
                    view_heading("kvlens-title", "kvlens-note", run_controls("kvlens")),
                    html.Div(
                        [
                            html.Div(id="kvlens-chips", className="chips"),
                            *run_graph("kvlens"),
                            html.Section(
                                [html.H2(id="kvlens-growth-title"), html.Div(id="kvlens-growth")], className="panel"
                            ),
                            html.Div(
                                [
                                    section(
                                        "Caches of the whole run",
                                        html.Div(id="kvlens-caches"),
                                        html.Div(id="kvlens-pools"),
                                    ),
                                    layers,
                                ],
                                className="columns",
                            ),
                        ],
                        id="kvlens-body",
                        className="panel-stack hidden",
                    ),
                    dcc.Interval(id="kvlens-tick", interval=_TICK_MS, disabled=True),
                ],
                id="kvlens-panel",
                className="view-panel waiting",
            ),
        ]
    )


def update(store: TraceStore, data: dict[str, Any] | None, scheme: str | None, axis: str, group: str) -> list[Any]:
    """Everything about a moment but the picture over the run and what growing cost."""
    if data is None or scheme is None:
        raise PreventUpdate
    query, theme = Query.from_data(data), theme_named(scheme)
    try:
        query.analysis(store)
    except MemscopeError as error:
        raise PreventUpdate from error  # the view that this is a part of says so
    moment = query.moment(store)
    lens = query.opinions(store).kv_lens
    if not lens:
        return [cache_finding(lens, moment.event), _NO_CACHE, *[no_update] * 5, "panel-stack hidden"]
    rows = lens.by_layer(moment.event) if group == "layer" else lens.by_cache(moment.event)
    more = "" if len(rows) <= MAX_LAYERS_DRAWN else f", the first {MAX_LAYERS_DRAWN}"
    note = run_note(moment.device, axis)
    if not moment.lifetimes.n_events:
        note = "No events were recorded: only the state at the end is known."
    return [
        finding(cache_finding(lens, moment.event)),
        note,
        split_chips(lens.total_at(moment.event), theme),
        f"{_title(rows, group)} at this moment{more}",
        layers_figure(rows, theme),
        caches_table(lens),
        pools_words(lens.pools_at(moment.event)),
        "panel-stack",
    ]


def _title(rows: tuple[Any, ...], group: str) -> str:
    n = len([row for row in rows if row.key != NONE_ID])
    return f"{format_count(n)} {group}{'' if n == 1 else 's'}" if n else f"The {group}s"


def update_growth(store: TraceStore, subject: dict[str, Any] | None) -> list[Any]:
    """What growing by copying cost; begins the replays where that was not done yet. Whether to ask again is last."""
    if subject is None or subject["device"] is None:
        raise PreventUpdate
    query = Query.from_data(subject)
    lens = query.opinions(store).kv_lens
    board = store.remembered(query.trace_id, ("kv growth", query.device), lambda _: KvLensBoard(lens, store.jobs))
    progress = board.wait(_PATIENCE_S)
    title, table = growth_title(lens, board.replay, progress), growth_table(lens, board.replay)
    return [finding(title), table, not progress.is_active]


def draw(store: TraceStore, subject: dict[str, Any] | None, *chosen: Any) -> list[Any]:
    """Figure and the reset button for a device, an axis and a visible range."""

    def figure_of(device: Device, theme: Theme, **drawn: Any) -> go.Figure:
        assert subject is not None
        lens = store.analysis(subject["trace"]).opinions(device.index).kv_lens
        return cache_figure(lens, theme, **drawn)

    return draw_run(store, figure_of, subject, *chosen)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""
    axis = Input("kvlens-axis", "value")
    outputs = [Output(f"kvlens-{name}", "children") for name in ("title", "note", "chips", "layers-title")]
    outputs += [Output("kvlens-layers", "figure")]
    outputs += [Output(f"kvlens-{name}", "children") for name in ("caches", "pools")]
    outputs += [Output("kvlens-body", "className")]
    inputs: list[Input | State] = [
        Input("moment", "data"),
        Input("scheme", "data"),
        axis,
        Input("kvlens-group", "value"),
    ]
    register_update(app, "kvlens", lambda *args: update(store, *args), outputs, inputs)
    app.callback(
        Output("kvlens-graph", "figure"),
        Output("kvlens-reset", "style"),
        Input("subject", "data"),
        Input("scheme", "data"),
        axis,
        Input("kvlens-window", "data"),
        State("moment", "data"),
    )(lambda *args: draw(store, *args))
    register_run_graph(app, store, "kvlens")
    app.callback(
        Output("kvlens-growth-title", "children"),
        Output("kvlens-growth", "children"),
        Output("kvlens-tick", "disabled"),
        Input("subject", "data"),
        Input("kvlens-tick", "n_intervals"),
    )(lambda subject, _: update_growth(store, subject))
