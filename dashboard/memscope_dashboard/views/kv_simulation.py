"""Serving by simulation: how many requests a GPU serves under each way to manage its key/value memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.errors import FieldError, MemscopeError
from memscope.figures.serving import SWEEP_PX, shares_figure, shares_words, sweep_figure, swept_managers
from memscope.figures.serving_curves import OVER_TIME_PX, ServingCurve, over_time_figure, over_time_words
from memscope.figures.theme import Theme, theme_named
from memscope.units import format_count
from memscope.words.labels import sentence
from memscope.words.serving import (
    best_result,
    budget_finding,
    requests_words,
    result_label,
    serving_finding,
    shape_words,
)
from memscope_dashboard.boundary import register_update, what_triggered
from memscope_dashboard.components.kv import (
    HIDDEN,
    LABELS,
    VALUES,
    budget_table,
    controls,
    job_label,
    manager_grid,
    manager_rows,
    model_options,
    notes,
    progress_words,
)
from memscope_dashboard.components.text import finding, picture, section, view_heading
from memscope_dashboard.kv_board import FROM_FILE, KvBoard, KvState, ServingAsked, asked_of
from memscope_dashboard.kv_uploads import upload_name
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

_TICK_MS = 400
_CHOOSE = "Choose a file, or drop one here: Azure, BurstGPT or plain CSV, Mooncake JSON lines; .gz too"
_CHANGED = "The controls have changed: below is what the run before found."
_CONTROLS = {
    "weight_bytes": "the weight size",
    "block_sizes": "the block size",
    "swap_bytes": "swap space",
    "peaks": "a GPU of the catalogue",
}
"""Fields that errors name, and the controls that stand for them."""

OUTPUTS = (
    "kv-title.children",
    "kv-note.children",
    "kv-model.data",
    "kv-made.style",
    "kv-sent.style",
    "kv-requests-upload.children",
    *(f"kv-{name}.error" for name in LABELS),
    "kv-refusal.children",
    "kv-run.children",
    "kv-run.disabled",
    "kv-cancel.style",
    "kv-meter.value",
    "kv-meter.style",
    "kv-progress.children",
    "kv-tick.disabled",
    "kv-budget.children",
    "kv-shape.children",
    "kv-shares.figure",
    "kv-shares-picture.aria-label",
    "kv-shares-picture.className",
    "kv-results.className",
    "kv-grid.rowData",
    "kv-grid.selectedRows",
    "kv-grid-box.style",
    "kv-time-title.children",
    "kv-time.figure",
    "kv-time-picture.aria-label",
    "kv-sweep-panel.style",
    "kv-sweep.figure",
    "kv-notes.children",
    "kv-ran.data",
    "kv-seen.data",
)
"""What an update fills, in order."""


def layout() -> Component:
    """Components and ids only."""
    shares = html.Div(picture("kv-shares"), id="kv-shares-picture", role="img", **{"aria-label": ""})
    # A picture that is drawn while it is hidden takes no room by itself.
    over_time = html.Div(
        picture("kv-time"), id="kv-time-picture", role="img", style={"height": OVER_TIME_PX}, **{"aria-label": ""}
    )
    sweep = html.Div(picture("kv-sweep"), style={"height": SWEEP_PX})
    shape = html.P(id="kv-shape", className="quiet small")
    return html.Div(
        [
            view_heading("kv-title", "kv-note"),
            controls(),
            html.Div(
                [
                    section("The GPU's memory", html.Div(id="kv-budget"), shape),
                    section("KV memory that requests claim, over the whole run", shares),
                ],
                className="kv-columns",
            ),
            html.Div(
                [
                    html.Section(
                        html.Div(manager_grid(), id="kv-grid-box", className="grid-box kv-grid-box"),
                        className="panel kv-table-panel",
                        **{"aria-label": "Managers side by side"},
                    ),
                    html.Section([html.H2(id="kv-time-title"), over_time], className="panel"),
                    html.Div(section("By block size", sweep), id="kv-sweep-panel", style=HIDDEN),
                    html.Section(html.Div(id="kv-notes", className="kv-notes"), className="panel"),
                ],
                id="kv-results",
                className="panel-stack hidden",
            ),
            dcc.Interval(id="kv-tick", interval=_TICK_MS, disabled=True),
            dcc.Store(id="kv-ran"),
            dcc.Store(id="kv-seen"),
        ],
        className="panel-stack",
    )


def board_of(store: TraceStore) -> KvBoard:
    """The board that all pages share."""
    return store.remembered_for_all("kv board", lambda: KvBoard(store.jobs))


def update(
    store: TraceStore,
    trigger: str | None,
    subject: dict[str, Any] | None,
    scheme: str | None,
    values: Mapping[str, Any],
    selected: Any = None,
    seen: str | None = None,
    ran: str | None = None,
) -> dict[str, Any]:
    """Fill the view with what is known by now; begin what is asked for when Run was clicked.

    Parameters
    ----------
    trigger
        Id of what was used.
    values
        Of the controls, by their names in ``VALUES``.
    selected
        The row of the table that is selected.
    seen
        What the view shows already; if nothing changed since, there is no update.
    ran
        Name of the question whose answer the view shows, if it has shown one.
    """
    if subject is None or scheme is None:
        raise PreventUpdate
    Query.from_data(subject).analysis(store)
    board, theme = board_of(store), theme_named(scheme)
    shown = _choices(board, values)
    asked, errors = asked_of(values)
    shown |= {f"kv-{name}.error": name in errors for name in LABELS}
    if errors:
        return shown | _refused(next(f"{LABELS[name]}: {text}" for name, text in errors.items()))
    if asked is None:
        return shown | _nothing_to_serve()
    try:
        if trigger == "kv-run":
            board.run(asked)
        elif trigger == "kv-cancel":
            board.cancel()
        state = board.state(asked)
    except MemscopeError as error:
        return shown | _refused(_in_words_of_controls(error))
    answered, answer = _answered(board, asked, state, ran)
    picked = _picked(selected, answer)
    drawn = (board.name(asked), board.name(answered), scheme, picked, state.n_done, answer.n_done)
    stamp = f"{drawn!r}\n{state.running!r} {state.at}"
    if trigger in ("kv-tick", "kv-grid") and stamp == seen:
        raise PreventUpdate
    shown |= _run_line(state, has_changed=answered != asked) | {"kv-seen.data": stamp}
    if trigger == "kv-tick" and seen is not None and seen.split("\n")[0] == stamp.split("\n")[0]:
        return shown
    shown |= _head(state)
    shown |= _answer(answer, picked, theme, is_stale=answered != asked)
    return shown | {"kv-ran.data": board.name(answered) if answer.n_done or answer.running.is_active else ran}


def _answered(board: KvBoard, asked: ServingAsked, state: KvState, ran: str | None) -> tuple[ServingAsked, KvState]:
    """The question whose answer is shown: what is asked for, or while nothing is known of it, what was before."""
    before = board.named(ran)
    if before is None or state.n_done or state.running.is_active:
        return asked, state
    try:
        return before, board.state(before)
    except MemscopeError:  # what it was about is not kept any longer
        return asked, state


def _choices(board: KvBoard, values: Mapping[str, Any]) -> dict[str, Any]:
    """The models that can be chosen, and the requests' controls that belong to the choice made."""
    is_sent, id_ = values.get("lengths") == FROM_FILE, values.get("requests-file")
    return {
        "kv-model.data": model_options(board.uploads.config_labels()),
        "kv-made.style": HIDDEN if is_sent else {},
        "kv-sent.style": {} if is_sent else HIDDEN,
        "kv-requests-upload.children": html.Span(upload_name(id_) if id_ else _CHOOSE),
    }


def _in_words_of_controls(error: MemscopeError) -> str:
    return sentence(error.worded(_CONTROLS) if isinstance(error, FieldError) else str(error))


def _refused(why: str) -> dict[str, Any]:
    """Nothing can be run: what is shown stays, and the Run button says why."""
    return {
        "kv-title.children": "Nothing can be simulated with these settings",
        "kv-note.children": why,
        "kv-refusal.children": why,
        "kv-run.children": "Run",
        "kv-run.disabled": True,
        "kv-cancel.style": HIDDEN,
        "kv-meter.style": HIDDEN,
        "kv-progress.children": "",
        "kv-tick.disabled": True,
        "kv-seen.data": None,
    }


def _nothing_to_serve() -> dict[str, Any]:
    """No file was chosen yet: what is shown stays."""
    return _refused("") | {
        "kv-title.children": "A file of requests is to be chosen",
        "kv-note.children": "Azure, BurstGPT or plain CSV (arrival_s,prompt_tokens,output_tokens), or Mooncake JSONL.",
        "kv-progress.children": "Choose a file of requests.",
    }


def _run_line(state: KvState, *, has_changed: bool) -> dict[str, Any]:
    """The Run button, and how far it is."""
    running, n_all = state.running, len(state.outcomes)
    is_active, is_complete = running.is_active, state.n_done == n_all
    words = progress_words(state)
    if not words and has_changed:
        words = _CHANGED
    return {
        "kv-refusal.children": "",
        "kv-run.children": "Run the rest" if 0 < state.n_done < n_all and not is_active else "Run",
        "kv-run.disabled": is_active or is_complete,
        "kv-cancel.style": {} if is_active else HIDDEN,
        "kv-meter.value": 100 * running.n_done / max(running.n_all, 1),
        "kv-meter.style": {} if is_active else HIDDEN,
        "kv-progress.children": words,
        "kv-tick.disabled": not is_active,
    }


def _head(state: KvState) -> dict[str, Any]:
    """The verdict, or before a run what the budget leaves; and the budget itself, which needs no run."""
    plan, n_all = state.plan, len(state.outcomes)
    results = state.results
    if results:
        words = serving_finding(results)
        if state.n_done < n_all:
            words = f"After {format_count(state.n_done)} of {format_count(n_all)} replays: {words}"
    else:
        words = serving_finding(()) if state.n_done == n_all else budget_finding(plan)
    return {
        "kv-title.children": finding(words),
        "kv-note.children": requests_words(plan),
        "kv-budget.children": budget_table(plan),
        "kv-shape.children": shape_words(plan),
    }


def _answer(state: KvState, picked: str | None, theme: Theme, *, is_stale: bool) -> dict[str, Any]:
    """The pictures, the table and the notes of a question."""
    results, rows = state.results, manager_rows(state)
    curve = _curve(state, picked)
    has_begun = bool(state.n_done) or state.running.is_active
    swept = bool(swept_managers(results))
    stale = " stale" if is_stale else ""
    return {
        "kv-shares.figure": shares_figure(_bars(state), theme),
        "kv-shares-picture.aria-label": shares_words(results),
        "kv-shares-picture.className": stale.strip(),
        "kv-results.className": f"panel-stack{stale}" if has_begun else "panel-stack hidden",
        "kv-grid.rowData": rows,
        # While replays go on the best so far is shown, and none is taken for chosen.
        "kv-grid.selectedRows": no_update if picked is None or state.running.is_active else {"ids": [picked]},
        "kv-grid-box.style": {"--rows": len(rows)},
        "kv-time-title.children": "Memory over time" if curve is None else f"{curve.label}: memory over time",
        "kv-time.figure": over_time_figure(curve, theme),
        "kv-time-picture.aria-label": over_time_words(curve),
        "kv-sweep-panel.style": {} if swept else HIDDEN,
        "kv-sweep.figure": sweep_figure(results, theme) if swept else no_update,
        "kv-notes.children": notes(state),
    }


def _bars(state: KvState) -> list[tuple[str, Any]]:
    pairs = zip(state.plan.jobs, state.outcomes, strict=True)
    return [
        (
            job_label(job.manager, job.options.block_size, job.options.page_bytes),
            None if outcome is None else outcome.result,
        )
        for job, outcome in pairs
    ]


def _picked(selected: Any, state: KvState) -> str | None:
    """Name of the replay whose memory over time is shown: the selected one, or the best."""
    labels = [result_label(result) for result in state.results]
    rows = selected.get("ids", []) if isinstance(selected, dict) else [row["row"] for row in selected or []]
    for row in rows:
        if row in labels:
            return str(row)
    best = best_result(state.results)
    return None if best is None else result_label(best)


def _curve(state: KvState, picked: str | None) -> ServingCurve | None:
    return next((one.curve for one in state.done if one.curve is not None and one.curve.label == picked), None)


def send_config(store: TraceStore, contents: str | None, name: str | None) -> list[Any]:
    """Keep a configuration that a page sent: the model's new value, a problem, and nothing left to send."""
    return _send(board_of(store).uploads.add_config, contents, name)


def send_requests(store: TraceStore, contents: str | None, name: str | None) -> list[Any]:
    """Keep a request trace that a page sent: its id, a problem, and nothing left to send."""
    return _send(board_of(store).uploads.add_requests, contents, name)


def _send(add: Any, contents: str | None, name: str | None) -> list[Any]:
    if not contents:
        raise PreventUpdate
    try:
        return [add(name or "file", contents), "", None]
    except MemscopeError as error:
        return [no_update, str(error), None]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""
    n_values = len(VALUES)

    def answer(*args: Any) -> list[Any]:
        subject, scheme = args[:2]
        values = dict(zip(VALUES, args[2 : 2 + n_values], strict=True))
        selected, seen, ran = args[-3:]
        trigger = what_triggered(ctx.triggered, ("kv-cancel", "kv-run"))
        found = update(store, trigger, subject, scheme, values, selected, seen, ran)
        return [found.get(name, no_update) for name in OUTPUTS]

    inputs: list[Input | State] = [Input("subject", "data"), Input("scheme", "data")]
    inputs += [Input(f"kv-{name}", "data" if name == "requests-file" else "value") for name in VALUES]
    inputs += [Input("kv-run", "n_clicks"), Input("kv-cancel", "n_clicks"), Input("kv-tick", "n_intervals")]
    inputs += [Input("kv-grid", "selectedRows"), State("kv-seen", "data"), State("kv-ran", "data")]
    register_update(app, "kv", answer, [Output(*name.rsplit(".", 1)) for name in OUTPUTS], inputs)
    sent = (
        ("kv-config-upload", "kv-model", "value", send_config),
        ("kv-requests-upload", "kv-requests-file", "data", send_requests),
    )
    for upload, target, prop, send in sent:
        _register_upload(app, store, (upload, target, prop), send)


def _register_upload(app: Dash, store: TraceStore, ids: tuple[str, str, str], send: Any) -> None:
    upload, target, prop = ids

    def take(contents: str | None, name: str | None) -> list[Any]:
        return list(send(store, contents, name))

    app.callback(
        Output(target, prop),
        Output("kv-sent-problem", "children", allow_duplicate=True),
        Output(upload, "contents"),
        Input(upload, "contents"),
        State(upload, "filename"),
        prevent_initial_call=True,
    )(take)
