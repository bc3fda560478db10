"""KV cache: what the open trace's holds, and how many requests could be served; behind a switch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dash_mantine_components as dmc
from dash import Dash, Input, Output, html
from dash.development.base_component import Component

from memscope_dashboard.boundary import view_frame
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View
from memscope_dashboard.views import kv_simulation, kv_trace


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the view: its heading, controls and pictures, filled by its own callbacks."""

    name: str
    label: str
    layout: Callable[[], Component]
    register: Callable[[Dash, TraceStore], None]


PARTS = (
    Part("trace", "On this trace", kv_trace.layout, kv_trace.register),
    Part("simulation", "Simulate serving", kv_simulation.layout, kv_simulation.register),
)
"""The parts, in the order of the switch; the first is where the view opens."""


def layout_of(parts: Sequence[Part]) -> Component:
    """Components and ids only: every part is there, and those that are not chosen are hidden."""
    options = [{"value": part.name, "label": part.label} for part in parts]
    switch = dmc.SegmentedControl(
        id="kv-part", data=options, value=parts[0].name, size="xs", persistence=True, persistence_type="session"
    )
    places = [
        html.Div(part.layout(), id=f"kv-part-{part.name}", className=_class_of(part, parts[0].name)) for part in parts
    ]
    return view_frame("kv", *([html.Div(switch, className="kv-switch")] if len(parts) > 1 else []), *places)


def _class_of(part: Part, chosen: str) -> str:
    return "kv-part-place" if part.name == chosen else "kv-part-place hidden"


def register_parts(app: Dash, store: TraceStore, parts: Sequence[Part]) -> None:
    """Wire the parts, and the switch between them where there are several."""
    for part in parts:
        part.register(app, store)
    if len(parts) > 1:
        outputs = [Output(f"kv-part-{part.name}", "className") for part in parts]
        app.callback(outputs, Input("kv-part", "value"))(lambda chosen: [_class_of(part, chosen) for part in parts])


def layout() -> Component:
    """Components and ids only."""
    return layout_of(PARTS)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""
    register_parts(app, store, PARTS)


VIEW = View("kv", "KV cache", layout, register)
