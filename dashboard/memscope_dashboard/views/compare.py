"""Compare: what a second run, or a later step, holds beyond the first, whose it is, and which calls it comes from."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.names import shown
from memscope.words.compare import headline
from memscope.words.labels import sentence
from memscope_dashboard.boundary import problem_panel, register_update, view_frame, what_triggered
from memscope_dashboard.compare_board import (
    PEAK,
    Compared,
    Pair,
    board_of,
    event_text,
    moment_choices,
    step_text,
    step_words,
)
from memscope_dashboard.components.compare import facts_table, moment_link, moments_note, tiles
from memscope_dashboard.components.text import finding, section, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View
from memscope_dashboard.views.compare_parts import (
    BY,
    CONTROLS,
    SHOW,
    bridge_panel,
    flame_panel,
    register_pictures,
    register_rows,
    rows_panel,
)

_TICK_MS = 400
_PATIENCE_S = 0.4
_MAX_BOXES = 700
_HIDDEN = {"display": "none"}
_ALONE = (
    "Open the recording from before a change and the one from after it together, and what differs stands here:",
    "memscope dash before.memscope after.memscope",
    "It is what memscope diff before.memscope after.memscope says. Two moments of one run can be compared, too: choose "
    "a step on each side above, or an event on the strip below and then press “this moment” of a side.",
)


def _side(label: str, name: str) -> Component:
    """The controls of one side: a trace, and a moment of it."""
    select: dict[str, Any] = {"size": "xs", "allowDeselect": False, "withCheckIcon": False, "searchable": True}
    return html.Div(
        [
            html.B(label, className="compare-letter"),
            dmc.Select(id=f"compare-{name}", data=[], className="field", **select, **{"aria-label": f"Trace {label}"}),
            dmc.Select(
                id=f"compare-at-{name}",
                data=[{"value": PEAK, "label": "peak"}],
                limit=200,
                className="field",
                **select,
                **{"aria-label": f"Moment of {label}"},
            ),
            html.Button(
                "this moment",
                id=f"compare-here-{name}",
                className="go",
                type="button",
                title=f"Take the trace and the moment that the strip below shows as {label}",
            ),
        ],
        className="compare-controls-side",
    )


def layout() -> Component:
    """Components and ids only."""
    swap = html.Button("⇄", id="compare-swap", className="go", type="button", title="Swap A and B")
    swap_named = html.Span(swap, **{"aria-label": "Swap A and B"})
    return view_frame(
        "compare",
        view_heading("compare-title", "compare-note"),
        html.Div([_side("A", "a"), swap_named, _side("B", "b")], className="panel compare-controls"),
        html.Div(id="compare-alone"),
        html.Button(id="compare-steps", className="go compare-steps", type="button", style=_HIDDEN),
        html.Div(
            [html.Div(id="compare-tiles", className="tiles"), bridge_panel(), rows_panel(), flame_panel(), _facts()],
            id="compare-panels",
            className="panel-stack hidden",
        ),
        dcc.Interval(id="compare-tick", interval=_TICK_MS, disabled=True),
        *[dcc.Store(id=f"compare-{name}") for name in ("pair", "focus", "row", "heard")],
    )


def _facts() -> Component:
    return html.Section(id="compare-facts", className="panel", style=_HIDDEN)


def address_fields(search: str | None) -> dict[str, str]:
    """What an address says of the view."""
    return {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()}


def chosen_pair(
    store: TraceStore, query: Query, trigger: str | None, values: dict[str, Any], moment: dict[str, Any] | None
) -> Pair:
    """The two moments that the controls name after one of them was used.

    Raises
    ------
    UsageError
        If a trace is not among those that are open.
    """
    pair = Pair.of(values, Pair.usual(store, query))
    if trigger == "compare-swap":
        pair = pair.swapped()
    elif trigger in ("compare-here-a", "compare-here-b") and moment is not None and moment["event"] is not None:
        name, text = trigger[-1], event_text(int(moment["event"]))
        pair = Pair.from_data(pair.data() | {name: str(moment["trace"]), f"at_{name}": text})
    elif trigger in ("compare-a", "compare-b"):  # another trace has other steps
        pair = Pair.from_data(pair.data() | {f"at_{trigger[-1]}": PEAK})
    elif trigger == "compare-steps":
        steps = query.opinions(store).device.steps
        if steps is not None:
            ends = step_text(steps.labels[0]), step_text(steps.labels[-1])
            pair = Pair(query.trace_id, ends[0], query.trace_id, ends[1], query.device)
    for trace_id in (query.trace_id, pair.a, pair.b):
        if trace_id not in store.trace_ids:
            store.open(trace_id)  # says that there is no such trace
    return pair


def alone(store: TraceStore) -> list[Component]:
    """What stands there while there is nothing to compare: how to open a second trace, or choose a second moment."""
    title = "One trace is open" if len(store.trace_ids) == 1 else "Both sides are the same moment"
    parts = [html.P(_ALONE[0]), html.Pre(_ALONE[1], className="command"), html.P(_ALONE[2])]
    return [section(title, *parts)]


def steps_button(store: TraceStore, query: Query) -> dict[str, Any]:
    """The button that compares the first and the last step, where there are two."""
    steps = query.opinions(store).device.steps
    if steps is None or len(steps) < 2:
        return {"compare-steps.style": _HIDDEN}
    words = f"Compare {step_words(steps.labels[0])} and {step_words(steps.labels[-1])} of this run"
    return {"compare-steps.children": words, "compare-steps.style": {}}


OUTPUTS = (
    "compare-title.children",
    "compare-note.children",
    "compare-a.data",
    "compare-a.value",
    "compare-at-a.data",
    "compare-at-a.value",
    "compare-b.data",
    "compare-b.value",
    "compare-at-b.data",
    "compare-at-b.value",
    "compare-alone.children",
    "compare-steps.children",
    "compare-steps.style",
    "compare-panels.className",
    "compare-tiles.children",
    "compare-facts.children",
    "compare-facts.style",
    "compare-pair.data",
    "compare-tick.disabled",
    *(f"compare-{name}.value" for name in CONTROLS),
    "compare-own.checked",
)
"""What an update fills, in order."""


def update(
    store: TraceStore,
    trigger: str | None,
    subject: dict[str, Any] | None,
    values: dict[str, Any],
    search: str | None = None,
    moment: dict[str, Any] | None = None,
    seen: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Begin to compare what is asked for, if that is not known, and fill the head of the view with what is known.

    Parameters
    ----------
    trigger
        Id of what was used.
    values
        ``a``, ``at_a``, ``b`` and ``at_b`` as the controls have them; of a page that has just been opened none, and the
        address says it.
    seen
        The pair that the page shows already.
    """
    if subject is None:
        raise PreventUpdate
    query = Query.from_data(subject)
    if query.trace_id not in store.trace_ids:
        query.analysis(store)  # says that there is no such trace
    is_first, fields = not values.get("a"), address_fields(search)
    pair = chosen_pair(store, query, trigger, fields if is_first else values, moment)
    is_of_address = is_first or (seen is None and pair == Pair.of(fields, Pair.usual(store, query)))
    choices = [{"value": trace_id, "label": shown(trace_id)} for trace_id in store.trace_ids]
    found: dict[str, Any] = {"compare-a.value": pair.a, "compare-b.value": pair.b}
    found |= {f"compare-{side}.data": choices for side in "ab"} | (_controls(fields) if is_first else {})
    if pair.is_one_moment:
        title = (
            "One trace is open: there is nothing to set it against" if len(choices) == 1 else "Nothing to compare yet"
        )
        return found | _moments(None, pair) | _nothing(title, alone(store)) | steps_button(store, query)
    board = board_of(store)
    progress = board.ask(pair, again=trigger != "compare-tick")
    if progress.is_active:
        progress = board.wait(pair, _PATIENCE_S)
    compared = board.compared(pair)
    found |= _moments(compared, pair)
    if compared is not None:
        found |= _head(compared, pair, fields if is_of_address else {})
        if seen is not None and Pair.from_data(seen) == pair:
            del found["compare-pair.data"]  # its pictures are drawn
        return found
    if progress.is_active:
        title = f"Comparing {shown(pair.a)} and {shown(pair.b)}"
        return found | _nothing(title, None) | {"compare-tick.disabled": False}
    why = progress.problem or "the comparison was ended: choose the moments again"
    return found | _nothing("These cannot be compared", [problem_panel("These cannot be compared", why)])


def _controls(fields: dict[str, str]) -> dict[str, Any]:
    """The values of the switches that the address of a page that is opened names."""
    allowed = {
        "pic": [one["value"] for one in BY],
        "measure": ["allocated", "reserved"],
        "by": [one["value"] for one in BY[1:]],
        "show": SHOW,
        "kind": ["calls", "modules"],
    }
    chosen = {
        f"compare-{name}.value": fields[name]
        for name, choices in allowed.items()
        if fields.get(name) in choices and fields[name] != CONTROLS[name]
    }
    return chosen | ({"compare-own.checked": False} if fields.get("own") == "no" else {})


def _nothing(title: str, words: list[Component] | None) -> dict[str, Any]:
    return {
        "compare-title.children": title,
        "compare-note.children": "",
        "compare-alone.children": words,
        "compare-steps.style": _HIDDEN,
        "compare-panels.className": "panel-stack hidden",
        "compare-pair.data": None,
        "compare-tick.disabled": True,
    }


def _moments(compared: Compared | None, pair: Pair) -> dict[str, Any]:
    """The lists of moments, which have the steps once the traces are read."""
    found: dict[str, Any] = {}
    for name, at, moment in (
        ("a", pair.at_a, None if compared is None else compared.a),
        ("b", pair.at_b, None if compared is None else compared.b),
    ):
        usual = [{"value": PEAK, "label": "peak"}]
        usual += [{"value": at, "label": at.replace(":", " ")}] if at != PEAK else []
        found[f"compare-at-{name}.data"] = usual if moment is None else moment_choices(moment.device, at)
        found[f"compare-at-{name}.value"] = at
    return found


def _head(compared: Compared, pair: Pair, fields: dict[str, str]) -> dict[str, Any]:
    difference = compared.difference()
    links = [
        html.Span([" ", moment_link(trace_id, one, "see it")])
        for trace_id, one in ((pair.a, compared.a), (pair.b, compared.b))
    ]
    note = moments_note(difference)
    for line, link in zip(note[:2], links, strict=True):
        line.children = [*line.children, link]
    facts = facts_table(difference)
    numbers = {name: fields[name] for name in ("focus", "row") if fields.get(name, "").isdecimal()}
    return {
        "compare-title.children": finding(sentence(headline(difference))),
        "compare-note.children": note,
        "compare-alone.children": None,
        "compare-steps.style": _HIDDEN,
        "compare-panels.className": "panel-stack",
        "compare-tiles.children": tiles(difference),
        "compare-facts.children": facts,
        "compare-facts.style": {} if facts else _HIDDEN,
        "compare-pair.data": pair.data() | {name: int(text) for name, text in numbers.items()},
        "compare-tick.disabled": True,
    }


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        values = dict(zip(("a", "at_a", "b", "at_b"), args[1:5], strict=True))
        buttons = ("compare-swap", "compare-here-a", "compare-here-b", "compare-steps")
        trigger = what_triggered(ctx.triggered, buttons)
        found = update(store, trigger, args[0], values, *args[-3:])
        return [found.get(name, no_update) for name in OUTPUTS]

    inputs: list[Input | State] = [Input("subject", "data")]
    inputs += [Input(f"compare-{name}", "value") for name in ("a", "at-a", "b", "at-b")]
    inputs += [Input(f"compare-{name}", "n_clicks") for name in ("swap", "here-a", "here-b", "steps")]
    inputs += [Input("compare-tick", "n_intervals")]
    inputs += [State("url", "search"), State("moment", "data"), State("compare-pair", "data")]
    register_update(app, "compare", answer, [Output(*name.rsplit(".", 1)) for name in OUTPUTS], inputs)
    register_pictures(app, store)
    register_rows(app, store)
    app.clientside_callback(
        ClientsideFunction("memscope", "keepCompare"),
        Output("view-fields", "data", allow_duplicate=True),
        Input("compare-pair", "data"),
        *[Input(f"compare-{name}", "value") for name in CONTROLS],
        Input("compare-own", "checked"),
        *[Input(f"compare-{name}", "data") for name in ("focus", "row")],
        State("view-fields", "data"),
        prevent_initial_call=True,
    )


VIEW = View("compare", "Compare", layout, register)
