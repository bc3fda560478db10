"""Flame graph: the allocated bytes of the moment by the calls that made them, or by the modules that own them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.attribution.call_tree import ROOT
from memscope.device.device import Moment
from memscope.figures.flames.flame import (
    FlameBoxes,
    FlameKind,
    FlameTree,
    Key,
    empty_flame,
    flame_boxes,
    flame_figure,
    flame_finding,
    flame_tree,
    has_names,
    key_label,
)
from memscope.figures.theme import theme_named
from memscope.trace.categories import CATEGORY_BY_LABEL
from memscope.words.headlines import where
from memscope_dashboard.boundary import register_update, view_frame
from memscope_dashboard.components.categories import category_choice
from memscope_dashboard.components.text import finding, picture, view_heading
from memscope_dashboard.narrowing import Narrowing
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View

_N_CRUMBS = 4

_HOW_TO_READ = {
    FlameKind.CALLS: "A call is as wide as the bytes that it, and what it called, still hold",
    FlameKind.MODULES: "A module is as wide as the bytes that it, and what is inside it, own",
}
_NO_STACKS = (
    "No call stacks were recorded. Record with memscope.record() or memscope run, which take them, or with "
    'torch.cuda.memory._record_memory_history(stacks="python").'
)
_NO_OWN_FRAMES = 'All recorded frames are in libraries: switch "own code only" off to see them.'
_NO_OWNERS = (
    "The owners of tensors were not recorded. Record with memscope.record(model=model, optimizer=optimizer), "
    "or with memscope run, which finds the model by itself."
)


@dataclass(frozen=True, slots=True)
class Flame:
    """A flame graph ready to be drawn: the tree, its boxes, where they begin, and the node that is chosen."""

    tree: FlameTree
    boxes: FlameBoxes
    path: tuple[Key, ...]
    chosen: int | None


def layout() -> Component:
    """Components and ids only."""
    controls = [
        dmc.Switch(id="flame-own", label="own code only", checked=True, size="xs", persistence=True),
        dmc.SegmentedControl(
            id="flame-kind",
            data=[{"value": "calls", "label": "calls"}, {"value": "modules", "label": "modules"}],
            value="calls",
            size="xs",
            persistence=True,
        ),
    ]
    chips = dmc.ChipGroup([], id="flame-categories", multiple=True, value=[])
    return view_frame(
        "flame",
        view_heading("flame-title", "flame-note", controls),
        html.Div(html.Div(chips, className="chip-choice"), className="chips"),
        html.Div(
            [html.Div(id="flame-crumbs", className="crumbs"), picture("flame-graph", "flame-graph")],
            className="panel flame-panel",
        ),
        dcc.Store(id="flame-heard"),
    )


def compute(tree: FlameTree, narrowing: Narrowing | None) -> Flame:
    """The boxes of a tree; a chosen call without calls below it is shown among those beside it."""
    fits = narrowing is not None and narrowing.kind is tree.kind and narrowing.own_only == tree.own_only
    path: tuple[Key, ...] = narrowing.path if narrowing is not None and fits else ()
    chosen = tree.find(path)
    while path and (chosen is None or not len(tree.children(tree.find(path) or ROOT))):
        path = path[:-1]
        if chosen is None:
            chosen = tree.find(path)
    focus = tree.find(path) or ROOT
    return Flame(tree, flame_boxes(tree, focus), path, chosen if chosen not in (None, ROOT, focus) else None)


def crumbs(moment: Moment, flame: Flame) -> list[Component]:
    """The way down to the first box, each step a button; the middle of a long way is left out."""
    if not flame.path:
        return []
    trace, n = moment.device.trace, len(flame.path)
    labels = ["all", *[key_label(trace, flame.tree.kind, key) for key in flame.path]]
    shown = [0, *range(max(1, n - _N_CRUMBS + 1), n + 1)]
    parts: list[Any] = []
    for before, depth in zip([0, *shown], shown, strict=False):
        if depth:
            parts.append(html.Span("▸ …  ▸" if depth > before + 1 else "▸", className="crumb"))
        if depth == n:
            parts.append(html.Span(labels[depth], className="here"))
        else:
            step = {"type": "go-call", "depth": depth}
            parts.append(html.Button(labels[depth], id=step, className="link", type="button"))
    return parts


def note_words(flame: Flame) -> str:
    """How to read the picture."""
    text = f"{_HOW_TO_READ[flame.tree.kind]}; the colour is the category of most of them."
    if flame.boxes.is_cut:
        text += f" {flame.boxes.n_levels} levels are drawn."
    return f"{text} Click to look closer and to narrow the allocations."


def why_empty(moment: Moment, flame: Flame) -> str | None:
    """Why there is nothing to draw, and what to do; None where there is."""
    tree = flame.tree
    if not tree.bytes[ROOT]:
        return f"Nothing is allocated at {where(moment)}: choose another moment on the strip below."
    if has_names(tree):
        return None
    if tree.kind is FlameKind.MODULES:
        return _NO_OWNERS
    has_stacks = bool((moment.lifetimes.allocations.stack_id[moment.rows] >= 0).any())
    return _NO_OWN_FRAMES if tree.own_only and has_stacks else _NO_STACKS


def update(
    store: TraceStore,
    data: dict[str, Any] | None,
    scheme: str | None,
    kind: str | None,
    own: bool | None,
    chosen: Sequence[str] | None,
    narrow: dict[str, Any] | None,
) -> list[Any]:
    """Title, note, chips, crumbs and figure for a moment and the controls; and whether "own code only" says nothing."""
    if data is None or scheme is None:
        raise PreventUpdate
    query = Query.from_data(data)
    moment = query.moment(store)
    categories = [CATEGORY_BY_LABEL[name] for name in chosen or () if name in CATEGORY_BY_LABEL]
    what = FlameKind(kind or "calls")
    is_by_module = what is FlameKind.MODULES
    own_only = not is_by_module and own is not False
    key = ("flame", query, what, own_only, tuple(categories))
    tree = store.recent(key, lambda: flame_tree(moment, what, own_only=own_only, categories=categories))
    flame = compute(tree, Narrowing.from_data(narrow, query, moment.device.trace))
    why, theme = why_empty(moment, flame), theme_named(scheme)
    chips = category_choice(moment)
    title = finding(flame_finding(moment, tree, categories))
    if why is not None:
        words = html.P(why, className="why-empty")
        return [title, "", chips, words, empty_flame(theme), {"display": "none"}, is_by_module]
    figure = flame_figure(moment, tree, flame.boxes, theme, path=flame.path, chosen=flame.chosen)
    place = Narrowing(what, flame.path, own_only)
    figure.update_layout(meta=place.data(query))
    return [title, note_words(flame), chips, crumbs(moment, flame), figure, {}, is_by_module]


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""

    def answer(*args: Any) -> list[Any]:
        return update(store, *args)

    def go_up(_clicks: list[int | None], narrow: dict[str, Any] | None) -> Any:
        if not narrow or not ctx.triggered[0]["value"]:
            return no_update
        depth = int(ctx.triggered_id["depth"])
        return narrow | {"path": narrow["path"][:depth]} if depth else None

    outputs = [Output(f"flame-{name}", "children") for name in ("title", "note", "categories", "crumbs")]
    outputs += [Output("flame-graph", "figure"), Output("flame-graph", "style"), Output("flame-own", "disabled")]
    inputs = [Input("moment", "data"), Input("scheme", "data"), Input("flame-kind", "value")]
    inputs += [Input("flame-own", "checked"), Input("flame-categories", "value"), Input("narrow", "data")]
    register_update(app, "flame", answer, outputs, inputs)
    app.callback(
        Output("narrow", "data", allow_duplicate=True),
        Input({"type": "go-call", "depth": ALL}, "n_clicks"),
        State("narrow", "data"),
        prevent_initial_call=True,
    )(go_up)
    app.clientside_callback(
        ClientsideFunction("memscope", "hearFlame"), Output("flame-heard", "data"), Input("flame-graph", "figure")
    )


VIEW = View("flame", "Flame graph", layout, register)
