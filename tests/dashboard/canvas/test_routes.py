"""The addresses behind the canvas: bytes and JSON for what exists, one line for what does not."""

from __future__ import annotations

import pytest
from dash import Dash
from memscope_dashboard.canvas.allocations import packed_allocations
from memscope_dashboard.store import TraceStore


def test_the_answers_are_those_of_the_device(app: Dash, store: TraceStore) -> None:
    client, device = app.server.test_client(), store.analysis("train.memscope").device()
    run = client.get("/canvas/run?trace=train.memscope&device=0").get_json()
    assert run["n_allocations"] == len(device.allocations)
    answer = client.get(f"/canvas/allocations?trace=train.memscope&device=0&low=0&high={device.n_events}")
    assert answer.status_code == 200
    assert answer.data == packed_allocations(device, 0, device.n_events)
    assert client.get("/canvas/series?trace=train.memscope&device=0&low=0&high=9").status_code == 200


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("allocations?trace=nothing&device=0&low=0&high=1", "no trace is called 'nothing'"),
        ("allocations?trace=train.memscope&device=7&low=0&high=1", "device 7"),
        ("allocations?trace=train.memscope&low=0&high=1", "no device is named"),
        ("allocations?trace=train.memscope&device=x&low=0&high=1", "no device is named"),
        ("allocations?trace=train.memscope&device=0&low=5&high=1", "a range from 5 to 1"),
        ("allocations?trace=train.memscope&device=0&low=0&high=99999999", "moments are 0 to"),
        ("series?trace=train.memscope&device=0&low=-1&high=1", "a range from -1 to 1"),
        ("series?trace=train.memscope&device=0", "a range from None to None"),
    ],
)
def test_what_does_not_exist_is_said_in_a_line(app: Dash, query: str, words: str) -> None:
    answer = app.server.test_client().get(f"/canvas/{query}")
    assert answer.status_code == 400
    assert words in answer.get_json()["error"]
