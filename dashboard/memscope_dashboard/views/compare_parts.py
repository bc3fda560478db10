"""The pictures and tables of a comparison: the waterfall, the rows with their stacks, the flame graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import ALL, ClientsideFunction, Dash, Input, Output, ctx, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.attribution.call_tree import ROOT
from memscope.compare.difference import By
from memscope.errors import MemscopeError
from memscope.figures.compare import steps_figure, waterfall_steps
from memscope.figures.flames.difference import (
    box_growth,
    difference_boxes,
    difference_flame_figure,
    growth_words,
    node_label,
)
from memscope.figures.theme import theme_named
from memscope_dashboard.compare_board import CompareBoard, Compared, Pair, board_of
from memscope_dashboard.components.compare import (
    boxes_table,
    changed_rows,
    grid_rows,
    growth_legend,
    row_columns,
    row_panel,
    rows_note,
    steps_table,
)
from memscope_dashboard.components.grid import data_grid
from memscope_dashboard.components.text import picture
from memscope_dashboard.store import TraceStore

_MAX_BOXES = 700
_PATIENCE_S = 60
Found = TypeVar("Found")
_NAMES = {By.HOLDER: "owner or line of code", By.MODULE: "module", By.SITE: "line of code", By.CATEGORY: "category"}
BY = [
    {"value": "category", "label": "category"},
    {"value": "holder", "label": "owner"},
    {"value": "module", "label": "module"},
    {"value": "site", "label": "line"},
]
SHOW = ["all", "new", "grown", "shrunk", "gone"]
_HOW = (
    "As wide as B: a call is as wide as the bytes that it, and what it called, hold in B. What only A had is hatched, "
    "as wide as it was. Click a box to look closer."
)
CONTROLS = {"pic": "category", "measure": "allocated", "by": "holder", "show": "all", "kind": "calls"}
"""Choices that the address holds, and what they are if it does not say."""


def _choice(name: str, data: list[Any]) -> Component:
    return dmc.SegmentedControl(id=f"compare-{name}", data=data, value=CONTROLS[name], size="xs")


def bridge_panel() -> Component:
    """The waterfall and its table."""
    measures = [{"value": "allocated", "label": "allocated"}, {"value": "reserved", "label": "reserved"}]
    switches = html.Div([_choice("pic", BY), _choice("measure", measures)], className="controls")
    return html.Section(
        [
            html.Div([html.H2("From A to B", id="compare-bridge-title"), switches], className="panel-head"),
            html.Div(picture("compare-bridge"), id="compare-bridge-box", role="img", **{"aria-label": ""}),
            html.Details([html.Summary("as a table"), html.Div(id="compare-bridge-table")]),
        ],
        className="panel",
    )


def rows_panel() -> Component:
    """The table of rows, and the stack of the one that is chosen."""
    switches = html.Div([_choice("by", BY[1:]), _choice("show", SHOW)], className="controls")
    grid = data_grid(
        "compare-grid",
        row_columns(_NAMES[By.HOLDER]),
        "Nothing of the kind",
        suppressCellFocus=False,
        rowSelection={"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
    )
    return html.Section(
        [
            html.Div([html.H2(id="compare-rows-title"), switches], className="panel-head"),
            html.Div(grid, className="grid-box"),
            html.Div(id="compare-rows-note", className="quiet small pins-note"),
            html.Div(id="compare-row-panel", className="compare-row", **{"aria-live": "polite"}),
        ],
        className="panel",
    )


def flame_panel() -> Component:
    """The flame graph, its legend and its table."""
    kinds = [{"value": "calls", "label": "calls"}, {"value": "modules", "label": "modules"}]
    own = dmc.Switch(id="compare-own", label="own code only", checked=True, size="xs")
    return html.Section(
        [
            html.Div(
                [html.H2(id="compare-flame-title"), html.Div([own, _choice("kind", kinds)], className="controls")],
                className="panel-head",
            ),
            html.Div(id="compare-legend", className="chips compare-legend"),
            html.Div(id="compare-crumbs", className="crumbs"),
            picture("compare-flame"),
            html.P(_HOW, className="quiet small"),
            html.Details([html.Summary("as a table"), html.Div(id="compare-flame-table")]),
        ],
        className="panel",
    )


def compared_of(board: CompareBoard, data: dict[str, Any] | None) -> Compared:
    """What is known of the pair that the page shows; worked out again where it is not kept any longer.

    Raises
    ------
    PreventUpdate
        If the page shows none.
    UsageError
        If it cannot be compared.
    """
    if data is None:
        raise PreventUpdate
    pair = Pair.from_data(data)
    if (found := board.compared(pair)) is None:
        board.ask(pair, again=True)
        board.wait(pair, _PATIENCE_S)
        found = board.compared(pair)
    if found is None:
        raise PreventUpdate
    return found


def draw_bridge(
    store: TraceStore, data: dict[str, Any] | None, scheme: str | None, pic: str | None, measure: str | None
) -> list[Any]:
    """The waterfall, its words and its table."""
    if scheme is None:
        raise PreventUpdate
    compared = compared_of(board_of(store), data)
    by = By(pic or CONTROLS["pic"])
    difference = compared.difference(By.HOLDER if by is By.CATEGORY else by)
    rows = difference.categories if by is By.CATEGORY else difference.rows
    a, b = compared.a, compared.b
    is_reserved = measure == "reserved" and difference.unallocated is not None
    ends = (a.allocated_bytes, b.allocated_bytes)
    if is_reserved and a.reserved_bytes is not None and b.reserved_bytes is not None:
        ends = (a.reserved_bytes, b.reserved_bytes)
    steps = waterfall_steps(difference, rows, is_reserved=is_reserved)
    words = f"From A to B, {'reserved' if is_reserved else 'allocated'} bytes by {_NAMES[by]}"
    if measure == "reserved" and not is_reserved:
        words += ": reserved bytes were not recorded in both"
    figure = steps_figure(ends, steps, theme_named(scheme))
    return [words, figure, _as_high(figure), words, steps_table(ends, steps)]


def fill_rows(
    store: TraceStore, data: dict[str, Any] | None, by: str | None, show: str | None, is_new_pair: bool = True
) -> list[Any]:
    """Title, rows, columns and note of the table, and the row that the address chose."""
    compared = compared_of(board_of(store), data)
    difference = compared.difference(By(by or CONTROLS["by"]))
    rows = changed_rows(difference, show or "all")
    chosen = (data or {}).get("row") if is_new_pair else None
    title = f"What changed, by {_NAMES[difference.by]}"
    shown_rows = grid_rows(rows)
    note = rows_note(difference, len(shown_rows), len(rows))
    selected = {"ids": [str(chosen)]} if chosen is not None else []
    return [title, shown_rows, row_columns(_NAMES[difference.by]), note, selected]


def show_row(
    store: TraceStore, data: dict[str, Any] | None, by: str | None, selected: Sequence[Any] | None
) -> tuple[list[Component] | None, int | None]:
    """The stack of the row that is chosen, and which row it is."""
    compared = compared_of(board_of(store), data)
    rows = compared.difference(By(by or CONTROLS["by"])).rows
    if not selected or not isinstance(selected, list) or not str(selected[0].get("row", "")).isdecimal():
        return None, None
    i = int(selected[0]["row"])
    if i >= len(rows):
        return None, None
    return row_panel(compared.difference(By(by or CONTROLS["by"])), rows[i]), i


def draw_flame(
    store: TraceStore, data: dict[str, Any] | None, scheme: str | None, kind: str | None, own: bool | None, focus: int
) -> list[Any]:
    """Title, legend, way down, figure and table of the flame graph, and the node that it begins with."""
    if scheme is None:
        raise PreventUpdate
    compared, theme = compared_of(board_of(store), data), theme_named(scheme)
    tree = compared.tree(is_by_module=kind == "modules", own_only=own is not False)
    focus = focus if 0 <= focus < len(tree) else ROOT
    boxes = difference_boxes(tree, focus, _MAX_BOXES)
    moments = compared.a, compared.b
    figure = difference_flame_figure(*moments, tree, boxes, theme)
    figure.update_layout(meta={"above": int(tree.parent[focus])})
    legend = growth_legend(theme, {box_growth(tree, boxes, box) for box in range(len(boxes))})
    path = (ROOT, *tree.path(focus)) if focus else ()
    crumbs: list[Any] = []
    for node in path:
        label = "all" if node == ROOT else node_label(*moments, tree, node)
        crumbs += [html.Span("▸", className="crumb")] if crumbs else []
        if node == focus:
            crumbs.append(html.Span(label, className="here"))
        else:
            crumbs.append(
                html.Button(
                    label, id={"type": "compare-go", "node": node, "at": "crumb"}, className="link", type="button"
                )
            )
    title = f"Where it comes from: {growth_words(*moments, tree)}"
    table = boxes_table(moments, tree, boxes)
    return [title, legend, crumbs, figure, _as_high(figure), table, focus, kind == "modules"]


def _as_high(figure: go.Figure) -> dict[str, str]:
    """The style of a picture's place: drawn before the page shows it, the picture would take no room else."""
    return {"height": f"{figure.layout.height}px"}


def register_pictures(app: Dash, store: TraceStore) -> None:
    """Wire the waterfall and the flame graph."""

    def bridge(*args: Any) -> list[Any]:
        return _or_nothing(lambda: draw_bridge(store, *args))

    def flame(data: Any, scheme: Any, kind: Any, own: Any, focus: Any) -> list[Any]:
        used = {str(one["prop_id"]).split(".", 1)[0] for one in ctx.triggered}
        if "compare-pair" in used:
            focus = (data or {}).get("focus")
        elif used & {"compare-kind", "compare-own"}:
            focus = ROOT
        return _or_nothing(lambda: draw_flame(store, data, scheme, kind, own, int(focus or ROOT)))

    pair = Input("compare-pair", "data")
    app.callback(
        Output("compare-bridge-title", "children"),
        Output("compare-bridge", "figure"),
        Output("compare-bridge", "style"),
        Output("compare-bridge-box", "aria-label"),
        Output("compare-bridge-table", "children"),
        pair,
        Input("scheme", "data"),
        Input("compare-pic", "value"),
        Input("compare-measure", "value"),
    )(bridge)
    app.callback(
        *[Output(f"compare-{name}", "children") for name in ("flame-title", "legend", "crumbs")],
        Output("compare-flame", "figure"),
        Output("compare-flame", "style"),
        Output("compare-flame-table", "children"),
        Output("compare-focus", "data"),
        Output("compare-own", "disabled"),
        pair,
        Input("scheme", "data"),
        Input("compare-kind", "value"),
        Input("compare-own", "checked"),
        Input("compare-focus", "data"),
    )(flame)
    app.callback(
        Output("compare-focus", "data", allow_duplicate=True),
        Input({"type": "compare-go", "node": ALL, "at": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )(lambda _clicks: int(ctx.triggered_id["node"]) if ctx.triggered[0]["value"] else no_update)
    app.clientside_callback(
        ClientsideFunction("memscope", "hearCompare"),
        Output("compare-heard", "data"),
        Input("compare-flame", "figure"),
    )


def register_rows(app: Dash, store: TraceStore) -> None:
    """Wire the table and the stack of its row."""

    def rows(data: Any, by: Any, show: Any) -> list[Any]:
        is_new_pair = any(one["prop_id"].startswith("compare-pair.") for one in ctx.triggered)
        return _or_nothing(lambda: fill_rows(store, data, by, show, is_new_pair))

    def row(*args: Any) -> Any:
        return _or_nothing(lambda: show_row(store, *args))

    pair = Input("compare-pair", "data")
    app.callback(
        Output("compare-rows-title", "children"),
        Output("compare-grid", "rowData"),
        Output("compare-grid", "columnDefs"),
        Output("compare-rows-note", "children"),
        Output("compare-grid", "selectedRows"),
        pair,
        Input("compare-by", "value"),
        Input("compare-show", "value"),
    )(rows)
    app.callback(
        Output("compare-row-panel", "children"),
        Output("compare-row", "data"),
        pair,
        Input("compare-by", "value"),
        Input("compare-grid", "selectedRows"),
    )(row)


def _or_nothing(compute: Callable[[], Found]) -> Found:
    """What was computed; what cannot be is said by the head of the view, which asks for the same."""
    try:
        return compute()
    except MemscopeError as error:
        raise PreventUpdate from error
