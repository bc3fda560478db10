"""The navigation, and the one callback through which every choice of a moment goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, html, no_update
from dash.development.base_component import Component

from memscope.device.device import Device
from memscope.errors import MemscopeError
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View


def layout(views: Sequence[View]) -> Component:
    """The navigation's links."""
    links = [
        dmc.NavLink(
            id={"type": "nav", "view": view.name},
            label=view.title,
            href=f"/{view.name}",
            leftSection=html.Span(className=f"icon icon-{view.name}"),
            className="nav-link",
            **{"aria-label": view.title},
        )
        for view in views
    ]
    return html.Nav(links, className="nav")


def choose(store: TraceStore, trigger: Any, current: dict[str, Any] | None, wanted: dict[str, Any]) -> Query:
    """What to look at after something was chosen.

    Parameters
    ----------
    trigger
        Id of what was used: ``url``, ``trace-select``, ``device-select``, ``event-input``, ``jump`` or a ``go-…``
        button.
    current
        The moment before, as in the browser's store.
    wanted
        ``search``, ``trace``, ``device``, ``event`` and ``jump`` as the page's parts have them. A jump names an event,
        and a trace and a device where it leads to another.
    """
    if current is None or trigger in (None, "url"):
        return Query.from_search(wanted["search"], store)
    now = Query.from_data(current)
    if trigger == "trace-select":
        return Query(wanted["trace"]) if wanted["trace"] != now.trace_id else now
    if trigger == "jump" and "trace" in wanted["jump"]:
        jump = wanted["jump"]
        return Query(str(jump["trace"]), int(jump["device"]), int(jump["event"]))
    if now.device is None or now.event is None:
        return now
    if trigger == "device-select":
        index = int(wanted["device"])
        return Query(now.trace_id, index) if index != now.device else now
    if trigger == "jump":
        return Query(now.trace_id, now.device, int(wanted["jump"]["event"]))
    device = now.opinions(store).device
    index = 0 if now.event < 0 else device.usage.index_of(now.event)
    if trigger == "event-input":
        event = wanted["event"]
        index = index if not isinstance(event, int | float) else device.usage.index_of(int(event))
    elif trigger in ("go-back", "go-on"):
        index += 1 if trigger == "go-on" else -1
    else:
        return Query(now.trace_id, now.device, _landmark(device, now, str(trigger)))
    index = min(max(index, 0), device.n_events)
    return Query(now.trace_id, now.device, device.usage.event_at(index))


def _landmark(device: Device, now: Query, button: str) -> int | None:
    if button == "go-end":
        return device.end().event
    if button == "go-oom":
        ooms = [int(event) for event in device.oom_events]
        later = [event for event in ooms if now.event is not None and event > now.event]
        return next(iter(later or ooms), now.event)
    return device.peak().event


def page_state(store: TraceStore, query: Query) -> dict[str, Any]:
    """Everything around the views that follows from what is looked at, by the id of the part it belongs to.

    A trace that cannot be opened gives its id alone: each view then says why.
    """
    try:
        query = query.resolved(store)
        analysis = store.analysis(query.trace_id)
    except MemscopeError:
        known = query.trace_id in store.trace_ids
        return {
            "moment": Query(query.trace_id).data(),
            "trace": query.trace_id if known else None,
            "devices": [],
            "device": None,
            "bounds": {"first": 0, "n": 0},
            "index": 0,
            "event": "",
            "has_oom": False,
        }
    assert query.device is not None
    assert query.event is not None
    device = analysis.device(query.device)
    return {
        "moment": query.data(),
        "trace": query.trace_id,
        "devices": [
            {"value": str(one.index), "label": f"GPU {one.index}{f' · {one.name}' if one.name else ''}"}
            for one in analysis.devices
        ],
        "device": str(query.device),
        "bounds": {"first": device.lifetimes.first_event, "n": device.n_events},
        "index": 0 if query.event < 0 else device.usage.index_of(query.event),
        "event": query.event,
        "has_oom": bool(len(device.oom_events)),
    }


def register(app: Dash, store: TraceStore) -> None:
    """Wire every control that chooses a moment to the one store that holds it."""

    def navigate(search: str, trace: str, device: str, event: Any, jump: Any, *rest: Any) -> list[Any]:
        current, subject = rest[-2], rest[-1]
        wanted = {"search": search, "trace": trace, "device": device, "event": event, "jump": jump}
        try:
            query = choose(store, ctx.triggered_id, current, wanted)
        except MemscopeError:
            query = Query.from_data(current or {"trace": trace})
        state = page_state(store, query)
        moment = state["moment"]
        is_dragged = ctx.triggered_id == "jump" and jump.get("from") == "scrubber"
        about = {"trace": moment["trace"], "device": moment["device"]}
        return [
            no_update if moment == current else moment,
            no_update if about == subject else about,
            state["trace"],
            state["devices"],
            state["device"],
            state["bounds"],
            state["bounds"]["n"] or 1,
            no_update if is_dragged else state["index"],
            state["event"],
            not state["has_oom"],
        ]

    buttons = ("go-back", "go-on", "go-peak", "go-oom", "go-end")
    app.callback(
        Output("moment", "data"),
        Output("subject", "data"),
        Output("trace-select", "value"),
        Output("device-select", "data"),
        Output("device-select", "value"),
        Output("bounds", "data"),
        Output("scrubber", "max"),
        Output("scrubber", "value"),
        Output("event-input", "value"),
        Output("go-oom", "disabled"),
        Input("url", "search"),
        Input("trace-select", "value"),
        Input("device-select", "value"),
        Input("event-input", "value"),
        Input("jump", "data"),
        *[Input(button, "n_clicks") for button in buttons],
        State("moment", "data"),
        State("subject", "data"),
    )(navigate)
    app.clientside_callback(
        ClientsideFunction("memscope", "address"),
        Output({"type": "nav", "view": ALL}, "href"),
        Output({"type": "nav", "view": ALL}, "active"),
        Input("moment", "data"),
        Input("url", "pathname"),
        Input("view-fields", "data"),
        State({"type": "nav", "view": ALL}, "href"),
    )
