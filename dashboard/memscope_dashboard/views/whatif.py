"""What-if: what techniques would have made of this run, by themselves, together, and for a chosen card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.errors import MemscopeError, UsageError
from memscope.figures.theme import theme_named
from memscope.figures.whatif import PICTURE_PX, Measure, before_after_figure, before_after_words
from memscope.gpus import find_usable_gpu, gpu_names
from memscope.techniques.registry import refuse_clashes
from memscope.techniques.whatif import WhatIfs
from memscope.units import format_bytes, format_items
from memscope.words.labels import sentence
from memscope.words.techniques import as_it_is_words
from memscope_dashboard.boundary import problem_panel, register_update, view_frame, what_triggered
from memscope_dashboard.components.text import finding, picture, view_heading
from memscope_dashboard.components.whatif import (
    card_look,
    cards,
    others,
    plan_panel,
    proofs_words,
    recipe,
    results_table,
    saves_something,
    tiles,
)
from memscope_dashboard.jobs import Progress
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View
from memscope_dashboard.whatif_board import MAX_TOGETHER, Applied, WhatIfAsked, WhatIfBoard, WhatIfState, toggled

_TICK_MS = 400
_PATIENCE_S = 0.4
_HIDDEN = {"display": "none"}
_HOW = (
    "The recorded requests, changed as the technique changes the program and served by PyTorch's allocator without a "
    "limit of memory. Savings are of peak reserved memory."
)
_AXIS = (
    "Over the recording's events: a step of the changed run is as wide as the recorded one, and so is the whole where "
    "no steps are known; its events stand at even distances in it."
)
OUTPUTS = (
    "whatif-title.children",
    "whatif-note.children",
    "whatif-applied.value",
    "whatif-applied.error",
    "whatif-gpu.value",
    "whatif-measure.value",
    "whatif-progress.children",
    "whatif-meter.value",
    "whatif-meter.style",
    "whatif-cancel.style",
    "whatif-resume.style",
    "whatif-tick.disabled",
    "whatif-plan.children",
    "whatif-plan.style",
    "whatif-together.className",
    "whatif-tiles.children",
    "whatif-graph.figure",
    "whatif-picture.aria-label",
    "whatif-recipe.children",
    "whatif-cards.children",
    "whatif-others.children",
    "whatif-table.children",
    "whatif-proofs.children",
    "whatif-asked.data",
    "whatif-seen.data",
)
"""What an update fills, in order."""


def controls() -> Component:
    """What is applied, and for which card."""
    shared: dict[str, Any] = {"size": "xs"}
    fields = [
        dmc.TagsInput(
            id="whatif-applied",
            label="Applied together",
            placeholder="apply a card below, or type checkpoint:every=2 and Enter",
            splitChars=["\n"],
            maxTags=MAX_TOGETHER,
            clearable=True,
            className="field wide",
            **shared,
        ),
        dmc.Select(
            id="whatif-gpu",
            label="Cheapest plan for",
            data=gpu_names(),
            placeholder="a card",
            searchable=True,
            clearable=True,
            className="field",
            **shared,
        ),
    ]
    progress = html.Div(
        [
            dmc.Progress(id="whatif-meter", value=0, size="sm", style=_HIDDEN, className="replay-meter"),
            html.Span(id="whatif-progress", role="status"),
            html.Button("Cancel", id="whatif-cancel", className="go", type="button", style=_HIDDEN),
            html.Button("Try the rest", id="whatif-resume", className="go", type="button", style=_HIDDEN),
        ],
        className="progress-line",
    )
    return html.Div([html.Div(fields, className="fields"), progress], className="panel whatif-controls")


def together_panel() -> Component:
    """What the chosen techniques make of the run together."""
    measures = [{"value": "reserved", "label": "reserved"}, {"value": "allocated", "label": "allocated"}]
    switch = dmc.SegmentedControl(id="whatif-measure", data=measures, value="reserved", size="xs")
    head = html.Div([html.H2("Before and after"), html.Div(switch, className="controls")], className="panel-head")
    return html.Div(
        [
            html.Div(id="whatif-tiles", className="tiles"),
            html.Section(
                [
                    head,
                    _picture(),
                    html.P(_AXIS, className="quiet small"),
                    html.Div(id="whatif-recipe"),
                ],
                className="panel",
            ),
        ],
        id="whatif-together",
        className="panel-stack hidden",
    )


def _picture() -> Component:
    # Drawn before the page shows it, it would take no room without a height of its own.
    place = {"height": f"{PICTURE_PX}px"}
    return html.Div(picture("whatif-graph"), id="whatif-picture", role="img", style=place, **{"aria-label": ""})


def layout() -> Component:
    """Components and ids only."""
    table = html.Details([html.Summary("as a table"), html.Div(id="whatif-table", className="wide-table")])
    return view_frame(
        "whatif",
        view_heading("whatif-title", "whatif-note"),
        controls(),
        html.Section(id="whatif-plan", className="panel", style=_HIDDEN, **{"aria-live": "polite"}),
        together_panel(),
        html.Section(
            [
                html.H2("Each by itself"),
                html.Div(id="whatif-cards", className="technique-cards"),
                html.Div(id="whatif-others"),
                table,
                html.P(_HOW, className="quiet small whatif-how"),
                html.P(id="whatif-proofs", className="quiet small"),
            ],
            className="panel",
        ),
        dcc.Interval(id="whatif-tick", interval=_TICK_MS, disabled=True),
        dcc.Store(id="whatif-asked"),
        dcc.Store(id="whatif-seen"),
    )


def board_of(store: TraceStore, query: Query) -> WhatIfBoard:
    """The techniques of a device, kept with its trace."""
    key = ("whatif board", query.device)
    return store.remembered(
        query.trace_id, key, lambda analysis: WhatIfBoard(analysis, analysis.device(query.device), store.jobs)
    )


def asked_of_address(search: str | None) -> tuple[list[str], str, Measure]:
    """Techniques, card and measure that an address names; a card that there is not is left out."""
    fields = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()}
    gpu = fields.get("gpu", "")
    measure: Measure = "allocated" if fields.get("measure") == "allocated" else "reserved"
    return list(dict.fromkeys(fields.get("apply", "").split())), gpu if gpu in gpu_names() else "", measure


def checked(names: Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    """The techniques that can be applied together, and what is wrong with the others."""
    kept: list[str] = []
    problems: list[str] = []
    for name in dict.fromkeys(text.strip() for text in names or () if text.strip()):
        problem = _why_not(kept, name)
        if problem is None:
            kept.append(name)
        else:
            problems.append(problem)
    if len(kept) > MAX_TOGETHER:
        problems.append(f"{len(kept)} techniques: {MAX_TOGETHER} at most")
    return tuple(kept[:MAX_TOGETHER]), "; ".join(problems) or None


def _why_not(kept: Sequence[str], name: str) -> str | None:
    try:
        refuse_clashes([*kept, name])
    except UsageError as error:
        return str(error)
    return None


def update(
    store: TraceStore,
    trigger: str | None,
    subject: dict[str, Any] | None,
    scheme: str | None,
    applied: Sequence[str] | None = None,
    gpu: str | None = None,
    measure: str | None = None,
    search: str | None = None,
    seen: str | None = None,
) -> dict[str, Any]:
    """Begin what is asked for, if it is not known or on its way, and fill the view with what is known by now.

    Parameters
    ----------
    trigger
        Id of what was used.
    search
        The address, which says what is asked of a page that has just been opened.
    seen
        What the view shows already; None of a page that has just been opened.
    """
    if subject is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(subject).resolved(store)
    shown: dict[str, Any] = {}
    if seen is None:
        applied, gpu, measure = asked_of_address(search)
        shown = {"whatif-applied.value": applied, "whatif-gpu.value": gpu or None, "whatif-measure.value": measure}
    names, problem = checked(applied)
    asked = WhatIfAsked(names, gpu or "")
    wanted: Measure = "allocated" if measure == "allocated" else "reserved"
    board = board_of(store, query)
    if trigger == "whatif-cancel":
        board.cancel(asked)
    board.ask(asked, again=trigger == "whatif-resume" or seen is None)
    if trigger not in ("whatif-cancel", "whatif-tick") and board.state(asked).is_active:
        board.wait(asked, _PATIENCE_S)
    state = board.state(asked)
    cards_of = repr((query.trace_id, query.device, state.every is not None, state.trying.state == "failed"))
    stamp = f"{cards_of}\n{(scheme, asked, wanted, problem, *_known(state))!r}"
    fields = {"apply": " ".join(names), "gpu": asked.gpu, "measure": "" if wanted == "reserved" else wanted}
    shown |= _progress(state) | {"whatif-asked.data": fields, "whatif-applied.error": problem}
    if stamp == seen:
        return shown
    shown |= _body(state, asked, scheme, wanted) | {"whatif-seen.data": stamp}
    if seen is None or seen.split("\n")[0] != cards_of:
        shown |= _cards(state, asked)
    return shown


def _known(state: WhatIfState) -> tuple[bool, ...]:
    found = (state.every, state.applied, state.plan)
    return (*(one is not None for one in found), state.is_active)


def _progress(state: WhatIfState) -> dict[str, Any]:
    every = (state.trying, state.applying, state.planning)
    n_done, n_all = (sum(getattr(one, name) for one in every if one.is_active) for name in ("n_done", "n_all"))
    ended = [one for one in every if one.state in ("cancelled", "failed")]
    return {
        "whatif-progress.children": _progress_words(state),
        "whatif-meter.value": 100 * n_done / max(n_all, 1),
        "whatif-meter.style": {} if state.is_active else _HIDDEN,
        "whatif-cancel.style": {} if state.is_active else _HIDDEN,
        "whatif-resume.style": {} if ended and not state.is_active else _HIDDEN,
        "whatif-tick.disabled": not state.is_active,
    }


def _progress_words(state: WhatIfState) -> str:
    def words(progress: Progress, doing: str) -> str:
        if progress.is_active:
            many = f": {progress.n_done} of {progress.n_all} tried" if progress.n_all > 1 else ""
            return f"{doing}{many}"
        return {"cancelled": f"{doing} was cancelled", "failed": progress.problem}.get(progress.state, "")

    parts = [
        words(state.applying, "Applying what is chosen"),
        words(state.trying, "Trying every technique"),
        words(state.planning, "Looking for the cheapest plan"),
    ]
    return ". ".join(dict.fromkeys(part for part in parts if part))


def _body(state: WhatIfState, asked: WhatIfAsked, scheme: str, measure: Measure) -> dict[str, Any]:
    plan = []
    if state.plan is not None:
        plan = plan_panel(state.plan, is_applied=set(state.plan.techniques) == set(asked.techniques))
    found: dict[str, Any] = {
        "whatif-title.children": finding(title(state)),
        "whatif-note.children": note(state.every),
        "whatif-plan.children": plan,
        "whatif-plan.style": {} if plan else _HIDDEN,
    }
    return found | _together(state.applied, asked, scheme, measure)


def _cards(state: WhatIfState, asked: WhatIfAsked) -> dict[str, Any]:
    """Each technique by itself: drawn once, so that a button that is used keeps the focus."""
    shown: dict[str, Any] = {}
    if state.every is not None:
        listed = cards(state.every, asked.techniques)
        shown["whatif-cards.children"] = listed or html.P("Nothing that is known takes memory off.", className="quiet")
        shown["whatif-others.children"] = others(state.every)
        shown["whatif-proofs.children"] = proofs_words(state.every)
        shown["whatif-table.children"] = results_table(state.every.results, state.every.baseline)
    elif state.trying.state == "failed":
        shown["whatif-cards.children"] = problem_panel("Nothing can be tried", state.trying.problem)
    else:
        shown["whatif-cards.children"] = html.P("Each technique is tried by a replay…", className="quiet")
    return shown


def card_looks(names: Sequence[str], applied: Sequence[str] | None) -> list[list[str]]:
    """What shows of each card whether it is applied: see :func:`card_look`."""
    looks = [card_look(name, is_on=name in (applied or ())) for name in names]
    return [list(column) for column in zip(*looks, strict=True)] if looks else [[], [], [], []]


def _together(applied: Applied | None, asked: WhatIfAsked, scheme: str, measure: Measure) -> dict[str, Any]:
    if applied is None:
        return {"whatif-together.className": "panel-stack hidden"}
    capacity = find_usable_gpu(asked.gpu).usable_bytes if asked.gpu else None
    return {
        "whatif-together.className": "panel-stack",
        "whatif-tiles.children": tiles(applied),
        "whatif-graph.figure": before_after_figure(
            applied.before, applied.after, theme_named(scheme), measure, capacity
        ),
        "whatif-picture.aria-label": before_after_words(applied.before, applied.after, measure),
        "whatif-recipe.children": recipe(applied),
    }


def title(state: WhatIfState) -> str:
    """What the chosen techniques save, else the one that saves most."""
    if state.applied is not None:
        return _applied_title(state.applied)
    if state.every is None:
        return "What would have made this run smaller?"
    savings = [result for result in state.every.results if saves_something(result)]
    if not savings:
        return "No technique that is known takes memory off this run"
    n = sum(result.saved_bytes > 0 for result in savings)
    if not n:
        return "No technique that is known takes anything off the reserved peak"
    return (
        f"{format_items(n, 'technique')} would have made this run smaller: {savings[0].technique} saves most, "
        f"{format_bytes(savings[0].saved_bytes)} of {format_bytes(state.every.baseline.reserved_bytes)} reserved"
    )


def _applied_title(applied: Applied) -> str:
    result, n = applied.result, len(applied.changes)
    words = result.technique if n < 3 else format_items(n, "technique")
    after = result.peaks.reserved_bytes
    before = after + result.saved_bytes
    if not result.saved_bytes:
        return f"{words} {'keeps' if n == 1 else 'keep'} the reserved peak as it is: {format_bytes(before)}"
    change = f"{format_bytes(abs(result.saved_bytes))} {'less' if result.saved_bytes > 0 else 'more'} reserved"
    return f"With {words}: {change} at the peak, {format_bytes(after)} in place of {format_bytes(before)}"


def note(found: WhatIfs | None) -> list[Component]:
    """What the baseline is, and what weakens every answer."""
    if found is None:
        return []
    peaks = found.baseline
    words = (
        f"{format_bytes(peaks.allocated_bytes)} allocated and {format_bytes(peaks.reserved_bytes)} reserved at the "
        f"peaks, {as_it_is_words(found)}."
    )
    warnings = [html.Li(f"{sentence(text)}.", className="warn-item") for text in found.warnings]
    return [html.Div(words), *([html.Ul(warnings, className="notes")] if warnings else [])]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        trigger = what_triggered(ctx.triggered, ("whatif-cancel", "whatif-resume"))
        found = update(store, trigger, *args[:5], *args[8:])
        return [found.get(name, no_update) for name in OUTPUTS]

    def toggle(_clicks: Any, _plans: Any, applied: list[str] | None) -> Any:
        if not ctx.triggered[0]["value"]:
            return no_update
        name = str(ctx.triggered_id["name"])
        if ctx.triggered_id["type"] == "whatif-plan":
            return name.split()
        try:
            return toggled(applied or [], name)
        except MemscopeError:
            return [*(applied or []), name]  # what stands there is said to be wrong below it

    inputs: list[Input | State] = [Input("subject", "data"), Input("scheme", "data")]
    inputs += [Input(f"whatif-{name}", "value") for name in ("applied", "gpu", "measure")]
    inputs += [Input(f"whatif-{name}", "n_clicks") for name in ("cancel", "resume")]
    inputs += [Input("whatif-tick", "n_intervals"), State("url", "search"), State("whatif-seen", "data")]
    register_update(app, "whatif", answer, [Output(*name.rsplit(".", 1)) for name in OUTPUTS], inputs)
    app.callback(
        Output("whatif-applied", "value", allow_duplicate=True),
        Input({"type": "whatif-toggle", "name": ALL}, "n_clicks"),
        Input({"type": "whatif-plan", "name": ALL}, "n_clicks"),
        State("whatif-applied", "value"),
        prevent_initial_call=True,
    )(toggle)
    toggle_id, card_id = ({"type": f"whatif-{part}", "name": ALL} for part in ("toggle", "card"))
    app.callback(
        Output(card_id, "className"),
        *[Output(toggle_id, name) for name in ("children", "aria-pressed", "title")],
        Input("whatif-applied", "value"),
        State(toggle_id, "id"),
        prevent_initial_call=True,
    )(lambda applied, ids: card_looks([str(one["name"]) for one in ids], applied))
    app.clientside_callback(
        ClientsideFunction("memscope", "keepWhatIf"),
        Output("view-fields", "data", allow_duplicate=True),
        Input("whatif-asked", "data"),
        State("view-fields", "data"),
        prevent_initial_call=True,
    )


VIEW = View("whatif", "What-if", layout, register)
