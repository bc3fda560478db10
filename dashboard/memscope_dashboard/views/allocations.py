"""Allocations: who is live at the moment, largest first."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.analysis import Moment
from memscope.figures.findings import allocations_finding
from memscope.figures.labels import row_label, short_place, split_site
from memscope.trace.categories import Category
from memscope.units import format_bytes, format_count
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.grid import NUMBER, data_grid
from memscope_dashboard.components.inspector import pin_data
from memscope_dashboard.components.text import finding, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

MAX_ROWS = 2_000
_TEXT_LIMIT = 160


def _columns() -> list[dict[str, Any]]:
    rules = {f"cat-cell row-{category.label}": f"params.value === '{category.label}'" for category in Category}
    return [
        {
            "field": "block_bytes",
            "headerName": "block",
            "width": 106,
            "tooltipField": "exact",
            "valueFormatter": {"function": "params.data.size"},
            **NUMBER,
        },
        {
            "field": "category",
            "headerName": "category",
            "width": 138,
            "cellClassRules": rules,
            "valueFormatter": {"function": "params.data.label"},
        },
        {"field": "owner", "headerName": "owner", "flex": 4, "minWidth": 170, "tooltipField": "owner"},
        {"field": "site", "headerName": "allocated by", "flex": 4, "minWidth": 160, "tooltipField": "site_whole"},
        {
            "field": "alloc_event",
            "headerName": "since event",
            "width": 108,
            "valueFormatter": {"function": "params.data.since"},
            **NUMBER,
        },
        {"field": "stream", "headerName": "stream", "width": 84, "cellClass": "num"},
    ]


def layout() -> Component:
    """Components and ids only."""
    categories = [{"value": category.label, "label": row_label(category.label)} for category in Category]
    controls = [
        dmc.TextInput(
            id="allocations-search",
            placeholder="owner, line of code, address…",
            size="xs",
            w=220,
            debounce=250,
            **{"aria-label": "Search"},
        ),
        dmc.MultiSelect(
            id="allocations-categories",
            data=categories,
            placeholder="all categories",
            size="xs",
            w=190,
            clearable=True,
            **{"aria-label": "Categories"},
        ),
    ]
    grid = data_grid(
        "allocations-grid",
        _columns(),
        "Nothing that is live at this moment matches",
        rowSelection={"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
    )
    return view_frame(
        "allocations",
        view_heading("allocations-title", "allocations-note", controls),
        html.Div(grid, className="panel fill-panel grid-panel"),
    )


def compute(moment: Moment, search: str | None, categories: list[str] | None) -> tuple[pd.DataFrame, int, int]:
    """Live allocations that match, largest first, at most ``MAX_ROWS``; how many match, and their bytes."""
    live = moment.allocations()
    live["row"] = moment.rows
    if categories:
        live = live[live["category"].isin(categories)]
    if search and search.strip():
        words = search.lower().split()
        text = live["owner"].fillna("") + " " + live["site"].fillna("") + " " + live["category"]
        text = (text + " " + live["address"].map(hex)).str.lower()
        for word in words:
            live = live[text.loc[live.index].str.contains(word, regex=False)]
    return live.head(MAX_ROWS), len(live), int(live["block_bytes"].sum())


def grid_rows(live: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for the grid, long texts cut in their middle."""
    return [
        {
            "row": str(record["row"]),
            "block_bytes": int(record["block_bytes"]),
            "size": format_bytes(record["block_bytes"]),
            "exact": _exact(record["block_bytes"], record["requested_bytes"]),
            "category": record["category"],
            "label": row_label(record["category"]) + (" (pending)" if record["is_pending"] else ""),
            "owner": _shortened(record["owner"]),
            "site": _short_site(record["site"]),
            "site_whole": record["site"],
            "alloc_event": int(record["alloc_event"]),
            "since": "the start" if record["alloc_event"] < 0 else format_count(record["alloc_event"]),
            "stream": "—"
            if pd.isna(record["stream"])
            else "default"
            if record["stream"] == 0
            else hex(int(record["stream"])),
        }
        for record in live.to_dict("records")
    ]


def _exact(block_bytes: int, requested_bytes: int) -> str:
    return f"{format_count(block_bytes)} bytes, requested {format_count(requested_bytes)}"


def _short_site(site: Any) -> str:
    """``step · optimizer/optimizer.py:64`` of a whole path; the whole one is in the tooltip."""
    if not isinstance(site, str):
        return "—"
    function, place = split_site(site)
    return _shortened(f"{function} · {short_place(place)}" if place else function)


def _shortened(text: Any) -> str:
    if not isinstance(text, str):
        return "—"
    return text if len(text) <= _TEXT_LIMIT else f"{text[: _TEXT_LIMIT // 3]}…{text[-2 * _TEXT_LIMIT // 3 :]}"


def update(
    store: TraceStore, data: dict[str, Any] | None, search: str | None, categories: list[str] | None
) -> list[Any]:
    """Title, note and rows for a moment and a filter."""
    if data is None:
        raise PreventUpdate
    moment = Query.from_data(data).moment(store)
    live, n_found, n_bytes = compute(moment, search, categories)
    note = f"{format_count(n_found)} of {format_count(len(moment.rows))} shown, {format_bytes(n_bytes)}"
    if n_found > len(live):
        rest = n_bytes - int(live["block_bytes"].sum())
        note = f"The largest {format_count(len(live))} of {format_count(n_found)}; "
        note += f"{format_bytes(rest)} in the smaller ones: search to reach them"
    return [finding(allocations_finding(moment)), f"{note}. Click a row to pin it.", grid_rows(live)]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(data: dict[str, Any] | None, search: str | None, categories: list[str] | None) -> list[Any]:
        return update(store, data, search, categories)

    def pin(clicked: dict[str, Any] | None, data: dict[str, Any]) -> Any:
        return pin_data(data, int(clicked["rowId"])) if clicked and clicked.get("rowId") else no_update

    outputs = [Output("allocations-title", "children"), Output("allocations-note", "children")]
    inputs = [Input("moment", "data"), Input("allocations-search", "value"), Input("allocations-categories", "value")]
    register_update(app, "allocations", answer, [*outputs, Output("allocations-grid", "rowData")], inputs)
    app.callback(
        Output("pin", "data", allow_duplicate=True),
        Input("allocations-grid", "cellClicked"),
        State("moment", "data"),
        prevent_initial_call=True,
    )(pin)


VIEW = View("allocations", "Allocations", layout, register)
