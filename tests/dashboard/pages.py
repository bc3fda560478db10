"""What tests say of pages: the text they show, the values of their controls, a request as the browser sends it."""

from __future__ import annotations

import base64
import json
from typing import Any

from dash import Dash, dcc
from dash.development.base_component import Component
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.attribution.call_tree import ROOT
from memscope.figures.flames.flame import FlameKind, flame_tree

OUT_OF_MEMORY = "tiny-out-of-memory.memscope"
FITTING = "tiny-llama-train.memscope"
"""Shipped traces: one whose request failed, one where none did."""
PLAIN = b"arrival_s,prompt_tokens,output_tokens\n0,50,5\n0.5,70,9\n1,20,30\n"
NOW = {"trace": "train.memscope", "device": 0, "event": 40}


def text_of(component: Any) -> str:
    if component is None:
        return ""
    if isinstance(component, str | int | float):
        return str(component)
    if isinstance(component, list | tuple):
        return "".join(map(text_of, component))
    return text_of(getattr(component, "children", None))


def wanted(**values: Any) -> dict[str, Any]:
    return {"search": "", "trace": "train.memscope", "device": "0", "event": 40, "jump": None} | values


def moment_data(store: TraceStore, trace_id: str = "train.memscope") -> dict[str, Any]:
    return Query(trace_id).resolved(store).data()


def subject_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"trace": data["trace"], "device": data["device"]}


def request_of(app: Dash, output: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a page sends to ask for the callback that has an output."""
    (key,) = [key for key in app.callback_map if output in key.strip(".").split("...")]
    callback = app.callback_map[key]
    outputs = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True)) for part in key.strip(".").split("...")]

    def filled(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [part | {"value": values.get(f"{part['id']}.{part['property']}")} for part in parts]

    return {
        "output": key,
        "outputs": outputs if key.startswith("..") else outputs[0],
        "inputs": filled(callback["inputs"]),
        "state": filled(callback["state"]),
        "changedPropIds": [f"{callback['inputs'][0]['id']}.{callback['inputs'][0]['property']}"],
    }


def post(app: Dash, output: str, values: dict[str, Any]) -> tuple[int, dict[str, Any], int]:
    """Ask the app for the callback that has an output; status, response, and its size in bytes."""
    response = app.server.test_client().post("/_dash-update-component", json=request_of(app, output, values))
    content = response.get_data()
    return response.status_code, json.loads(content) if content else {}, len(content)


def page_values(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "moment.data": data,
        "subject.data": subject_of(data),
        "scheme.data": "dark",
        "timeline-axis.value": "event",
        "device-axis.value": "event",
    } | more


def ids_of(component: Any) -> list[str]:
    parts = [component, *component._traverse()] if isinstance(component, Component) else []
    return [part.id for part in parts if isinstance(getattr(part, "id", None), str)]


def links(components: Any) -> list[str]:
    parts = [part for one in components if one is not None for part in [one, *one._traverse()]]
    return [part.href for part in parts if isinstance(part, dcc.Link)]


def largest_path(store: TraceStore, data: dict[str, Any], kind: FlameKind = FlameKind.CALLS) -> list[Any]:
    """Keys down to a leaf, always along the largest child."""
    moment = Query.from_data(data).moment(store)
    tree = flame_tree(moment, kind, own_only=kind is FlameKind.CALLS)
    node, path = ROOT, []
    while len(tree.children(node)):
        node = int(tree.children(node)[0])
        path.append(tree.keys[node])
    return path


def sent(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
