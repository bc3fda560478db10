"""Replay: what other allocators and settings would have reserved for the same requests, made in the background."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Device
from memscope.device.limits import Limits, checked_limits
from memscope.device.recording import RecordedTrace
from memscope.errors import UsageError
from memscope.figures.replay import DrawnCurve, Measure, curves_figure, curves_words
from memscope.figures.theme import theme_named
from memscope.figures.timeline import moment_shape
from memscope.figures.timeline_data import x_of_events
from memscope.replay.compare import Comparison
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.strategies import STRATEGIES
from memscope.trace.schema import NONE_ID
from memscope.units import format_count, parse_bytes
from memscope.words.labels import sentence
from memscope.words.replay import LEGEND, calibration_words, verdict_words
from memscope_dashboard.boundary import register_update, view_frame, what_triggered
from memscope_dashboard.components.replay import (
    capacity_placeholder,
    curve_key,
    curve_positions,
    label_of,
    limits_note,
    progress_frac,
    progress_words,
    replay_table,
    tuning_panel,
    verify_badge,
    verify_panel,
    warnings_and_notes,
)
from memscope_dashboard.components.run_graph import clicked_event, follow_moment
from memscope_dashboard.components.text import finding, picture, view_heading
from memscope_dashboard.query import Query
from memscope_dashboard.replay_board import BoardState, ReplayAsked, ReplayBoard
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

HIDDEN = {"display": "none"}
_TICK_MS = 400
OUTPUTS = (
    "replay-title.children",
    "replay-note.children",
    "replay-strategies.error",
    "replay-confs.error",
    "replay-capacity.error",
    "replay-capacity.placeholder",
    "replay-progress.children",
    "replay-meter.value",
    "replay-meter.style",
    "replay-cancel.style",
    "replay-resume.style",
    "replay-tune.disabled",
    "replay-tick.disabled",
    "replay-verify.children",
    "replay-verify-panel.children",
    "replay-tuned.children",
    "replay-tuned.style",
    "replay-graph.figure",
    "replay-picture.aria-label",
    "replay-check.children",
    "replay-table.children",
    "replay-notes.children",
    "replay-seen.data",
)
"""What an update fills, in order."""


def verify_popover() -> Component:
    """The badge of verification, and the panel that it opens."""
    badge = html.Button(id="replay-verify", className="trust", type="button", **{"aria-haspopup": "dialog"})
    panel = html.Div(id="replay-verify-panel", className="trust-notes verify-panel")
    return dmc.Popover(
        [dmc.PopoverTarget(badge), dmc.PopoverDropdown(panel)], width=440, position="bottom-end", shadow="md"
    )


def fields() -> Component:
    """What to replay."""
    shared: dict[str, Any] = {"size": "xs"}
    return html.Div(
        [
            dmc.MultiSelect(
                id="replay-strategies",
                label="Strategies",
                data=strategy_options(),
                renderOption={"function": "strategyOption"},
                placeholder="all",
                searchable=True,
                clearable=True,
                hidePickedOptions=True,
                maxDropdownHeight=340,
                comboboxProps={"shadow": "md", "width": 420, "position": "bottom-start"},
                className="field",
                **shared,
            ),
            dmc.TagsInput(
                id="replay-confs",
                label="ALLOC_CONF settings to add",
                placeholder="name:value,… then Enter",
                splitChars=["\n"],
                clearable=True,
                className="field wide",
                **shared,
            ),
            dmc.TextInput(
                id="replay-capacity", label="Capacity", debounce=True, n_submit=0, className="field narrow", **shared
            ),
            html.Button("Find the best setting", id="replay-tune", className="go tune", type="button"),
        ],
        className="fields",
    )


def strategy_options() -> list[dict[str, Any]]:
    """The registry, grouped by what its results are, for the selection."""
    groups: dict[str, list[dict[str, str]]] = {}
    for strategy in STRATEGIES.values():
        item = {"value": strategy.name, "label": strategy.name, "summary": strategy.summary}
        groups.setdefault(strategy.exactness, []).append(item)
    return [{"group": name, "items": items} for name, items in groups.items()]


def progress_line() -> Component:
    """How far it is, and what can be done about it."""
    return html.Div(
        [
            dmc.Progress(id="replay-meter", value=0, size="sm", style=HIDDEN, className="replay-meter"),
            html.Span(id="replay-progress", role="status"),
            html.Button("Cancel", id="replay-cancel", className="go", type="button", style=HIDDEN),
            html.Button("Run the rest", id="replay-resume", className="go", type="button", style=HIDDEN),
        ],
        className="progress-line",
    )


def switches() -> list[Component]:
    """What the picture shows."""
    axes = [{"value": "event", "label": "events"}, {"value": "time", "label": "time"}]
    measures = [{"value": "reserved", "label": "reserved"}, {"value": "unused", "label": "reserved − active"}]
    return [
        dmc.SegmentedControl(id="replay-measure", data=measures, value="reserved", size="xs"),
        dmc.SegmentedControl(id="replay-axis", data=axes, value="event", size="xs"),
    ]


def asked_of(
    strategies: list[str] | None, confs: list[str] | None, capacity: str | None
) -> tuple[ReplayAsked, dict[str, str | None]]:
    """What the controls ask for, and what is wrong with each; settings that cannot be read are left out."""
    errors: dict[str, str | None] = dict.fromkeys(("strategies", "confs", "capacity"))
    names = tuple(name for name in STRATEGIES if name in (strategies or ()))
    given = [conf.strip() for conf in confs or []] if ReplayAsked(names).takes_confs else []
    problems = {conf: _why_not(conf) for conf in given}
    refused = [problem for problem in problems.values() if problem is not None]
    if confs and not ReplayAsked(names).takes_confs:
        refused.append("none of the chosen strategies has allocator settings")
    errors["confs"] = "; ".join(refused) or None
    capacity_bytes = None
    try:
        wanted = Limits(parse_bytes(capacity) if capacity and capacity.strip() else None)
        capacity_bytes = checked_limits(wanted).total_bytes
    except UsageError as error:
        errors["capacity"] = str(error)
    kept = tuple(conf for conf, problem in problems.items() if problem is None)
    return ReplayAsked(names, kept, capacity_bytes), errors


def _why_not(conf: str) -> str | None:
    try:
        CachingAllocatorConfig.parse(conf)
    except UsageError as error:
        return str(error)
    return None


def layout() -> Component:
    """Components and ids only."""
    return view_frame(
        "replay",
        view_heading("replay-title", "replay-note", [verify_popover()]),
        html.Div([fields(), progress_line()], className="panel replay-controls"),
        html.Section(id="replay-tuned", className="panel tuned", style=HIDDEN, **{"aria-live": "polite"}),
        html.Div(
            [
                html.Div([html.Div(id="replay-check", className="quiet small"), *switches()], className="picture-head"),
                html.Div(picture("replay-graph"), id="replay-picture", role="img", **{"aria-label": ""}),
            ],
            className="panel replay-picture",
        ),
        html.Div(
            [
                html.Div(id="replay-table"),
                html.Div([html.P(line) for line in LEGEND], className="quiet small legend"),
                html.Div(id="replay-notes"),
            ],
            className="panel table-panel",
        ),
        dcc.Interval(id="replay-tick", interval=_TICK_MS, disabled=True),
        dcc.Store(id="replay-seen"),
        dcc.Store(id="replay-line"),
    )


def board_of(store: TraceStore, query: Query) -> ReplayBoard:
    """The board of a device, kept with its trace."""
    key = ("replay board", query.device)
    return store.remembered(
        query.trace_id, key, lambda analysis: ReplayBoard(analysis.device(query.device), store.jobs)
    )


def update(
    store: TraceStore,
    trigger: str | None,
    subject: dict[str, Any] | None,
    scheme: str | None,
    strategies: list[str] | None = None,
    confs: list[str] | None = None,
    capacity: str | None = None,
    measure: str | None = None,
    axis: str | None = None,
    seen: str | None = None,
    moment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Begin what is asked for, if it is not done or on its way, and fill the view with what is known by now.

    Parameters
    ----------
    trigger
        Id of what was used.
    seen
        What the view shows already; if nothing changed since, there is no update.
    """
    if subject is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(subject).resolved(store)
    asked, errors = asked_of(strategies, confs, capacity)
    shown = {f"replay-{name}.error": text for name, text in errors.items()}
    if errors["capacity"] is not None:
        return shown
    board = board_of(store, query)
    if not board.device.n_events:
        return shown | _nothing_to_replay(board.device, scheme)
    if trigger == "replay-cancel":
        board.cancel()
    elif trigger == "replay-tune":
        board.search(asked.capacity_bytes)
    # A page that only waits does not take the place of what another page has asked for.
    if trigger != "replay-tick" or not board.is_comparing:
        board.compare(asked, again=trigger == "replay-resume")
    state = board.state(asked)
    picked = (measure or "reserved", axis or "event")
    stamp = _stamp(query, scheme, asked, picked, state)
    if trigger == "replay-tick" and stamp == seen:
        raise PreventUpdate
    shown |= _progress(state) | _answers(board.device.recording, query, state) | {"replay-seen.data": stamp}
    if trigger == "replay-tick" and seen is not None and seen.split("\n")[0] == stamp.split("\n")[0]:
        return shown | {"replay-title.children": finding(title(board.comparison(state), state))}
    return shown | _body(query, board, asked, state, scheme, picked, moment)


def _stamp(query: Query, scheme: str, asked: ReplayAsked, picked: tuple[str, str], state: BoardState) -> str:
    """What names a state of the view: in the first line what the picture and the table follow from."""
    drawn = (query.trace_id, query.device, scheme, asked, picked, state.n_done)
    rest = (state.comparing, state.verifying.state, state.searching, state.tuning is not None)
    return f"{drawn!r}\n{rest!r}"


def _nothing_to_replay(device: Device, scheme: str) -> dict[str, Any]:
    """Why the view is empty, in place of what another trace may have left in it."""
    empty = [name for name in OUTPUTS if name.endswith((".children", ".data"))]
    hidden = [name for name in OUTPUTS if name.endswith(".style")]
    return {
        **dict.fromkeys(empty),
        **dict.fromkeys(hidden, HIDDEN),
        "replay-title.children": "No events were recorded: there is nothing to replay",
        "replay-note.children": "A replay needs every request, not only what was left at the end.",
        "replay-graph.figure": curves_figure(None, [], x_of_events(device, "event"), theme_named(scheme)),
        "replay-picture.aria-label": "Nothing is replayed.",
        "replay-tick.disabled": True,
        "replay-tune.disabled": True,
    }


def title(comparison: Comparison, state: BoardState) -> str:
    """The verdict, or how far the comparison is."""
    n_all, n_done = len(state.outcomes), state.n_done
    if state.comparing.is_active:
        return f"Replaying the recorded requests: {format_count(n_done)} of {format_count(n_all)} done"
    if not n_done:
        return "Nothing was replayed"
    words = verdict_words(comparison.verdict)
    if n_done < n_all:
        return f"After {format_count(n_done)} of {format_count(n_all)} replays: {words}"
    return sentence(words)


def _progress(state: BoardState) -> dict[str, Any]:
    fraction = progress_frac(state)
    is_idle = fraction is None
    can_resume = not state.comparing.is_active and state.n_done < len(state.outcomes)
    return {
        "replay-progress.children": progress_words(state),
        "replay-meter.value": 100 * (fraction or 0),
        "replay-meter.style": HIDDEN if is_idle else {},
        "replay-cancel.style": HIDDEN if is_idle else {},
        "replay-resume.style": {} if can_resume else HIDDEN,
        "replay-tune.disabled": state.tuning is not None or state.searching.is_active,
        "replay-tick.disabled": not state.is_active,
    }


def _answers(recording: RecordedTrace, query: Query, state: BoardState) -> dict[str, Any]:
    return {
        "replay-verify.children": verify_badge(state.verification, state.verifying, is_dry_run=recording.is_dry_run),
        "replay-verify-panel.children": verify_panel(recording, state.verification, state.verifying, query),
        "replay-tuned.children": tuning_panel(state.tuning),
        "replay-tuned.style": HIDDEN if state.tuning is None else {},
    }


def _body(
    query: Query,
    board: ReplayBoard,
    asked: ReplayAsked,
    state: BoardState,
    scheme: str,
    picked: tuple[str, str],
    moment: dict[str, Any] | None,
) -> dict[str, Any]:
    comparison = board.comparison(state)
    names = [(job.strategy, job.options.conf) for job in board.replays(asked)]
    drawn = _drawn(comparison, names, state)
    known = board.device.limits.total_bytes
    return {
        "replay-title.children": finding(title(comparison, state)),
        "replay-note.children": limits_note(state.limits),
        "replay-capacity.placeholder": capacity_placeholder(known),
        "replay-graph.figure": _figure(query, board, drawn, state, scheme, picked, moment),
        "replay-picture.aria-label": curves_words(len(drawn), board.recorded_curve is not None),
        "replay-check.children": check_words(comparison, state, asked),
        "replay-table.children": replay_table(comparison, names, state.outcomes),
        "replay-notes.children": warnings_and_notes(state.done, state.limits),
    }


def _drawn(comparison: Comparison, names: list[tuple[str, str | None]], state: BoardState) -> list[DrawnCurve]:
    positions = curve_positions(names)
    found = []
    for outcome in state.done:
        if outcome.result is None or outcome.curve is None:
            continue
        key = curve_key(outcome.strategy, outcome.conf)
        label = label_of(outcome.strategy, outcome.conf)
        look = (STRATEGIES[outcome.strategy].exactness, positions[key])
        is_best = outcome.result is comparison.best
        found.append(DrawnCurve(key, label, outcome.result.exactness, *look, outcome.curve, is_best))
    return found


def _figure(
    query: Query,
    board: ReplayBoard,
    drawn: list[DrawnCurve],
    state: BoardState,
    scheme: str,
    picked: tuple[str, str],
    moment: dict[str, Any] | None,
) -> Any:
    device, theme = board.device, theme_named(scheme)
    measure: Measure = "unused" if picked[0] == "unused" else "reserved"
    axis = picked[1] if device.has_times else "event"
    x = x_of_events(device, axis)
    event = _event_of(moment, device, query)
    figure = curves_figure(
        board.recorded_curve,
        drawn,
        x,
        theme,
        axis=axis,
        measure=measure,
        capacity_bytes=state.limits.left_bytes,
        moment=moment_shape(x, device, event, theme),
    )
    # What was zoomed into stays in sight when more replays come.
    return figure.update_layout(uirevision=f"{query.trace_id} {device.index} {axis}")


def _event_of(moment: dict[str, Any] | None, device: Device, query: Query) -> int | None:
    """The event of a moment, None where it is another trace's or another device's, which the page leaves just now."""
    if moment is None or (moment.get("trace"), moment.get("device")) != (query.trace_id, device.index):
        return None
    event, lifetimes = moment.get("event"), device.lifetimes
    is_here = isinstance(event, int) and (event == NONE_ID or lifetimes.first_event <= event <= lifetimes.last_event)
    return event if is_here else None


def check_words(comparison: Comparison, state: BoardState, asked: ReplayAsked) -> str:
    """How far the simulator is off under the recorded settings, as soon as that is known."""
    if asked.capacity_bytes is not None:
        return "Replayed for another capacity than the recorded device's: the recorded peak is no check of these."
    is_to_come = comparison.replayed is None and state.comparing.is_active
    return "" if is_to_come else calibration_words(comparison)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        trigger = what_triggered(ctx.triggered, ("replay-cancel", "replay-resume", "replay-tune"))
        found = update(store, trigger, *args[:7], *args[11:])
        return [found.get(name, no_update) for name in OUTPUTS]

    def click(clicked: dict[str, Any] | None, axis: str, data: dict[str, Any]) -> Any:
        return clicked_event(store, clicked, axis, data)

    outputs = [Output(*name.rsplit(".", 1)) for name in OUTPUTS]
    inputs: list[Input | State] = [Input("subject", "data"), Input("scheme", "data")]
    inputs += [Input(f"replay-{name}", "value") for name in ("strategies", "confs", "capacity", "measure", "axis")]
    inputs += [Input(f"replay-{name}", "n_clicks") for name in ("cancel", "resume", "tune")]
    inputs += [Input("replay-tick", "n_intervals"), State("replay-seen", "data"), State("moment", "data")]
    register_update(app, "replay", answer, outputs, inputs)
    moment_of = (State("replay-axis", "value"), State("moment", "data"))
    follow_moment(app, store, "replay")
    app.callback(
        Output("jump", "data", allow_duplicate=True),
        Input("replay-graph", "clickData"),
        *moment_of,
        prevent_initial_call=True,
    )(click)


VIEW = View("replay", "Replay", layout, register)
