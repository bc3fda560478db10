"""Every view without a browser: wired, and asked over HTTP."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import VIEWS

from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import ids_of, moment_data, page_values, post
from tests.oracles import BAD, REAL, needs_shared

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


RMM_LOG = """Thread,Time,Action,Pointer,Size,Stream
1,15:47:02.841961,allocate,0x10012400000,1048576,0
1,15:47:02.841977,allocate,0x10012500000,2097153,0x7f8a38001020
2,15:47:02.841990,free,0x10012400000,1048576,0
2,15:47:02.842990,allocate failure,0x0,1099511627776,0
1,15:47:02.851961,allocate,0x10012400000,1000,0
"""


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_log_of_requests_alone_has_no_view_that_fails(tmp_path: Path, view: Any) -> None:
    path = tmp_path / "rmm.csv"
    path.write_text(RMM_LOG)
    store = TraceStore([path])
    app = create_app(store)
    status, answer, _ = post(app, FIRST_OUTPUT[view.name], page_values(moment_data(store, store.trace_ids[0])))
    store.close(WAIT_S)
    assert status == 200
    assert answer["response"][f"{view.name}-problem"]["children"] is None


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
