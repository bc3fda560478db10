"""Replay: what other allocator settings would have reserved for the same requests."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.figures.replay import (
    ReplayLine,
    calibration_words,
    change_words,
    replay_figure,
    replay_finding,
)
from memscope.figures.replay_lines import replay_lines
from memscope.figures.theme import theme_named
from memscope.units import format_bytes, format_count, format_fraction
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.text import finding, picture, size, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View


def layout() -> Component:
    """Components and ids only."""
    field = dmc.TextInput(
        id="replay-conf",
        placeholder="try a setting: max_split_size_mb:64,…",
        size="xs",
        w=270,
        debounce=True,
        n_submit=0,
        **{"aria-label": "An allocator setting to try, as in PYTORCH_ALLOC_CONF"},
    )
    wait = html.Div("Replaying the recorded requests…", className="wait")
    body = html.Div([picture("replay-graph"), html.Div(id="replay-check", className="quiet small")], className="panel")
    return view_frame(
        "replay",
        view_heading("replay-title", "replay-note", [field]),
        dcc.Loading(
            [body, html.Div(id="replay-table", className="panel table-panel")],
            custom_spinner=wait,
            delay_show=150,
            overlay_style={"visibility": "visible", "opacity": 0.4},
            parent_className="replay-body",
        ),
    )


def table(lines: list[ReplayLine]) -> Component:
    """Every number of the comparison."""
    recorded = lines[0].peak_reserved_bytes
    headings = ("peak reserved", "vs recorded", "peak active", "efficiency", "driver allocs", "driver frees", "retries")
    head = html.Tr([html.Th("setting"), *[html.Th(text, className="num") for text in headings]])
    return html.Table(
        [html.Thead(head), html.Tbody([_row(line, recorded) for line in lines])], className="small-table replay-table"
    )


def _row(line: ReplayLine, recorded: int | None) -> Component:
    badge = html.Span(line.exactness, className="exactness") if line.exactness else None
    outcome = _outcome(line)
    name = [html.Div([html.Span(line.label, className="setting"), badge]), html.Div(outcome) if outcome else None]
    if line.problem:
        return html.Tr([html.Td(name, colSpan=8)])
    cells = [
        size(line.peak_reserved_bytes),
        html.Span(change_words(line, recorded), className="quiet"),
        size(line.peak_active_bytes),
        "" if line.efficiency_frac is None else format_fraction(line.efficiency_frac),
        *_counts(line),
    ]
    return html.Tr([html.Td(name), *[html.Td(cell, className="num") for cell in cells]])


def _counts(line: ReplayLine) -> list[str]:
    counts = (line.n_device_allocs, line.n_device_frees, line.n_retries)
    return ["—" if count is None else format_count(count) for count in counts]


def _outcome(line: ReplayLine) -> Any:
    """What a row's numbers leave out: that it failed, or ran out of memory."""
    if line.problem:
        return html.Span(line.problem, className="warn")
    if line.exactness == "bound":
        return html.Span("no allocator can need less", className="quiet")
    oom = None if line.result is None else line.result.oom
    if oom is None:
        return None
    at = "at the start" if oom.event < 0 else f"at event {format_count(oom.event)}"
    return html.Span(f"out of memory {at}, asking for {format_bytes(oom.requested_bytes)}", className="bad")


def note(lines: list[ReplayLine]) -> str:
    """How to read the picture, and what weakens it."""
    text = "Bars are the highest reserved bytes: solid is the peak of active bytes, hatched what is reserved beyond it."
    notes = dict.fromkeys(text for line in lines if line.result is not None for text in line.result.notes)
    return " ".join([text, *(f"{one[0].upper()}{one[1:]}." for one in notes)])


def update(store: TraceStore, subject: dict[str, Any] | None, scheme: str | None, conf: str | None) -> list[Any]:
    """Title, note, figure, check, table and refusal for a device and a setting to try."""
    if subject is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(subject)
    extra = (conf or "").strip() or None
    device = query.resolved(store).device or 0
    lines = store.remembered(
        query.trace_id, ("replay", device, extra), lambda analysis: replay_lines(analysis, device, extra)
    )
    figure = replay_figure(lines, theme_named(scheme))
    refused = next((line.problem for line in lines if extra is not None and line.label == extra), "")
    return [
        finding(replay_finding(lines)),
        note(lines),
        figure,
        calibration_words(lines),
        table(lines),
        refused or None,
    ]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(subject: dict[str, Any] | None, scheme: str | None, conf: str | None) -> list[Any]:
        return update(store, subject, scheme, conf)

    outputs = [Output("replay-title", "children"), Output("replay-note", "children"), Output("replay-graph", "figure")]
    outputs += [Output("replay-check", "children"), Output("replay-table", "children")]
    outputs.append(Output("replay-conf", "error"))
    inputs = [Input("subject", "data"), Input("scheme", "data"), Input("replay-conf", "value")]
    register_update(app, "replay", answer, outputs, inputs)


VIEW = View("replay", "Replay", layout, register)
