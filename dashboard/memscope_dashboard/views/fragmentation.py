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
from memscope.fragmentation.series import FragmentationSeries
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.units import format_count, format_fraction
from memscope.words.headlines import fragmentation_finding, where
from memscope.words.labels import NOT_MEASURED, row_label, sentence
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.grid import data_grid
from memscope_dashboard.components.inspector import pin_data
from memscope_dashboard.components.pin_rows import NO_PINS, PIN_COLUMNS, allocation_of, pin_note, pin_rows
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
