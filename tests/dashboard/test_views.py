"""Views without a browser: computed, updated, wired, and asked over HTTP."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import plotly.graph_objects as go
import pytest
from dash import Dash
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate
from memscope_dashboard.app import create_app
from memscope_dashboard.boundary import guarded
from memscope_dashboard.components import run_graph
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import VIEWS, address_map, overview, timeline

from memscope.errors import UsageError
from memscope.units import format_bytes
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.test_navigation import text_of
from tests.oracles import BAD, REAL, needs_shared


def moment_data(store: TraceStore, trace_id: str = "train.memscope") -> dict[str, Any]:
    return Query(trace_id).resolved(store).data()


def subject_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"trace": data["trace"], "device": data["device"]}


def post(app: Dash, output: str, values: dict[str, Any]) -> tuple[int, dict[str, Any], int]:
    """Ask the app for the callback that has an output; status, response, and its size in bytes."""
    (key,) = [key for key in app.callback_map if output in key.strip(".").split("...")]
    callback = app.callback_map[key]
    outputs = [dict(zip(("id", "property"), part.rsplit(".", 1), strict=True)) for part in key.strip(".").split("...")]

    def filled(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [part | {"value": values.get(f"{part['id']}.{part['property']}")} for part in parts]

    body = {
        "output": key,
        "outputs": outputs if key.startswith("..") else outputs[0],
        "inputs": filled(callback["inputs"]),
        "state": filled(callback["state"]),
        "changedPropIds": [f"{callback['inputs'][0]['id']}.{callback['inputs'][0]['property']}"],
    }
    response = app.server.test_client().post("/_dash-update-component", json=body)
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


FIRST_OUTPUT = {view.name: f"{view.name}-title.children" for view in VIEWS}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_one_request_fills_a_view_in_less_than_a_megabyte(app: Dash, store: TraceStore, view: Any) -> None:
    status, answer, n_bytes = post(app, FIRST_OUTPUT[view.name], page_values(moment_data(store)))
    assert status == 200
    assert n_bytes < 1_000_000
    found = answer["response"]
    assert found[f"{view.name}-title"]["children"]
    assert found[f"{view.name}-problem"]["children"] is None
    assert found[f"{view.name}-panel"]["className"] == "view-panel"


@needs_shared
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_real_trace_answers_fast_and_small(view: Any) -> None:
    store = TraceStore([REAL / "lm-train-torch2.6.pickle.gz"])
    app = create_app(store)
    data = moment_data(store, store.trace_ids[0])
    post(app, FIRST_OUTPUT[view.name], page_values(data))
    begin = time.perf_counter()
    status, _, n_bytes = post(app, FIRST_OUTPUT[view.name], page_values(data | {"event": data["event"] - 7}))
    seconds = time.perf_counter() - begin
    store.close(WAIT_S)
    assert status == 200
    assert n_bytes < 1_000_000
    assert seconds < 1, f"{seconds:.3f} s"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_trace_that_cannot_be_shown_says_why_in_every_view(app: Dash, view: Any) -> None:
    data = {"trace": "<b>gone</b>", "device": None, "event": None}
    _, answer, _ = post(app, FIRST_OUTPUT[view.name], page_values(data))
    found = answer["response"]
    assert "no trace is called" in json.dumps(found[f"{view.name}-problem"])
    assert "hidden" in found[f"{view.name}-panel"]["className"]
    assert f"{view.name}-title" not in found


@needs_shared
@pytest.mark.parametrize("name", ["double-free.pickle", "truncated.pickle", "malicious-reduce.pickle"])
def test_bad_files_are_explained(name: str) -> None:
    store = TraceStore([BAD / name])
    app = create_app(store)
    data = {"trace": name, "device": None, "event": None}
    _, answer, _ = post(app, FIRST_OUTPUT["overview"], page_values(data))
    assert name in json.dumps(answer["response"]["overview-problem"])


def ids_of(component: Any) -> list[str]:
    parts = [component, *component._traverse()] if isinstance(component, Component) else []
    return [part.id for part in parts if isinstance(getattr(part, "id", None), str)]


def test_ids_are_unique_and_every_wire_ends_at_one(app: Dash) -> None:
    known = Counter(ids_of(app.validation_layout))
    assert [name for name, n in known.items() if n > 1] == []
    wired = {
        part["id"]
        for callback in app.callback_map.values()
        for part in [*callback["inputs"], *callback["state"]]
        if not str(part["id"]).startswith("{")
    }
    for key in app.callback_map:
        ends = (part.rsplit(".", 1)[0] for part in key.strip(".").split("..."))
        wired |= {end for end in ends if not end.startswith("{")}
    assert wired - set(known) == set()


def test_two_apps_live_in_one_process(store: TraceStore) -> None:
    one, other = create_app(store), create_app(store, VIEWS[:1])
    assert one is not other
    assert post(other, FIRST_OUTPUT["overview"], page_values(moment_data(store)))[0] == 200
    assert not any("timeline" in key for key in other.callback_map)
    assert any("timeline" in key for key in one.callback_map)


def test_importing_the_package_wires_nothing() -> None:
    from dash._callback import GLOBAL_CALLBACK_LIST

    assert GLOBAL_CALLBACK_LIST == []


def test_the_page_asks_nobody_else(app: Dash) -> None:
    client = app.server.test_client()
    texts = []
    for address in ("/", "/assets/tokens.css", "/assets/memscope.js"):
        with client.get(address) as response:
            assert response.status_code == 200
            texts.append(response.get_data(as_text=True))
    for text in texts:
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text


def test_overview_shows_the_ledger_of_the_library(store: TraceStore) -> None:
    data = moment_data(store)
    title, _, tiles, figure, ledger, *_ = overview.update(store, data, "light")
    moment = Query.from_data(data).moment(store)
    assert f"Peak {format_bytes(moment.allocated_bytes)} at" in text_of(title)
    words = text_of(ledger)
    for row in moment.ledger.rows:
        if row.bytes:
            assert format_bytes(row.bytes) in words
    assert isinstance(figure, go.Figure)
    assert format_bytes(64 * 2**20) in text_of(tiles)


def test_overview_says_not_measured(store: TraceStore) -> None:
    tiles = overview.update(store, moment_data(store, "other.memscope"), "light")[2]
    assert "not measured" in text_of(tiles)


def test_views_wait_for_the_scheme(store: TraceStore) -> None:
    with pytest.raises(PreventUpdate):
        overview.update(store, moment_data(store), None)


def test_timeline_zooms_into_the_window_of_its_own_trace_only(store: TraceStore) -> None:
    data = moment_data(store)
    window = {"axis": "event", "trace": "train.memscope", "device": 0, "low": 10.0, "high": 20.0}
    whole = timeline.update(store, subject_of(data), "light", "event", None, data)[2]
    zoomed = timeline.update(store, subject_of(data), "light", "event", window, data)[2]
    foreign = timeline.update(store, subject_of(data), "light", "event", window | {"trace": "x"}, data)[2]
    assert list(zoomed.layout.xaxis.range) == [10, 20]
    assert len(zoomed.data[0].x) < len(whole.data[0].x) == len(foreign.data[0].x)


def test_what_plotly_reports_becomes_a_window(store: TraceStore) -> None:
    data = moment_data(store)
    found = run_graph.visible_window({"xaxis.range[0]": 3, "xaxis.range[1]": 9.5}, "event", data)
    assert (found["low"], found["high"]) == (3.0, 9.5)
    assert run_graph.visible_window({"xaxis.autorange": True}, "event", data) is None


@pytest.mark.parametrize(("axis", "x", "event"), [("event", 33.4, 33), ("event", -1, -1), ("time", 0.0101, 10)])
def test_a_click_on_the_timeline_chooses_the_event_before_it(
    store: TraceStore, axis: str, x: float, event: int
) -> None:
    assert run_graph.clicked_event(store, {"points": [{"x": x}]}, axis, moment_data(store)) == {"event": event}


def test_map_pins_the_block_that_was_clicked(store: TraceStore) -> None:
    data = moment_data(store)
    row = int(Query.from_data(data).moment(store).rows[0])
    pin = address_map.clicked_row({"points": [{"customdata": row}]}, data)
    assert pin == {"trace": "train.memscope", "device": 0, "row": row}
    plain = address_map.update(store, data, "dark", None)[3]
    pinned = address_map.update(store, data, "dark", pin)[3]
    assert len(pinned.layout.shapes) > len(plain.layout.shapes)


def test_free_memory_cannot_be_pinned(store: TraceStore) -> None:
    from dash import no_update

    assert address_map.clicked_row({"points": [{"customdata": -1}]}, moment_data(store)) is no_update
    assert address_map.clicked_row(None, moment_data(store)) is no_update


def test_the_boundary_tells_a_users_error_from_a_defect() -> None:
    def users(_: Any) -> list[Any]:
        raise UsageError("no such thing: choose another")

    def defect(_: Any) -> list[Any]:
        return [1 // 0]

    *_, panel, class_name = guarded(users, 1)(None)
    assert "no such thing: choose another" in text_of(panel)
    assert class_name == "view-panel hidden"
    *_, panel, _ = guarded(defect, 1)(None)
    assert "a defect in memscope" in text_of(panel)
    assert guarded(lambda x: [x], 1)(5) == [5, None, "view-panel"]
