"""The inspector: everything about the pinned allocation, or the call or module that the table is narrowed to."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Device, Moment
from memscope.errors import MemscopeError
from memscope.figures.flames.flame import FlameKind, frame_label
from memscope.trace.categories import Category, CategorySource
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.trace import Frame, Trace
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.labels import pool_label, row_label, stream_label
from memscope_dashboard.components.text import facts, size, swatch
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

_N_LARGEST = 6
_N_CALLERS = 40
_N_FRAMES = 60
_SOURCE_WORDS = {
    CategorySource.IDENTITY: "its owner, seen at capture",
    CategorySource.USER: "your own tag",
    CategorySource.RULE: "a rule on its stack",
    CategorySource.LIFETIME: "when it lived",
    CategorySource.INFERRED: "inferred from sizes and lives",
    CategorySource.NONE: "nothing: it is unknown",
}


def layout() -> Component:
    """The inspector's place."""
    return html.Div(id="inspector", className="inspector")


def empty_inspector() -> Component:
    """What stands there while nothing is pinned."""
    return html.Div(
        [
            html.Div(className="icon icon-pin big"),
            html.P("Nothing is pinned"),
            html.P(
                "Click a shape of the canvas, a block in the address map, an allocation, or a box of the flame graph.",
                className="quiet",
            ),
        ],
        className="inspector-empty",
    )


def inspect(moment: Moment, row: int) -> list[Component]:
    """Everything about one allocation, as seen from a moment."""
    device, table, trace = moment.device, moment.device.allocations, moment.device.trace
    if not 0 <= row < len(table):
        return [empty_inspector()]
    attribution = device.attribution
    category, owner = device.category_of(row).label, device.owner_of(row)
    rule, inference = attribution.rule_of(row), attribution.inference_of(row)
    block, requested = int(table.block_bytes[row]), int(table.requested_bytes[row])
    pool_id, stream_id = int(table.pool_id[row]), int(table.stream_id[row])
    pools, handles = trace.pools, trace.stream_handles
    pool = None if pool_id < 0 else (int(pools[pool_id, 0]), int(pools[pool_id, 1]))
    rounding = block - requested
    exactness = "" if table.is_exact[row] else "at least "
    return [
        html.Div(
            [
                html.Div([swatch(category), row_label(category)], className="inspector-category"),
                html.Button("✕", id="unpin", className="unpin", title="Unpin", type="button"),
            ],
            className="inspector-head",
        ),
        html.Div([exactness, size(block)], className="inspector-size"),
        html.Div(owner, className="inspector-owner") if owner else None,
        facts(
            [
                ("tensor", device.trace.shown_string(int(attribution.tensor_id[row]))),
                ("requested", size(requested)),
                ("rounding", size(rounding) if rounding else None),
                ("category from", _SOURCE_WORDS[CategorySource(int(attribution.source[row]))]),
                ("confidence", None if inference is None else f"{100 * inference.confidence:.0f} %"),
                ("evidence", None if inference is None else inference.reason),
                ("rule", None if rule is None else html.Span(rule.name, title=rule.reason)),
                ("address", html.Code(trace.address_text(int(table.address[row])))),
                ("stream", stream_label(None if stream_id < 0 else int(handles[stream_id]))),
                ("pool", pool_label(pool)),
            ]
        ),
        *_lifetime(moment, row),
        *_neighbours(moment, row),
        *_stack(device, int(table.stack_id[row])),
    ]


def _lifetime(moment: Moment, row: int) -> list[Component]:
    table, lifetimes = moment.lifetimes.allocations, moment.lifetimes
    born, died = int(table.alloc_event[row]), int(table.free_event[row])
    n, first = max(lifetimes.n_events, 1), lifetimes.first_event
    left = 0.0 if born == NONE_ID else (born - first + 1) / n
    right = 1.0 if died == NONE_ID else (died - first + 1) / n
    now = 0.0 if moment.event == NONE_ID else (moment.event - first + 1) / n
    is_live, is_pending = bool(table.active_at(moment.event)[row]), bool(table.pending_at(moment.event)[row])
    state = (
        "pending free at this moment" if is_pending else "live at this moment" if is_live else "not live at this moment"
    )
    bar = html.Div(
        [
            html.Span(className="life", style={"left": f"{100 * left:.3f}%", "width": f"{100 * (right - left):.3f}%"}),
            html.Span(className="life-now", style={"left": f"{100 * now:.3f}%"}),
        ],
        className="life-bar",
    )
    return [
        html.H3(["Lifetime", html.Span(state, className="quiet")]),
        bar,
        facts(
            [
                ("allocated", _event_link(moment, born, "before the first event")),
                ("freed", _event_link(moment, died, "never, in this recording")),
                ("lived", _duration(moment.device.trace, born, died)),
            ]
        ),
    ]


def _event_link(moment: Moment, event: int, otherwise: str) -> Any:
    if event == NONE_ID:
        return otherwise
    where = describe_moment(moment.device.trace, event)
    link = html.Button(
        f"event {format_count(event)}", id={"type": "go-event", "event": event}, className="link num", type="button"
    )
    return html.Span([link, html.Span(where, className="quiet block") if where else None])


def _duration(trace: Trace, born: int, died: int) -> str | None:
    if born == NONE_ID or died == NONE_ID:
        return None
    times = trace.time_ns
    text = f"{format_count(died - born)} events"
    if times[born] != NONE_ID and times[died] >= times[born]:
        microseconds = (int(times[died]) - int(times[born])) / 1e3
        text += f", {microseconds / 1e3:,.1f} ms" if microseconds >= 1e3 else f", {microseconds:,.0f} µs"
    return text


def _neighbours(moment: Moment, row: int) -> list[Component]:
    """The blocks before and after it in its segment, at the moment."""
    state = moment.state
    found = np.flatnonzero(state.allocation_ids == row)
    if not len(found):
        return []
    position = int(found[0])
    blocks, segment = state.blocks, int(state.blocks.segment_id[position])
    near = [i for i in range(position - 2, position + 3) if 0 <= i < len(blocks) and blocks.segment_id[i] == segment]
    segment_bytes = format_bytes(int(state.segments.size_bytes[segment]))
    rows = [_neighbour(moment, i, is_self=i == position) for i in near]
    return [
        html.H3(["Neighbours", html.Span(f"in a segment of {segment_bytes}", className="quiet")]),
        html.Div(rows, className="neighbours"),
    ]


def _neighbour(moment: Moment, position: int, *, is_self: bool) -> Component:
    state = moment.state
    row, n_bytes = int(state.allocation_ids[position]), size(int(state.blocks.size_bytes[position]))
    if row == NONE_ID:
        return html.Div([swatch("free_pinned"), html.Span("free"), n_bytes], className="neighbour")
    if int(state.blocks.state[position]) == BlockState.ACTIVE_PENDING_FREE:
        name = "pending_frees"
    else:
        name = moment.device.category_of(row).label
    parts = [swatch(name), html.Span(row_label(name)), n_bytes]
    if is_self:
        return html.Div(parts, className="neighbour self")
    return html.Button(parts, id={"type": "pin-row", "row": row}, className="neighbour link", type="button")


def _file_words(frame: Frame) -> str:
    """File and line; of an installed package's file, what follows the folder of packages."""
    _, found, inside = frame.filename.replace("\\", "/").rpartition("site-packages/")
    return f"{inside if found else frame.filename}:{frame.line}"


def _stack(device: Device, stack_id: int) -> list[Component]:
    if stack_id == NONE_ID:
        return [html.H3("Stack"), html.P("No stack was recorded for this allocation.", className="quiet")]
    frames = [frame.as_shown() for frame in device.trace.stack(stack_id)]
    site = int(device.recording.sites.frame_of_stack[stack_id])
    ids = device.trace.stacks.frames_of(stack_id)
    lines = [
        html.Div(
            [
                html.Span(frame.name, className="frame-name"),
                html.Span(_file_words(frame), className="frame-file", title=f"{frame.filename}:{frame.line}"),
            ],
            className="frame own" if int(frame_id) == site else "frame",
        )
        for frame, frame_id in zip(frames[:_N_FRAMES], ids, strict=False)
    ]
    more = (
        [html.P(f"{len(frames) - _N_FRAMES:,} more frames in the copy", className="quiet")]
        if len(frames) > _N_FRAMES
        else []
    )
    copy = dmc.CopyButton(
        value="\n".join(map(str, frames)),
        children="copy",
        copiedChildren="copied",
        size="compact-xs",
        variant="default",
    )
    head = html.H3(["Stack", html.Span(f"{len(frames)} frames, innermost first", className="quiet"), copy])
    return [head, html.Div([*lines, *more], className="stack")]


def inspect_narrowing(moment: Moment, narrowing: Narrowing, query: Query) -> list[Any]:
    """What a call or a module holds at a moment: how much, of what, its callers, its largest allocations."""
    rows = narrowing.rows(moment)
    table = moment.lifetimes.allocations
    n_bytes, total = int(table.block_bytes[rows].sum()), moment.allocated_bytes
    what = "module" if narrowing.kind is FlameKind.MODULES else "call, with what it calls"
    share = f"{format_fraction(n_bytes / total)} of allocated" if total else ""
    end = {"type": "widen", "at": "inspector"}
    return [
        html.Div(
            [
                html.Div(what, className="inspector-category"),
                html.Button("✕", id=end, className="unpin", title="Show all", type="button"),
            ],
            className="inspector-head",
        ),
        html.Div(size(n_bytes), className="inspector-size"),
        html.Div(narrowing.label(moment.device.trace), className="inspector-owner"),
        facts(
            [
                ("share", share),
                ("requested", size(int(table.requested_bytes[rows].sum()))),
                ("allocations", format_count(len(rows))),
            ]
        ),
        dcc.Link("show them in the table", href=f"/allocations{query.search()}", className="link small"),
        *_categories(moment, rows, n_bytes),
        *_callers(moment, narrowing),
        *_largest(moment, rows),
    ]


def _categories(moment: Moment, rows: np.ndarray, total: int) -> list[Component]:
    if not len(rows):
        return [html.P("Nothing of it is allocated at this moment.", className="quiet")]
    sums = np.zeros(len(Category), np.int64)
    category = moment.device.attribution.category[rows]
    np.add.at(sums, category, moment.lifetimes.allocations.block_bytes[rows])
    lines = [
        html.Div(
            [
                swatch(kind.label),
                html.Span(row_label(kind.label)),
                html.Span(format_fraction(int(sums[kind]) / total), className="quiet share"),
                size(int(sums[kind])),
            ],
            className="neighbour",
        )
        for kind in sorted(Category, key=lambda kind: -int(sums[kind]))
        if sums[kind]
    ]
    return [html.H3("Holds"), html.Div(lines, className="neighbours")]


def _callers(moment: Moment, narrowing: Narrowing) -> list[Component]:
    if narrowing.kind is FlameKind.MODULES or narrowing.path == (NONE_ID,):
        return []
    trace = moment.device.trace
    lines = []
    for depth, frame_id in enumerate(reversed(narrowing.path[-_N_CALLERS:])):
        frame = trace.frame(int(frame_id)).as_shown()
        label = frame_label(trace, int(frame_id))
        name = [
            html.Span(frame.name, className="frame-name"),
            html.Span(label.rsplit(" (", 1)[-1].rstrip(")"), className="frame-file"),
        ]
        title = f"{frame.filename}:{frame.line}"
        lines.append(html.Div(name, className="frame own" if not depth else "frame", title=title))
    n = len(narrowing.path)
    words = f"{n} call{'s' if n > 1 else ''}, innermost first"
    return [html.H3(["Called by", html.Span(words, className="quiet")]), html.Div(lines, className="stack")]


def _largest(moment: Moment, rows: np.ndarray) -> list[Component]:
    if not len(rows):
        return []
    device = moment.device
    buttons = []
    for row in rows[:_N_LARGEST].tolist():
        category = device.category_of(row).label
        owner = device.owner_of(row) or row_label(category)
        n_bytes = size(int(device.allocations.block_bytes[row]))
        parts = [swatch(category), html.Span(owner, title=owner, className="cut"), n_bytes]
        pin = {"type": "pin-row", "row": row}
        buttons.append(html.Button(parts, id=pin, className="neighbour link", type="button"))
    n = len(rows)
    of = f"{min(n, _N_LARGEST)} of {format_count(n)}"
    return [html.H3(["Largest", html.Span(of, className="quiet")]), html.Div(buttons, className="neighbours")]


def inspect_choice(store: TraceStore, query: Query, pin: dict[str, Any] | None, narrow: dict[str, Any] | None) -> Any:
    """The pinned allocation; without one, the call or module that the allocations are narrowed to.

    Raises
    ------
    MemscopeError
        If the moment cannot be shown.
    """
    if pin is not None and pin["trace"] == query.trace_id and pin["device"] == query.device:
        return inspect(query.moment(store), int(pin["row"]))
    if narrow is None:
        return empty_inspector()
    moment = query.moment(store)
    narrowing = Narrowing.from_data(narrow, query, moment.device.trace)
    return empty_inspector() if narrowing is None else inspect_narrowing(moment, narrowing, query)


def register(app: Dash, store: TraceStore) -> None:
    """Wire the pin, and the links that move it or the moment."""

    def show(pin: dict[str, Any] | None, narrow: dict[str, Any] | None, data: dict[str, Any] | None) -> Any:
        if data is None:
            raise PreventUpdate
        query = Query.from_data(data)
        try:
            return inspect_choice(store, query, pin, narrow)
        except MemscopeError:
            return empty_inspector()

    def go(_clicks: list[int | None]) -> Any:
        return {"event": ctx.triggered_id["event"]} if ctx.triggered[0]["value"] else no_update

    inputs = [Input("pin", "data"), Input("narrow", "data"), Input("moment", "data")]
    app.callback(Output("inspector", "children"), *inputs)(show)
    # In the browser: asked of the server, two clicks' answers may overtake each other, and the first click would win.
    app.clientside_callback(
        ClientsideFunction("memscope", "pinRow"),
        Output("pin", "data", allow_duplicate=True),
        Input({"type": "pin-row", "row": ALL}, "n_clicks"),
        State("moment", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("memscope", "unpin"),
        Output("pin", "data", allow_duplicate=True),
        Input("unpin", "n_clicks", allow_optional=True),
        prevent_initial_call=True,
    )
    app.callback(
        Output("jump", "data", allow_duplicate=True),
        Input({"type": "go-event", "event": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )(go)


def pin_data(moment_data: dict[str, Any], row: int) -> dict[str, Any]:
    """What the browser keeps of a pinned allocation."""
    return {"trace": moment_data["trace"], "device": moment_data["device"], "row": int(row)}
