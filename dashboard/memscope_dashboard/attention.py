"""What deserves attention, on the overview: the findings of a device, and the verdict where a request failed."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.errors import MemscopeError
from memscope_dashboard.components.finding_list import finding_list
from memscope_dashboard.components.oom_card import changes_panel, evidence_panel, oom_choices, verdict_panel
from memscope_dashboard.components.text import section
from memscope_dashboard.oom_board import OomBoard
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

_TICK_MS = 500
_PATIENCE_S = 0.1
"""How long an answer waits for a search that is nearly done."""
_HIDDEN = {"display": "none"}


def oom_section() -> Component:
    """The place of the verdict, hidden until a request is known to have failed."""
    choice = dmc.Select(
        id="overview-oom-choice",
        data=[],
        size="xs",
        w=300,
        searchable=True,
        limit=100,
        allowDeselect=False,
        nothingFoundMessage="no such failed request",
        **{"aria-label": "Failed request"},
    )
    return html.Section(
        [
            html.Div([html.H2("Out of memory"), html.Div(choice, id="overview-oom-choices")], className="panel-head"),
            html.Div(id="overview-oom-verdict", className="oom-verdict"),
            html.Div(id="overview-oom-changes", className="oom-changes"),
            html.Div(id="overview-oom-evidence"),
            dcc.Store(id="overview-oom-shown"),
            dcc.Interval(id="overview-oom-tick", interval=_TICK_MS, disabled=True),
        ],
        id="overview-oom",
        className="panel problem oom",
        style=_HIDDEN,
    )


def findings_section() -> Component:
    """The place of the findings."""
    return section("Findings", html.Div(id="overview-findings", className="finding-place"))


def board_of(store: TraceStore, query: Query) -> OomBoard:
    """The verdicts of a device, kept with its trace."""
    key = ("oom board", query.device)
    return store.remembered(query.trace_id, key, lambda analysis: OomBoard(analysis.opinions(query.device), store.jobs))


def findings(store: TraceStore, subject: dict[str, Any] | None) -> list[Component]:
    """The findings of the device that is looked at."""
    query = _subject(subject)
    return finding_list(query.opinions(store).findings, query)


def chosen_event(
    board: OomBoard, trigger: str | None, value: str | None, data: dict[str, Any], shown: dict[str, Any] | None
) -> int | None:
    """The failed request to judge: the one picked, else that of the moment, else the one shown, else the first.

    None where nothing failed.
    """
    if not board.events:
        return None
    if trigger == "overview-oom-choice" and value is not None and int(value) in board.events:
        return int(value)
    if data["event"] in board.events:
        return int(data["event"])
    is_same = shown is not None and (shown["trace"], shown["device"]) == (data["trace"], data["device"])
    return int(shown["event"]) if is_same and shown is not None else board.events[0]


def verdict(
    store: TraceStore, trigger: str | None, data: dict[str, Any] | None, value: str | None, shown: dict[str, Any] | None
) -> list[Any]:
    """The card's style, list of requests, choice and its style, verdict, evidence, and what is shown."""
    if data is None:
        raise PreventUpdate
    if data["device"] is None:
        return [_HIDDEN, [], None, _HIDDEN, None, None, None]
    query = Query.from_data(data)
    board = board_of(store, query)
    event = chosen_event(board, trigger, value, data, shown)
    if event is None:
        return [_HIDDEN, [], None, _HIDDEN, None, None, None]
    now = {"trace": query.trace_id, "device": query.device, "event": event}
    if now == shown:
        raise PreventUpdate
    trace, judged = query.analysis(store).trace, board.verdict(event)
    choices = {} if len(board.events) > 1 else _HIDDEN
    parts = [verdict_panel(trace, judged, query), evidence_panel(judged)]
    return [{}, oom_choices(trace, board.events), str(event), choices, *parts, now]


def changes(store: TraceStore, shown: dict[str, Any] | None, is_tick: bool = False) -> list[Any]:
    """What would have let the request through, and whether nothing more is to be waited for."""
    if shown is None:
        return [None, True]
    board = board_of(store, Query(shown["trace"], shown["device"]))
    progress = board.wait(shown["event"], _PATIENCE_S)
    if progress.is_active and is_tick:
        raise PreventUpdate
    return [changes_panel(board.verdict(shown["event"]), progress), not progress.is_active]


def _subject(subject: dict[str, Any] | None) -> Query:
    if subject is None or subject["device"] is None:
        raise PreventUpdate
    return Query.from_data(subject)


def register(app: Dash, store: TraceStore) -> None:
    """Wire findings and verdict; what cannot be computed is said in the view's own place for problems."""

    def list_findings(subject: dict[str, Any] | None) -> Any:
        try:
            return findings(store, subject)
        except MemscopeError as error:
            return html.P(str(error), className="problem-text")

    def judge(data: dict[str, Any] | None, value: str | None, shown: dict[str, Any] | None) -> list[Any]:
        try:
            return verdict(store, ctx.triggered_id, data, value, shown)
        except MemscopeError as error:
            return [{}, [], None, _HIDDEN, html.P(str(error), className="problem-text"), None, None]

    def search(shown: dict[str, Any] | None, _ticks: int | None) -> list[Any]:
        return changes(store, shown, ctx.triggered_id == "overview-oom-tick")

    app.callback(Output("overview-findings", "children"), Input("subject", "data"))(list_findings)
    app.callback(
        Output("overview-oom", "style"),
        Output("overview-oom-choice", "data"),
        Output("overview-oom-choice", "value"),
        Output("overview-oom-choices", "style"),
        Output("overview-oom-verdict", "children"),
        Output("overview-oom-evidence", "children"),
        Output("overview-oom-shown", "data"),
        Input("moment", "data"),
        Input("overview-oom-choice", "value"),
        State("overview-oom-shown", "data"),
    )(judge)
    app.callback(
        Output("overview-oom-changes", "children"),
        Output("overview-oom-tick", "disabled"),
        Input("overview-oom-shown", "data"),
        Input("overview-oom-tick", "n_intervals"),
    )(search)
    app.clientside_callback(
        ClientsideFunction("memscope", "pinFinding"),
        Output("pin", "data", allow_duplicate=True),
        Input({"type": "finding", "index": ALL, "pin": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
