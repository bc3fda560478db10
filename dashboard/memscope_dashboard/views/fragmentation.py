"""Fragmentation: what is free and cannot go back, how large its pieces are, and which live blocks keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE
from memscope.device.device import Device, Moment
from memscope.figures.fragmentation import (
    ACTIVE,
    drawn_holes,
    fragmentation_figure,
    holes_color,
    holes_figure,
    holes_finding,
)
from memscope.figures.theme import Theme, theme_named
from memscope.fragmentation.holes import Holes, holes_of
from memscope.fragmentation.over_time import OverTime
from memscope.fragmentation.pins import Holder, Pin
from memscope.fragmentation.series import FragmentationSeries
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count, format_duration, format_fraction
from memscope.words.headlines import fragmentation_finding, where
from memscope.words.labels import NOT_MEASURED, row_label, sentence, short_place, split_site
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.grid import NUMBER, data_grid
from memscope_dashboard.components.inspector import pin_data
from memscope_dashboard.components.run_graph import (
    draw_run,
    register_run_graph,
    run_controls,
    run_graph,
    run_note,
)
from memscope_dashboard.components.text import finding, picture, size, swatch, tile, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

MAX_PINS = 200
NO_PINS = "No live block keeps free memory from going back"
_TEXT_LIMIT = 160
_RULES = {f"cat-cell row-{category.label}": f"params.value === '{category.label}'" for category in Category}


def _bytes_column(field: str, name: str, tooltip: str, width: int = 94) -> dict[str, Any]:
    return {
        "field": field,
        "headerName": name,
        "headerTooltip": tooltip,
        "width": width,
        "tooltipField": f"{field}_exact",
        "valueFormatter": {"function": f"params.data.{field}_text"},
        **NUMBER,
    }


PIN_COLUMNS: list[dict[str, Any]] = [
    _bytes_column("held", "free, held", "Free bytes that would go back but for these blocks"),
    _bytes_column("returned", "gives back", "What freeing these blocks, and then emptying the cache, gives back"),
    _bytes_column("pinning", "live blocks", "How many blocks keep it, and their bytes", 132),
    {
        "field": "category",
        "headerName": "largest of them",
        "width": 130,
        "cellClassRules": _RULES,
        "valueFormatter": {"function": "params.data.label"},
    },
    {"field": "owner", "headerName": "owner", "flex": 3, "minWidth": 102, "tooltipField": "owner"},
    {"field": "site", "headerName": "allocated by", "flex": 3, "minWidth": 102, "tooltipField": "site_whole"},
    {
        "field": "age",
        "headerName": "age",
        "headerTooltip": "Events since it was allocated",
        "width": 78,
        "tooltipField": "age_exact",
        "valueFormatter": {"function": "params.data.age_text"},
        **NUMBER,
    },
    {"field": "step", "headerName": "step", "width": 62},
    _bytes_column("segment", "segment", "The segment that they lie in", 94),
]
"""Columns of the table; a row's id is read by :func:`allocation_of`."""


def pin_rows(moment: Moment, limit: int = MAX_PINS) -> tuple[list[dict[str, Any]], int]:
    """Rows for the grid, those that hold most free bytes first, and how many pins there are."""
    if not moment.lifetimes.segments_are_known:
        return [], 0
    pins = moment.pins(moment.fragmentation.overall.n_active_blocks + 1)
    return [_row(moment, position, pin) for position, pin in enumerate(pins[:limit])], len(pins)


def allocation_of(row_id: str) -> int:
    """The largest allocation of the pin in a row."""
    return int(row_id.rsplit("-", 1)[1])


def pin_note(moment: Moment, n_shown: int, n_all: int) -> str:
    """How to use the table, and what it leaves out."""
    if not moment.lifetimes.segments_are_known:
        return "Not measured: the segments were not recorded."
    if not n_shown:
        return "Emptying the cache would give back all free memory outside private pools."
    left = f"The {format_count(n_shown)} of {format_count(n_all)} that hold most. " if n_all > n_shown else ""
    return f"{left}Click a row to pin its largest block: the address map then outlines it."


def _row(moment: Moment, position: int, pin: Pin) -> dict[str, Any]:
    (holder,) = moment.holders(pin, 1)
    site = moment.device.site_of(holder.row)
    kind = "expandable segment" if pin.is_expandable else "segment"
    address = moment.device.trace.address_text(pin.segment_address)
    unknown = "" if pin.is_pool_known else "; its pool was not recorded: in a private one nothing goes back"
    return {
        "row": f"{position}-{holder.row}",
        **_size("held", pin.held_bytes),
        **_size("returned", pin.returned_bytes),
        **_live(pin),
        "category": holder.category.label,
        "label": row_label(holder.category.label),
        "owner": _shortened(holder.owner),
        "site": _short_site(site),
        "site_whole": site or "no stack recorded",
        **_age(holder),
        "step": holder.step or "—",
        **_size("segment", pin.segment_bytes),
        "segment_exact": f"{kind} at {address}, {format_count(pin.segment_bytes)} bytes{unknown}",
    }


def _size(field: str, n_bytes: int) -> dict[str, Any]:
    return {field: n_bytes, f"{field}_text": format_bytes(n_bytes), f"{field}_exact": f"{format_count(n_bytes)} bytes"}


def _live(pin: Pin) -> dict[str, Any]:
    n = len(pin.allocation_ids)
    found = _size("pinning", pin.pinning_bytes)
    words = (
        f"{format_count(n)} blocks, together {found['pinning_exact']}"
        if n > 1
        else f"1 block, {found['pinning_exact']}"
    )
    return found | {"pinning_text": f"{found['pinning_text']} in {format_count(n)}", "pinning_exact": words}


def _age(holder: Holder) -> dict[str, Any]:
    """What predates the events is older than all of them."""
    events = f"{'> ' if holder.alloc_event is None else ''}{format_count(holder.age_events)}"
    time = "" if holder.age_ns is None else f", {format_duration(holder.age_ns)}"
    return {"age": holder.age_events, "age_text": events, "age_exact": f"{events} events{time}"}


def _short_site(site: str | None) -> str:
    if site is None:
        return "—"
    function, place = split_site(site)
    return _shortened(f"{function} · {short_place(place)}" if place else function)


def _shortened(text: str | None) -> str:
    if text is None:
        return "—"
    return text if len(text) <= _TEXT_LIMIT else f"{text[: _TEXT_LIMIT // 3]}…{text[-2 * _TEXT_LIMIT // 3 :]}"


def layout() -> Component:
    """Components and ids only."""
    grid = data_grid(
        "fragmentation-grid",
        PIN_COLUMNS,
        NO_PINS,
        rowSelection={"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
    )
    return view_frame(
        "fragmentation",
        view_heading("fragmentation-title", "fragmentation-note", run_controls("fragmentation")),
        html.Div(id="fragmentation-tiles", className="tiles"),
        html.Div(id="fragmentation-chips", className="chips"),
        *run_graph("fragmentation"),
        html.Section(
            [
                html.Div(
                    [
                        html.H2("Live blocks that keep free memory from going back"),
                        html.Div(id="fragmentation-map-link", className="links"),
                    ],
                    className="panel-head",
                ),
                html.Div(grid, className="grid-box"),
                html.Div(id="fragmentation-pins-note", className="quiet small pins-note"),
            ],
            className="panel",
        ),
        html.Section(
            [
                html.H2(id="fragmentation-holes-title"),
                html.Div(id="fragmentation-holes-legend", className="chips"),
                picture("fragmentation-holes", "holes-graph"),
            ],
            className="panel",
        ),
    )


@dataclass(frozen=True, slots=True)
class OverRun:
    """What the tiles need of a device's whole run; None where it was not measured.

    Attributes
    ----------
    cached_bytes, request_bytes
        int64 (rows of the series,): the largest request that would succeed without and with the driver.
    """

    series: FragmentationSeries | None
    summary: OverTime | None
    cached_bytes: Int64Array | None
    request_bytes: Int64Array | None

    def at(self, values: Int64Array | None, event: int) -> int | None:
        """One of the two columns after an event."""
        return None if self.series is None or values is None else int(values[self.series.overall.row_of(event)])


def over_run(device: Device) -> OverRun:
    """Sum up a device's run, which takes longer than looking at one moment of it."""
    series, available = device.fragmentation_series, device.available_bytes
    if series is None:
        return OverRun(None, None, None, None)
    whole = None if available is None else series.largest_request_bytes(available)
    summary = device.fragmentation_over_time
    return OverRun(series, summary, series.largest_cached_request_bytes(), whole)


def tiles(moment: Moment, run: OverRun, query: Query) -> list[Component]:
    """The four numbers of a moment, each beside the worst of the run."""
    if not moment.lifetimes.segments_are_known:
        names = ("Free, pinned", "In use of reserved", "Largest request, no driver", "Largest request, with driver")
        return [tile(name, size(None), "the segments were not recorded") for name in names]
    ledger, overall = moment.ledger, moment.fragmentation.overall
    cached, whole = run.at(run.cached_bytes, moment.event), run.at(run.request_bytes, moment.event)
    summary, used = run.summary, overall.utilisation_frac
    worst = lowest = tightest = None
    if summary is not None and summary.worst:
        worst = ["worst ", size(summary.worst[0].pinned_bytes), _at(moment, query, summary.worst[0].event)]
    if summary is not None and summary.lowest_utilisation_frac is not None:
        share = html.Span(format_fraction(summary.lowest_utilisation_frac), className="num")
        lowest = ["lowest ", share, _at(moment, query, summary.lowest_utilisation_event)]
    if summary is not None and summary.smallest_largest_request_bytes is not None:
        smallest = size(summary.smallest_largest_request_bytes)
        tightest = ["tightest ", smallest, _at(moment, query, summary.smallest_largest_request_event)]
    unit = html.Span(NOT_MEASURED, className="not-measured") if used is None else format_fraction(used)
    return [
        tile("Free, pinned", size(ledger[FREE_PINNED]), worst or "never any in this run"),
        tile("In use of reserved", unit, lowest or ""),
        tile("Largest request, no driver", size(cached), "largest free block, default pool"),
        tile("Largest request, with driver", size(whole), tightest or "the device's memory was not recorded"),
    ]


def _at(moment: Moment, query: Query, event: int) -> Component:
    """A link to a moment of this view."""
    target = Query(query.trace_id, moment.device.index, event)
    words = where(moment.device.at(event))
    text = "at the start" if event == NONE_ID else f"at event {format_count(event)}"
    return html.Span([" ", dcc.Link(text, href=f"/fragmentation{target.search()}", className="link", title=words)])


def chips(moment: Moment) -> list[Component]:
    """What the picture stacks, with its bytes at the moment."""
    if not moment.lifetimes.segments_are_known:
        return []
    rows = [(ACTIVE, moment.active_bytes)]
    rows += [(name, moment.ledger[name]) for name in (FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE)]
    return [
        html.Span([swatch(name), html.Span(row_label(name), className="chip-name"), size(n_bytes)], className="chip")
        for name, n_bytes in rows
        if n_bytes or name == ACTIVE
    ]


def holes_legend(holes: tuple[Holes, ...], theme: Theme) -> list[Component]:
    """Which colour is which pool, stream and size class."""
    return [
        html.Span(
            [
                html.Span(className="swatch", style={"background": holes_color(position, theme)}),
                html.Span(name, className="chip-name"),
                size(int(sizes.sum())),
            ],
            className="chip",
        )
        for position, (name, sizes) in enumerate(drawn_holes(holes))
    ]


def update(store: TraceStore, data: dict[str, Any] | None, scheme: str | None, axis: str) -> list[Any]:
    """Everything but the picture over the run, for a moment."""
    if data is None or scheme is None:
        raise PreventUpdate
    query, theme = Query.from_data(data), theme_named(scheme)
    moment = query.moment(store)
    known = moment.lifetimes.segments_are_known
    index = moment.device.index
    key = ("fragmentation over the run", index)
    run = store.remembered(query.trace_id, key, lambda analysis: over_run(analysis.device(index)))
    holes = holes_of(moment.device.trace, moment.state) if known else ()
    note = f"Solid line: reserved. {run_note(moment.device, axis)}"
    if not moment.lifetimes.n_events:
        note = "No events were recorded: only the state at the end is known."
    rows, n_all = pin_rows(moment)
    link = dcc.Link("see the address map at this moment", href=f"/map{query.search()}", className="link small")
    return [
        finding(fragmentation_finding(moment)),
        note,
        tiles(moment, run, query),
        chips(moment),
        sentence(holes_finding(holes)) if known else "Free blocks: not measured",
        holes_legend(holes, theme),
        holes_figure(holes, theme),
        rows,
        pin_note(moment, len(rows), n_all),
        link,
    ]


def draw(store: TraceStore, *chosen: Any) -> list[Any]:
    """Figure and the reset button for a device, an axis and a visible range."""
    return draw_run(store, fragmentation_figure, *chosen)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        return update(store, *args)

    def picture_of(*args: Any) -> list[Any]:
        return draw(store, *args)

    def pin(clicked: dict[str, Any] | None, data: dict[str, Any]) -> Any:
        return pin_data(data, allocation_of(clicked["rowId"])) if clicked and clicked.get("rowId") else no_update

    outputs = [Output(f"fragmentation-{name}", "children") for name in ("title", "note", "tiles", "chips")]
    outputs += [Output(f"fragmentation-holes-{name}", "children") for name in ("title", "legend")]
    outputs += [Output("fragmentation-holes", "figure"), Output("fragmentation-grid", "rowData")]
    outputs += [Output(f"fragmentation-{name}", "children") for name in ("pins-note", "map-link")]
    axis = Input("fragmentation-axis", "value")
    register_update(app, "fragmentation", answer, outputs, [Input("moment", "data"), Input("scheme", "data"), axis])
    app.callback(
        Output("fragmentation-graph", "figure"),
        Output("fragmentation-reset", "style"),
        Input("subject", "data"),
        Input("scheme", "data"),
        axis,
        Input("fragmentation-window", "data"),
        State("moment", "data"),
    )(picture_of)
    register_run_graph(app, store, "fragmentation")
    app.callback(
        Output("pin", "data", allow_duplicate=True),
        Input("fragmentation-grid", "cellClicked"),
        State("moment", "data"),
        prevent_initial_call=True,
    )(pin)


VIEW = View("fragmentation", "Fragmentation", layout, register)
