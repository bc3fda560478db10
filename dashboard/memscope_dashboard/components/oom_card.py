"""The verdict on a failed request: why, what would have let it through, and on demand what that rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, ctx, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.errors import MemscopeError
from memscope.oom.room import FreeGroup
from memscope.oom.verdict import Counterfactual, FreedBlock, OomOwner, OomVerdict, oom_headline
from memscope.techniques.through import LetThrough
from memscope.trace.marks import describe_moment
from memscope.trace.trace import Trace
from memscope.units import format_bytes, format_count
from memscope.words.labels import pool_label, row_label, short_place, split_site, stream_label
from memscope.words.techniques import OF_TECHNIQUES, technique_words
from memscope_dashboard.components.text import code_line, finding, size, swatch
from memscope_dashboard.jobs import Progress
from memscope_dashboard.oom_board import OomBoard
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

MAX_CHOICES = 1_000
"""Failed requests that the list offers."""

_CHECKED = {"exact": "checked by replay", "modelled": "by a modelled replay", "unchecked": "not checked by replay"}
_N_OWNERS = 6
_TICK_MS = 500
_PATIENCE_S = 0.1
"""How long an answer waits for a search that is nearly done."""
_HIDDEN = {"display": "none"}
_VIEWS = (("map", "address map"), ("timeline", "timeline"), ("fragmentation", "fragmentation"))


def layout() -> Component:
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


def oom_choices(trace: Trace, events: Sequence[int]) -> list[dict[str, str]]:
    """The failed requests that can be chosen: event, size and where it was."""
    return [{"value": str(event), "label": _choice(trace, event)} for event in events[:MAX_CHOICES]]


def _choice(trace: Trace, event: int) -> str:
    where = describe_moment(trace, event)
    asked = format_bytes(int(trace.size_bytes[event]))
    return f"event {format_count(event)}: {asked}{f', {where}' if where else ''}"


def verdict_panel(trace: Trace, verdict: OomVerdict, query: Query) -> list[Component]:
    """The verdict in a line, its reason, and the way to the state at the failed request."""
    headline, event = oom_headline(verdict), verdict.event
    parts: list[Component] = [html.P(finding(_sentence(headline)), className="oom-headline")]
    if verdict.reason not in headline:
        parts.append(html.P(f"{_sentence(verdict.reason)}."))
    target = Query(query.trace_id, verdict.device, event).search()
    links = [dcc.Link(label, href=f"/{view}{target}", className="link") for view, label in _VIEWS]
    where = "" if event is None else describe_moment(trace, event)
    place = "" if event is None else f"Event {format_count(event)}{f', {where}' if where else ''}"
    n = len(verdict.events)
    count = f"; {format_count(n)} requests failed in this run" if n > 1 else ""
    if n > MAX_CHOICES:
        count += f", of which the list has the first {format_count(MAX_CHOICES)}"
    parts.append(
        html.Div([html.Span(f"{place}{count}. ", className="quiet"), "See the state then: ", *_between(links)])
    )
    if verdict.trust:
        parts.append(
            html.Ul([html.Li(_sentence(text), className="warn-item") for text in verdict.trust], className="notes")
        )
    return parts


def _between(links: Sequence[Component]) -> list[Any]:
    found: list[Any] = []
    for position, link in enumerate(links):
        found += [", " if position else "", link]
    return found


def evidence_panel(verdict: OomVerdict) -> Component:
    """What the verdict rests on, where memory was free, and who held it, folded up."""
    parts: list[Component | None] = [
        html.Ul([html.Li(_sentence(text)) for text in verdict.evidence], className="notes")
    ]
    failure = verdict.failure
    if failure is not None and failure.free is not None and failure.free.groups:
        parts += _groups(failure.free.groups, failure.device_free_bytes)
    if failure is not None and failure.owners:
        parts += _owners(failure.owners)
    return html.Details([html.Summary("What this rests on, where memory was free, and who held it"), *parts])


def changes_panel(verdict: OomVerdict, progress: Progress, query: Query) -> list[Component]:
    """What would have let the request through, what to change in the program, or how far the search for it is."""
    if progress.state in ("waiting", "running"):
        words = "Searching by replay what would have let it through…"
        return [html.P(words, className="quiet", **{"aria-live": "polite"})]
    if progress.state == "failed":
        return [html.P(f"What would have let it through could not be searched: {progress.problem}", className="bad")]
    items = [_change(change) for change in verdict.remedies.found]
    found: list[Component] = [html.H3("What would have let it through")]
    if items:
        found.append(html.Ol(items, className="changes"))
    if verdict.remedies.not_found:
        found.append(
            html.Ul([html.Li(_sentence(text)) for text in verdict.remedies.not_found], className="notes quiet")
        )
    if len(found) == 1:
        found.append(
            html.P("Nothing was searched: the recording does not hold what a replay needs.", className="quiet")
        )
    return found + _techniques(verdict.techniques, query)


def _techniques(found: Sequence[LetThrough], query: Query) -> list[Component]:
    """The techniques with which the request would have been served, each with the way to the run with it."""
    if not found:
        return []
    items = []
    for technique in found:
        address = f"/whatif{query.search()}&{urlencode({'apply': technique.technique})}"
        parts: list[Any] = [html.Span(finding(technique_words(technique))), " "]
        parts.append(dcc.Link("see the run with it", href=address, className="link"))
        items.append(html.Li([html.Div(parts), code_line(technique.how) if technique.how else None]))
    return [
        html.H3("What to change in the program, the cheapest first"),
        html.Ol(items, className="changes"),
        html.P(f"{_sentence(OF_TECHNIQUES)}.", className="quiet small"),
    ]


def _change(change: Counterfactual) -> Component:
    text = "With this setting, from the start of the program:" if change.line else _sentence(change.text)
    words = [html.Span(finding(text)), " "]
    words.append(
        html.Span(_CHECKED[change.checked], className=f"exactness {change.checked}", title=change.note or None)
    )
    parts: list[Any] = [html.Div(words)]
    if change.note:
        parts.append(html.Div(_sentence(change.note), className="quiet small"))
    if change.line:
        parts.append(code_line(change.line))
    if change.blocks:
        rows = [_block(block) for block in change.blocks]
        if change.n_blocks > len(change.blocks):
            rows.append(html.Li(f"and {format_count(change.n_blocks - len(change.blocks))} smaller", className="quiet"))
        parts.append(html.Details([html.Summary("which blocks"), html.Ul(rows, className="notes")]))
    return html.Li(parts)


def _block(block: FreedBlock) -> Component:
    born = "before the recording" if block.alloc_event is None else f"event {format_count(block.alloc_event)}"
    words = f" {row_label(block.category)}: {_name(block.owner, block.site)} ({born})"
    return html.Li([swatch(block.category), size(block.block_bytes), words], title=block.site)


def _name(owner: str | None, site: str | None) -> str:
    function, place = split_site(site) if site else ("", "")
    short = f"{function} · {short_place(place)}" if place else function
    return ", ".join(text for text in (owner, short) if text) or "no owner or stack recorded"


def _groups(groups: Sequence[FreeGroup], driver_bytes: int | None) -> list[Component]:
    head = ("where memory was free", "reserved", "free", "largest", "for this request")
    rows = [
        (
            f"{group.size_class} blocks, {pool_label(group.pool)}, {stream_label(group.stream)}",
            size(group.reserved_bytes),
            size(group.free_bytes),
            size(group.largest_free_bytes),
            group.why_not or "may use it",
        )
        for group in groups
    ]
    rows.append(("left to the driver", "", size(driver_bytes), "", ""))
    return [_table(head, rows, (1, 2, 3))]


def _owners(owners: Sequence[OomOwner]) -> list[Component]:
    rows = []
    for owner in owners[:_N_OWNERS]:
        more = f" and {format_count(owner.n_owners - 1)} more" if owner.owner and owner.n_owners > 1 else ""
        name = None if owner.owner is None else f"{owner.owner}{more}"
        category = html.Span([swatch(owner.category), row_label(owner.category)])
        words = html.Span(_name(name, owner.site), title=owner.site)
        rows.append((category, words, format_count(owner.n_allocations), size(owner.block_bytes)))
    return [_table(("who held memory", "owner and line", "allocations", "size"), rows, (2, 3))]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], numeric: Sequence[int]) -> Component:
    def classes(i: int) -> str:
        return "num" if i in numeric else ""

    top = html.Thead(html.Tr([html.Th(name, className=classes(i)) for i, name in enumerate(head)]))
    body = html.Tbody([html.Tr([html.Td(cell, className=classes(i)) for i, cell in enumerate(row)]) for row in rows])
    return html.Table([top, body], className="small-table")


def _sentence(text: str) -> str:
    """The same with a capital letter, unless it begins with the name of a setting."""
    first = text.split(" ", 1)[0]
    return f"{text[:1].upper()}{text[1:]}" if "_" not in first and ":" not in first[:-1] else text


def board_of(store: TraceStore, query: Query) -> OomBoard:
    """The verdicts of a device, kept with its trace."""
    key = ("oom board", query.device)
    return store.remembered(query.trace_id, key, lambda analysis: OomBoard(analysis.opinions(query.device), store.jobs))


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


def update(
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


def update_changes(store: TraceStore, shown: dict[str, Any] | None, is_tick: bool = False) -> list[Any]:
    """What would have let the request through, and whether nothing more is to be waited for."""
    if shown is None:
        return [None, True]
    query = Query(shown["trace"], shown["device"])
    board = board_of(store, query)
    progress = board.wait(shown["event"], _PATIENCE_S)
    if progress.is_active and is_tick:
        raise PreventUpdate
    return [changes_panel(board.verdict(shown["event"]), progress, query), not progress.is_active]


def register(app: Dash, store: TraceStore) -> None:
    """Wire verdict and search; what cannot be computed is said in the place of the verdict."""

    def judge(data: dict[str, Any] | None, value: str | None, shown: dict[str, Any] | None) -> list[Any]:
        try:
            return update(store, ctx.triggered_id, data, value, shown)
        except MemscopeError as error:
            return [{}, [], None, _HIDDEN, html.P(str(error), className="problem-text"), None, None]

    def search(shown: dict[str, Any] | None, _ticks: int | None) -> list[Any]:
        return update_changes(store, shown, ctx.triggered_id == "overview-oom-tick")

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
