"""Whatever a request holds, the server answers it, and never with a failure of its own."""

from __future__ import annotations

import logging

import pytest
from dash import Dash

from tests.dashboard.hostile_posts import hostile_posts

UPDATE = "/_dash-update-component"


def answers(app: Dash, n_posts: int, seed: int) -> list[int]:
    """The status of each answer."""
    client = app.server.test_client()
    return [
        client.post(UPDATE, data=body, content_type="application/json").status_code
        for body in hostile_posts(app, n_posts, seed)
    ]


def test_hostile_posts_are_answered_and_none_is_a_failure_of_the_server(
    app: Dash, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        statuses = answers(app, 150, seed=2)
    assert set(statuses) <= {200, 204, 400}
    assert statuses.count(200) + statuses.count(204) > 30, "too few reached a view"
    for record in caplog.records:
        if record.name == "memscope_dashboard.posts":
            assert record.getMessage().isprintable()


@pytest.mark.slow
def test_a_thousand_hostile_posts_are_answered(app: Dash) -> None:
    assert set(answers(app, 1000, seed=1)) <= {200, 204, 400}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "an update is an object"),
        (b"{}", "there is no such output"),
        (b'{"output": "none.children"}', "there is no such output"),
        (b'{"output": "view.children", "inputs": [1]}', "its inputs are none of a page's"),
        (b'{"output": "view.children", "inputs": [], "state": {}}', "its state are none of a page's"),
        (b'{"output": "view.children", "inputs": [], "changedPropIds": [1]}', "changedPropIds"),
        (b'{"output": "view.children", "inputs": [], "outputs": 1}', "its outputs are none of a page's"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(app: Dash, body: bytes, reason: str) -> None:
    answer = app.server.test_client().post(UPDATE, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert reason in answer.get_json()["error"]


def test_what_is_not_there_is_not_there(app: Dash) -> None:
    client = app.server.test_client()
    assert client.get("/assets/../../etc/passwd").status_code in (200, 404)
    assert b"root:" not in client.get("/assets/%2e%2e/%2e%2e/etc/passwd").data
    assert client.delete("/").status_code == 405
