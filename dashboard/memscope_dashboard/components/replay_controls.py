"""The replay view's controls, and what they ask for."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from memscope.errors import UsageError
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.strategies import STRATEGIES
from memscope.units import parse_bytes
from memscope_dashboard.replay_board import Asked

HIDDEN = {"display": "none"}


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
) -> tuple[Asked, dict[str, str | None]]:
    """What the controls ask for, and what is wrong with each; settings that cannot be read are left out."""
    errors: dict[str, str | None] = dict.fromkeys(("strategies", "confs", "capacity"))
    names = tuple(name for name in STRATEGIES if name in (strategies or ()))
    given = [conf.strip() for conf in confs or []] if Asked(names).takes_confs else []
    problems = {conf: _why_not(conf) for conf in given}
    refused = [problem for problem in problems.values() if problem is not None]
    if confs and not Asked(names).takes_confs:
        refused.append("none of the chosen strategies has allocator settings")
    errors["confs"] = "; ".join(refused) or None
    capacity_bytes = None
    try:
        capacity_bytes = parse_bytes(capacity) if capacity and capacity.strip() else None
    except UsageError as error:
        errors["capacity"] = str(error)
    kept = tuple(conf for conf, problem in problems.items() if problem is None)
    return Asked(names, kept, capacity_bytes), errors


def _why_not(conf: str) -> str | None:
    try:
        CachingAllocatorConfig.parse(conf)
    except UsageError as error:
        return str(error)
    return None
