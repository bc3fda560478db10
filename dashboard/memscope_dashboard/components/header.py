"""The header: which trace, which device, how far it can be trusted, and the colour scheme."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, html
from dash.development.base_component import Component

from memscope.device.recording import RecordedTrace
from memscope.errors import MemscopeError
from memscope.names import shown
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore


def layout(store: TraceStore) -> Component:
    """The header's components."""
    traces = [{"value": trace_id, "label": shown(trace_id)} for trace_id in store.trace_ids]
    select = {"size": "xs", "allowDeselect": False, "withCheckIcon": False, "comboboxProps": {"shadow": "md"}}
    return html.Div(
        [
            html.Div([html.Span(className="mark"), html.Span("memscope", className="wordmark")], className="brand"),
            html.Span("▸", className="crumb"),
            dmc.Select(id="trace-select", data=traces, w=264, searchable=len(traces) > 6, **select),
            dmc.Select(id="device-select", data=[], w=248, **select),
            dmc.Popover(
                [
                    dmc.PopoverTarget(html.Button(id="trust-badge", className="trust", type="button")),
                    dmc.PopoverDropdown(html.Div(id="trust-notes", className="trust-notes")),
                ],
                width=420,
                position="bottom-start",
                shadow="md",
            ),
            html.Span(className="spring"),
            dmc.ActionIcon(
                html.Span(className="icon icon-scheme"),
                id="scheme-toggle",
                variant="subtle",
                color="gray",
                **{"aria-label": "Switch between light and dark"},
            ),
        ],
        className="header",
    )


def trust_badge(recording: RecordedTrace) -> list[Any]:
    """What the badge says: exact, a dry run or neither, and how many notes there are."""
    completeness = recording.completeness
    n_notes = len(completeness.warnings)
    parts: list[Any] = []
    if recording.is_dry_run:
        parts.append(html.Span("○ dry run", className="quiet"))
    elif recording.is_emulated:
        parts.append(html.Span("○ emulated device", className="quiet"))
    elif recording.is_exact:
        parts.append(html.Span([html.Span("●", className="dot"), " exact"], className="exact"))
    if n_notes:
        parts.append(html.Span(f"⚠ {n_notes} note{'s' if n_notes > 1 else ''}", className="warn"))
    n_remarks = len(recording.trace.metadata.notes)
    if n_remarks and not n_notes:
        parts.append(html.Span(f"{n_remarks} note{'s' if n_remarks > 1 else ''}", className="quiet"))
    return parts or [html.Span("○ completeness unknown", className="warn")]


def trust_notes(recording: RecordedTrace) -> list[Component]:
    """The panel behind the badge."""
    completeness, metadata = recording.completeness, recording.trace.metadata
    items = [html.Li(text, className="warn-item") for text in completeness.warnings]
    items += [html.Li(text) for text in metadata.shown_notes]
    return [html.P(recording.trust_sentence()), html.Ul(items) if items else html.P("No notes.", className="quiet")]


def trust_update(store: TraceStore, subject: dict[str, Any]) -> tuple[list[Any], list[Component]]:
    """Badge and notes of the trace that is looked at."""
    try:
        analysis = Query.from_data(subject).analysis(store)
    except MemscopeError as error:
        return [html.Span("✕ cannot be trusted", className="bad")], [html.P(str(error), className="problem-text")]
    return trust_badge(analysis), trust_notes(analysis)


def register(app: Dash, store: TraceStore) -> None:
    """Wire the badge and the colour scheme."""

    def update(subject: dict[str, Any]) -> tuple[list[Any], list[Component]]:
        return trust_update(store, subject)

    app.callback(
        Output("trust-badge", "children"),
        Output("trust-notes", "children"),
        Input("subject", "data"),
        prevent_initial_call=True,
    )(update)
    app.clientside_callback(
        ClientsideFunction("memscope", "scheme"),
        Output("scheme", "data"),
        Output("scheme-kept", "data"),
        Output("mantine", "forceColorScheme"),
        Input("scheme-toggle", "n_clicks"),
        State("scheme-kept", "data"),
    )
