"""Overview: where the memory is at the moment, and how far the answer can be trusted."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.attribution.grouping import Grouping
from memscope.device.device import Moment
from memscope.figures.ledger import ledger_figure
from memscope.figures.theme import theme_named
from memscope.units import format_bytes, format_count, format_fraction, format_items
from memscope.words.headlines import inferred_words, ledger_finding
from memscope.words.labels import (
    NOT_MEASURED,
    SCATTER_MEANING,
    pool_label,
    scatter_words,
    short_place,
    split_site,
    stream_label,
)
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components import finding_list, oom_card
from memscope_dashboard.components.categories import ledger_table
from memscope_dashboard.components.text import (
    facts,
    finding,
    picture,
    recording_notes,
    section,
    size,
    tile,
    view_heading,
)
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

_N_SITES = 6
_N_GROUPS = 4

_SOURCE_LABELS = {
    "identity": "by its owner",
    "user": "by your tags",
    "rule": "by stack rules",
    "lifetime": "by lifetime",
    "inferred": "inferred",
}


def layout() -> Component:
    """Components and ids only."""
    return view_frame(
        "overview",
        view_heading("overview-title", "overview-note"),
        html.Div(id="overview-tiles", className="tiles"),
        oom_card.layout(),
        finding_list.layout(),
        html.Div(
            [
                html.Div(
                    [
                        section(
                            "Ledger",
                            picture("overview-bar", "ledger-bar"),
                            html.Div(id="overview-ledger"),
                        ),
                        section("Lines of code that hold most", html.Div(id="overview-sites")),
                    ],
                    className="column wide",
                ),
                html.Div(
                    [
                        section("Can it be trusted?", html.Div(id="overview-trust")),
                        section("Attributed", html.Div(id="overview-coverage")),
                        section("Fragmentation", html.Div(id="overview-fragmentation")),
                    ],
                    className="column narrow",
                ),
            ],
            className="columns",
        ),
    )


def provenance(moment: Moment) -> str:
    """Where the trace comes from, in a line."""
    trace, metadata = moment.device.trace, moment.device.trace.metadata
    conf = metadata.alloc_conf
    parts = [
        moment.device.name,
        f"torch {metadata.torch_version}" if metadata.torch_version else None,
        metadata.origin,
        format_items(trace.n_events, "event"),
        f"settings {conf}" if conf else "default settings" if conf == "" else "settings not recorded",
    ]
    return " · ".join(part for part in parts if part)


def tiles(moment: Moment) -> list[Component]:
    """The four numbers of a moment."""
    device = moment.device
    peak, highest = device.peak(), device.peak_reserved().reserved_bytes
    free = None if moment.reserved_bytes is None else moment.reserved_bytes - moment.active_bytes
    available, headroom = device.available_bytes, device.headroom_bytes
    if headroom is not None:
        room: Any = html.Span(["of ", size(available), " that PyTorch could have"])
    elif available is None:
        room = "device size not recorded"
    else:
        room = "segments not recorded"
    free_share = format_fraction(free / moment.reserved_bytes) if free is not None and moment.reserved_bytes else None
    return [
        tile("Allocated", size(moment.allocated_bytes), ["peak ", size(peak.allocated_bytes)]),
        tile("Reserved", size(moment.reserved_bytes), ["highest ", size(highest)] if highest is not None else ""),
        tile("Reserved, not in use", size(free), f"{free_share} of reserved" if free_share else ""),
        tile("Headroom", size(headroom), room),
    ]


def trust(moment: Moment) -> list[Component]:
    """The notes that weaken these numbers, or that there are none."""
    recording = moment.device.recording
    warnings = [html.Li(text, className="warn-item") for text in recording.completeness.warnings]
    dot = [html.Span("●", className="dot"), " "] if recording.is_exact else []
    head: list[Component] = [html.P([*dot, recording.trust_sentence()])]
    if warnings:
        head.append(html.Ul(warnings, className="notes"))
    return [*head, *recording_notes(moment.device.trace)]


def coverage(moment: Moment) -> list[Component]:
    """How much of what is in use has a category, and what decided it."""
    found = moment.coverage
    frac = found.attributed_frac
    if frac is None:
        return [html.P("Nothing is in use at this moment.", className="quiet")]
    pairs = [(_SOURCE_LABELS[name], size(n_bytes)) for name, n_bytes in found.by_source.items() if n_bytes]
    return [
        html.Div(
            [
                html.Span(format_bytes(found.attributed_bytes), className="big-number num"),
                f" of {format_bytes(found.attributed_bytes + found.unknown_bytes)} requested",
            ],
            className="lead",
        ),
        html.Div(html.Span(style={"width": f"{100 * frac:.2f}%"}), className="meter"),
        facts([*pairs, ("unknown", size(found.unknown_bytes))]),
        *[html.P(inferred_words(part), className="quiet", title=part.evidence) for part in found.inferred],
    ]


def fragmentation(moment: Moment) -> list[Component]:
    """Free memory by what can be done about it, and the groups that hold it."""
    if not moment.lifetimes.segments_are_known:
        return [html.P([html.Span(NOT_MEASURED, className="not-measured"), ": the segments were not recorded."])]
    overall = moment.fragmentation.overall
    if not overall.reserved_bytes:
        return [html.P("Nothing is reserved at this moment.", className="quiet")]
    groups = [
        html.Tr(
            [
                html.Td(
                    [
                        html.Div(group.size_class),
                        html.Div(f"{pool_label(group.pool)}, {stream_label(group.stream)}", className="quiet"),
                    ]
                ),
                html.Td(size(group.free_bytes), className="num"),
                html.Td(scatter_words(group.scatter_frac), className="num quiet"),
            ]
        )
        for group in moment.fragmentation.groups[:_N_GROUPS]
        if group.free_bytes
    ]
    head = html.Thead(
        html.Tr(
            [
                html.Th("group"),
                html.Th("free", className="num"),
                html.Th("scatter", className="num", title=SCATTER_MEANING),
            ]
        )
    )
    return [
        facts(
            [
                ("free, pinned by live blocks", size(overall.free_in_split_segments_bytes)),
                ("free, releasable", size(overall.releasable_bytes)),
                ("largest free block", size(overall.largest_free_block_bytes)),
                ("rounding", size(overall.rounding_bytes)),
            ]
        ),
        html.Table([head, html.Tbody(groups)], className="small-table") if groups else None,
    ]


def sites(moment: Moment) -> list[Component]:
    """The lines of code whose allocations hold most."""
    grouped = moment.grouped(Grouping.SITE)
    if not grouped:
        return [html.P("Nothing is in use at this moment.", className="quiet")]
    rows = []
    for group in grouped[:_N_SITES]:
        function, place = split_site(group.label)
        where = html.Div(
            [html.Span(function, className="site-name"), html.Span(short_place(place), className="site-file")]
        )
        rows.append(
            html.Tr(
                [
                    html.Td(where, title=group.label),
                    html.Td(format_count(group.n_allocations), className="num quiet"),
                    html.Td(size(group.requested_bytes), className="num"),
                ]
            )
        )
    rest = sum(group.requested_bytes for group in grouped[_N_SITES:])
    n_more = len(grouped) - _N_SITES
    more = (
        html.P([f"{format_count(n_more)} more lines together hold ", size(rest)], className="quiet small")
        if n_more > 0
        else None
    )
    return [html.Table(html.Tbody(rows), className="small-table sites"), more]


def update(store: TraceStore, data: dict[str, Any] | None, scheme: str | None) -> list[Any]:
    """The view's outputs for a moment."""
    if data is None or scheme is None:
        raise PreventUpdate
    moment = Query.from_data(data).moment(store)
    return [
        finding(ledger_finding(moment)),
        provenance(moment),
        tiles(moment),
        ledger_figure(moment.ledger, theme_named(scheme)),
        ledger_table(moment.ledger),
        sites(moment),
        trust(moment),
        coverage(moment),
        fragmentation(moment),
    ]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(data: dict[str, Any] | None, scheme: str | None) -> list[Any]:
        return update(store, data, scheme)

    outputs = [
        Output("overview-title", "children"),
        Output("overview-note", "children"),
        Output("overview-tiles", "children"),
    ]
    outputs += [
        Output("overview-bar", "figure"),
        Output("overview-ledger", "children"),
        Output("overview-sites", "children"),
    ]
    outputs += [Output(f"overview-{name}", "children") for name in ("trust", "coverage", "fragmentation")]
    register_update(app, "overview", answer, outputs, [Input("moment", "data"), Input("scheme", "data")])
    finding_list.register(app, store)
    oom_card.register(app, store)


VIEW = View("overview", "Overview", layout, register)
