"""Allocations: who is live at the moment, one by one or in groups; searched, filtered and sorted on the server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.attribution.grouping import NOT_RECORDED, Grouping
from memscope.attribution.ledger import PENDING_FREES, ROW_MEANINGS
from memscope.attribution.sites import natural_order
from memscope.device.device import Moment
from memscope.errors import MemscopeError
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count, format_fraction, format_handle
from memscope.words.headlines import allocations_finding
from memscope.words.labels import row_label, short_place, split_site
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.grid import NUMBER, data_grid, grid_options
from memscope_dashboard.components.inspector import pin_data
from memscope_dashboard.components.text import finding, view_heading
from memscope_dashboard.live_allocations import Group, LiveTable, live_table
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

TOTAL = "total"
"""Id of the row that sums up the others."""
GROUPINGS: dict[str, Grouping | None] = {
    "allocation": None,
    "site": Grouping.SITE,
    "module": Grouping.MODULE,
    "category": Grouping.CATEGORY,
    "rule": Grouping.RULE,
}
"""What the table can be grouped by, as the switch names it."""
_TEXT_LIMIT = 160
_MIXED = "mixed"
_BLOCK_ROWS = 100
_GRID_OPTIONS: dict[str, Any] = {
    "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
    "cacheBlockSize": _BLOCK_ROWS,
    "maxConcurrentDatasourceRequests": 1,
    "maxBlocksInCache": 20,
    "pinnedBottomRowData": [],
}
"""Rows that the table asks for at once."""
_MAX_ROWS_AT_ONCE = 1_000


def _shown(field: str) -> dict[str, Any]:
    """Show another field of a row than the one that is sorted; rows on their way have none."""
    return {"valueFormatter": {"function": f"params.data ? params.data.{field} : ''"}}


def _text_filter() -> dict[str, Any]:
    options = {"filterOptions": ["contains", "notContains"], "maxNumConditions": 1, "debounceMs": 250}
    return {"filter": "agTextColumnFilter", "filterParams": options}


def _number_filter(unit: str) -> dict[str, Any]:
    kinds = ["greaterThanOrEqual", "lessThanOrEqual", "inRange"]
    options = {"filterOptions": kinds, "maxNumConditions": 1, "filterPlaceholder": unit, "debounceMs": 250}
    return {"filter": "agNumberColumnFilter", "filterParams": options}


def _category_column(width: int) -> dict[str, Any]:
    rules = {f"cat-cell row-{category.label}": f"params.value === '{category.label}'" for category in Category}
    rules[f"cat-cell row-{PENDING_FREES}"] = f"params.value === '{PENDING_FREES}'"
    return {
        "field": "category",
        "headerName": "category",
        "width": width,
        "cellClassRules": rules,
        **_shown("label"),
    }


def columns(grouping: Grouping | None, *, has_streams: bool = False) -> list[dict[str, Any]]:
    """The columns of the table; streams only where there is more than the default one."""
    if grouping is not None:
        return _group_columns(grouping)
    size = {"field": "block_bytes", "headerName": "block", "width": 98, "tooltipField": "exact"}
    stream = {"field": "stream", "headerName": "stream", "width": 96, "cellClass": "num", **_shown("stream_name")}
    return [
        {**size, **_shown("size"), **_number_filter("MiB"), **NUMBER},
        _category_column(140),
        {"field": "owner", "headerName": "owner", "flex": 4, "minWidth": 112, "tooltipField": "owner"} | _text_filter(),
        {"field": "site", "headerName": "allocated by", "flex": 4, "minWidth": 112, "tooltipField": "site_whole"}
        | _text_filter(),
        {"field": "rule", "headerName": "rule", "flex": 3, "minWidth": 90, "tooltipField": "rule_reason"}
        | _text_filter(),
        {"field": "alloc_event", "headerName": "since event", "width": 100, **_shown("since")} | NUMBER,
        *([stream] if has_streams else []),
    ]


def _group_columns(grouping: Grouping) -> list[dict[str, Any]]:
    names = {Grouping.SITE: "line of code", Grouping.MODULE: "module", Grouping.RULE: "decided by"}
    name = {
        "field": "name",
        "headerName": names.get(grouping),
        "flex": 5,
        "minWidth": 124,
        "tooltipField": "name_whole",
        **_shown("name_short"),
    }
    category = _category_column(146) | ({} if grouping is Grouping.CATEGORY else {"sortable": False})
    numbers = [
        {"field": "block_bytes", "headerName": "block", "width": 100, "tooltipField": "exact", **_shown("size")},
        {"field": "share", "headerName": "of allocated", "width": 108, "sortable": False},
        {"field": "requested_bytes", "headerName": "requested", "width": 106, **_shown("requested")},
        {"field": "n_allocations", "headerName": "allocations", "width": 112, **_shown("count")},
    ]
    if grouping is Grouping.CATEGORY:
        category |= {"flex": 1}
        return [category, *[number | NUMBER for number in numbers]]
    return [name, category, *[number | NUMBER for number in numbers]]


def allocation_records(table: LiveTable, positions: Sequence[int], reasons: dict[str, str]) -> list[dict[str, Any]]:
    """Some allocations as rows of the table, long texts cut in their middle.

    Parameters
    ----------
    reasons
        Why each rule means its category.
    """
    return [_allocation_record(table, i, reasons) for i in positions]


def _allocation_record(table: LiveTable, i: int, reasons: dict[str, str]) -> dict[str, Any]:
    category, event, stream = Category(int(table.category[i])).label, int(table.alloc_event[i]), int(table.stream[i])
    block, requested = int(table.block_bytes[i]), int(table.requested_bytes[i])
    rule = table.rule.at(i)
    return {
        "row": str(int(table.rows[i])),
        "block_bytes": block,
        "size": format_bytes(block),
        "exact": _exact(block, requested),
        "category": category,
        "label": row_label(category) + (" (pending)" if table.is_pending[i] else ""),
        "owner": _shortened(table.owner.at(i)) or "—",
        "site": _short_site(table.site.at(i)) or "—",
        "site_whole": table.site.at(i) or None,
        "rule": rule,
        "rule_reason": reasons.get(rule, rule),
        "alloc_event": event,
        "since": "the start" if event < 0 else format_count(event),
        "stream": stream,
        "stream_name": "—" if stream == NONE_ID else "default" if stream == 0 else format_handle(stream),
    }


def group_records(groups: Sequence[Group], total_bytes: int) -> list[dict[str, Any]]:
    """Some groups as rows of the table, with their share of a total."""
    return [_group_record(group, total_bytes) for group in groups]


def _group_record(group: Group, total_bytes: int) -> dict[str, Any]:
    is_pending = group.name == PENDING_FREES
    category = PENDING_FREES if is_pending else None if group.category is None else group.category.label
    share = format_fraction(group.block_bytes / total_bytes) if total_bytes and not is_pending else ""
    return {
        "row": str(group.largest_row),
        "name": group.name,
        "name_short": row_label(PENDING_FREES) if is_pending else _short_site(group.name),
        "name_whole": ROW_MEANINGS[PENDING_FREES] if is_pending else group.name,
        "category": category,
        "label": row_label(category) if category else _MIXED,
        "block_bytes": group.block_bytes,
        "size": format_bytes(group.block_bytes),
        "exact": _exact(group.block_bytes, group.requested_bytes),
        "share": share,
        "requested_bytes": group.requested_bytes,
        "requested": format_bytes(group.requested_bytes),
        "n_allocations": group.n_allocations,
        "count": format_count(group.n_allocations),
    }


def total_record(grouping: Grouping | None, label: str, n_bytes: int, requested_bytes: int, n: int) -> dict[str, Any]:
    """The row below the others: what they sum to."""
    record = {
        "row": TOTAL,
        "block_bytes": n_bytes,
        "size": format_bytes(n_bytes),
        "exact": _exact(n_bytes, requested_bytes),
        "category": "",
        "label": label,
    }
    if grouping is None:
        texts = {"owner": f"{format_count(n)} allocation{'' if n == 1 else 's'}", "site": "", "rule": ""}
        return record | texts | {"since": "", "stream_name": "", "rule_reason": None, "site_whole": None}
    record |= {"requested": format_bytes(requested_bytes), "count": format_count(n), "share": ""}
    return record | ({} if grouping is Grouping.CATEGORY else {"label": "", "name": label, "name_short": label})


def _exact(block_bytes: int, requested_bytes: int) -> str:
    return f"{format_count(block_bytes)} bytes, requested {format_count(requested_bytes)}"


def _short_site(site: str) -> str:
    """``optimizer.py:64 (step)`` of a whole path; the whole one is in the tooltip."""
    if site == NOT_RECORDED:
        return site
    function, place = split_site(site)
    return _shortened(f"{short_place(place).rsplit('/', 1)[-1]} ({function})" if place else function)


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else f"{text[: _TEXT_LIMIT // 3]}…{text[-2 * _TEXT_LIMIT // 3 :]}"


@dataclass(frozen=True, slots=True)
class AllocationsAsked:
    """What the controls say: the same for the title and for the rows."""

    search: str | None = None
    categories: tuple[str, ...] = ()
    grouping: Grouping | None = None
    narrow: dict[str, Any] | None = None
    filters: dict[str, Any] | None = None

    @classmethod
    def from_controls(cls, values: Sequence[Any]) -> AllocationsAsked:
        """Read the values of the search, the categories, the switch, the narrowing and the columns' filters."""
        search, categories, by, narrow, filters = values
        return cls(search, tuple(categories or ()), GROUPINGS.get(by or "allocation"), narrow, filters)

    @property
    def key(self) -> str:
        """The same as text, to tell what was asked before."""
        parts = [self.search, self.categories, self.grouping and self.grouping.value, self.narrow, self.filters]
        return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Found:
    """The allocations that fit: positions in the table, what they sum to, and the path they are narrowed to."""

    table: LiveTable
    positions: Int64Array
    narrowing: Narrowing | None
    in_use_bytes: int
    requested_bytes: int
    n_in_use: int
    pending_bytes: int


def layout() -> Component:
    """Components and ids only."""
    categories = [{"value": category.label, "label": row_label(category.label)} for category in Category]
    controls = [
        dmc.SegmentedControl(
            id="allocations-by", data=[{"value": n, "label": n} for n in GROUPINGS], value="allocation", size="xs"
        ),
        dmc.TextInput(
            id="allocations-search",
            placeholder="owner, code, address…",
            size="xs",
            w=180,
            debounce=250,
            **{"aria-label": "Search"},
        ),
        dmc.MultiSelect(
            id="allocations-categories",
            data=categories,
            placeholder="all categories",
            size="xs",
            w=150,
            clearable=True,
            **{"aria-label": "Categories"},
        ),
    ]
    grid = data_grid("allocations-grid", columns(None), "", row_model="infinite", **_GRID_OPTIONS)
    nothing = html.Div("Nothing that is live at this moment matches", id="allocations-nothing", className="hidden")
    return view_frame(
        "allocations",
        view_heading("allocations-title", "allocations-note"),
        html.Div([html.Div(id="allocations-narrow", className="narrowed"), *controls], className="controls-row"),
        html.Div([grid, nothing], className="panel fill-panel grid-panel"),
        dcc.Store(id="allocations-asked"),
    )


def compute(moment: Moment, table: LiveTable, asked: AllocationsAsked, query: Query) -> Found:
    """The allocations that fit what is asked."""
    narrowing = Narrowing.from_data(asked.narrow, query, moment.device.trace)
    among = None if narrowing is None else narrowing.among(moment, table.rows)
    positions = table.matching(asked.search, asked.categories, asked.filters, among)
    pending = table.is_pending[positions]
    in_use = positions[~pending]
    return Found(
        table,
        positions,
        narrowing,
        int(table.block_bytes[in_use].sum()),
        int(table.requested_bytes[in_use].sum()),
        len(in_use),
        int(table.block_bytes[positions[pending]].sum()),
    )


def _table(store: TraceStore, query: Query, moment: Moment) -> LiveTable:
    return store.recent(("live", query), lambda: live_table(moment))


def find(store: TraceStore, query: Query, asked: AllocationsAsked) -> tuple[Moment, Found]:
    """The moment, and the allocations that fit; the last few answers are kept."""
    moment = query.moment(store)

    def search() -> Found:
        return compute(moment, _table(store, query, moment), asked, query)

    return moment, store.recent(("found", query, asked.key), search)


def rows_for(
    store: TraceStore, data: dict[str, Any], asked: AllocationsAsked, request: dict[str, Any]
) -> dict[str, Any]:
    """The rows that the table asks for, and how many there are in all."""
    query = Query.from_data(data)
    moment, found = find(store, query, asked)
    sort = request.get("sortModel") or []
    begin = max(int(request.get("startRow") or 0), 0)
    end = min(int(request.get("endRow") or _BLOCK_ROWS), begin + _MAX_ROWS_AT_ONCE)
    key = ("order", query, asked.key, json.dumps(sort))
    if asked.grouping is not None:
        grouping = asked.grouping
        groups = store.recent(key, lambda: _sorted_groups(found.table.groups(found.positions, grouping), sort))
        return {"rowData": group_records(groups[begin:end], found.in_use_bytes), "rowCount": len(groups)}
    order = store.recent(key, lambda: found.table.sorted(found.positions, sort))
    reasons = {rule.name: rule.reason for rule in moment.device.attribution.rules}
    records = allocation_records(found.table, order[begin:end].tolist(), reasons)
    return {"rowData": records, "rowCount": len(order)}


def _sorted_groups(groups: list[Group], sort: Sequence[dict[str, Any]]) -> list[Group]:
    for rule in reversed(list(sort)):
        name, falls = str(rule["colId"]), rule.get("sort") == "desc"
        if name == "name":
            groups = sorted(groups, key=lambda group: natural_order(group.name), reverse=falls)
        elif name == "category":
            groups = sorted(groups, key=lambda group: -1 if group.category is None else group.category, reverse=falls)
        elif name in ("block_bytes", "requested_bytes", "n_allocations"):
            groups = sorted(groups, key=lambda group: int(getattr(group, name)), reverse=falls)
    return groups


def note_words(moment: Moment, found: Found, grouping: Grouping | None) -> str:
    """How many fit, what they hold, and what a click does."""
    n, n_all = len(found.positions), len(moment.rows)
    shown = f"All {format_count(n)}" if n == n_all else f"{format_count(n)} of {format_count(n_all)}"
    if not n:
        return f"None of {format_count(n_all)} shown: change the search, the filters or the categories."
    text = f"{shown} shown: {format_bytes(found.in_use_bytes)} allocated"
    if found.pending_bytes:
        text += f", and {format_bytes(found.pending_bytes)} in pending frees"
    what = "it" if grouping is None else "its largest allocation"
    return f"{text}. Click a row to pin {what}."


def narrowed(found: Found, moment: Moment) -> list[Any]:
    """What the table is narrowed to, with a button that ends it."""
    if found.narrowing is None:
        return []
    label = found.narrowing.label(moment.device.trace)
    inside = "in" if found.narrowing.kind.value == "modules" else "below"
    end = html.Button(
        "✕", id={"type": "widen", "at": "allocations"}, className="unpin", title="Show all", type="button"
    )
    return [html.Span(f"only {inside}", className="quiet"), html.Span(label, className="narrow-name", title=label), end]


def update(store: TraceStore, data: dict[str, Any] | None, *controls: Any) -> list[Any]:
    """Title, note, narrowing, columns, the row of totals and the empty state for a moment and the controls."""
    if data is None:
        raise PreventUpdate
    asked = AllocationsAsked.from_controls(controls)
    query = Query.from_data(data)
    moment, found = find(store, query, asked)
    is_all = found.in_use_bytes == moment.allocated_bytes
    label = "allocated" if is_all else "shown"
    total = total_record(asked.grouping, label, found.in_use_bytes, found.requested_bytes, found.n_in_use)
    bottom = [total] if len(found.positions) else []
    options = grid_options("", **{**_GRID_OPTIONS, "pinnedBottomRowData": bottom})
    return [
        finding(allocations_finding(moment)),
        note_words(moment, found, asked.grouping),
        narrowed(found, moment),
        columns(asked.grouping, has_streams=bool((found.table.stream != 0).any())),
        options,
        "hidden" if len(found.positions) else "grid-nothing",
    ]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(data: dict[str, Any] | None, *controls: Any) -> list[Any]:
        return update(store, data, *controls)

    def rows(request: dict[str, Any] | None, data: dict[str, Any] | None, *controls: Any) -> Any:
        if request is None or data is None or data.get("event") is None:
            raise PreventUpdate
        try:
            asked = AllocationsAsked.from_controls((*controls, request.get("filterModel")))
            return rows_for(store, data, asked, request)
        except MemscopeError:
            return {"rowData": [], "rowCount": 0}

    def pin(clicked: dict[str, Any] | None, data: dict[str, Any]) -> Any:
        row = (clicked or {}).get("rowId")
        return pin_data(data, int(row)) if row and row.isdigit() and row != TOTAL else no_update

    def widen(_clicks: list[int | None]) -> Any:
        return None if ctx.triggered[0]["value"] else no_update

    controls = ("allocations-search", "allocations-categories", "allocations-by")
    chosen = [*[(name, "value") for name in controls], ("narrow", "data")]
    outputs = [Output(f"allocations-{name}", "children") for name in ("title", "note", "narrow")]
    outputs += [Output("allocations-grid", "columnDefs"), Output("allocations-grid", "dashGridOptions")]
    inputs = [Input("moment", "data"), *[Input(*part) for part in chosen], Input("allocations-grid", "filterModel")]
    register_update(app, "allocations", answer, [*outputs, Output("allocations-nothing", "className")], inputs)
    app.callback(
        Output("allocations-grid", "getRowsResponse"),
        Input("allocations-grid", "getRowsRequest"),
        State("moment", "data"),
        *[State(*part) for part in chosen],
        prevent_initial_call=True,
    )(rows)
    app.clientside_callback(
        ClientsideFunction("memscope", "askAgain"),
        Output("allocations-asked", "data"),
        Input("moment", "data"),
        *[Input(*part) for part in chosen],
    )
    app.callback(
        Output("pin", "data", allow_duplicate=True),
        Input("allocations-grid", "cellClicked"),
        State("moment", "data"),
        prevent_initial_call=True,
    )(pin)
    app.callback(
        Output("narrow", "data", allow_duplicate=True),
        Input({"type": "widen", "at": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )(widen)


VIEW = View("allocations", "Allocations", layout, register)
