"""Who may ask: no page of another site, nobody without a token elsewhere, and nothing too large is read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from memscope_dashboard.gate import COOKIE, MAX_BODY_BYTES, Gate, is_loopback, new_token


class Answer:
    """What came back."""

    def __init__(self, gate: Gate, **environ: Any) -> None:
        self.status, self.headers = "", {}

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            self.status, self.headers = status, dict(headers)

        asked = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", "wsgi.input": io.BytesIO(), **environ}
        self.body = b"".join(gate(asked, start))

    @property
    def code(self) -> int:
        return int(self.status[:3])


def behind(_environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"inside"]


class Body:
    """Parts of an answer, and whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"one", b"two")

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_sent_is_closed_with_whoever_sends_it(parts: int) -> None:
    body = Body()
    sent = iter(Gate(lambda _environ, _start: body, "127.0.0.1", None)(HOME, print))
    for _ in range(parts):
        next(sent)
    assert not body.is_closed
    del sent
    assert body.is_closed


LOCAL = Gate(behind, "127.0.0.1", None)
HOME = {"HTTP_HOST": "127.0.0.1:8050"}


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:8050", "[::1]:8050", "LOCALHOST", "127.0.0.1"])
def test_this_machine_is_let_in_by_its_names(host: str) -> None:
    answer = Answer(LOCAL, HTTP_HOST=host)
    assert (answer.code, answer.body) == (200, b"inside")
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8050", "", "[::1", "localhost@evil.example"])
def test_another_name_for_this_machine_is_not(host: str) -> None:
    assert Answer(LOCAL, HTTP_HOST=host).code == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8050", "http://[::1"]
)
def test_a_page_of_another_site_is_not(origin: str) -> None:
    answer = Answer(LOCAL, **HOME, HTTP_ORIGIN=origin, REQUEST_METHOD="POST")
    assert answer.code == 403
    assert b"another site" in answer.body
    assert Answer(LOCAL, **HOME, REQUEST_METHOD="POST", HTTP_SEC_FETCH_SITE="cross-site").code == 403


def test_the_dashboards_own_page_is() -> None:
    own = {**HOME, "HTTP_ORIGIN": "http://127.0.0.1:8050", "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "10"}
    assert Answer(LOCAL, **own).code == 200
    assert Answer(LOCAL, **HOME, HTTP_SEC_FETCH_SITE="cross-site").code == 200  # a link to it


def test_elsewhere_a_token_is_needed_and_becomes_a_cookie() -> None:
    token = new_token()
    gate = Gate(behind, "0.0.0.0", token)
    host = {"HTTP_HOST": "node7:8050"}
    for without in ({}, {"QUERY_STRING": "token=x"}, {"HTTP_COOKIE": f"{COOKIE}="}, {"HTTP_COOKIE": "\0;=;"}):
        assert Answer(gate, **host, **without).code == 403
    entered = Answer(gate, **host, PATH_INFO="//evil.example/x", QUERY_STRING=f"trace=a&token={token}")
    assert entered.code == 303
    assert entered.headers["Location"] == "/evil.example/x?trace=a"
    assert "HttpOnly" in entered.headers["Set-Cookie"]
    assert "SameSite=Strict" in entered.headers["Set-Cookie"]
    cookie = entered.headers["Set-Cookie"].split(";")[0]
    assert Answer(gate, **host, HTTP_COOKIE=cookie).code == 200
    assert Answer(gate, **host, HTTP_AUTHORIZATION=f"Bearer {token}").code == 200
    assert Answer(gate, **host, HTTP_COOKIE=cookie, HTTP_ORIGIN="http://other", REQUEST_METHOD="POST").code == 403


def test_what_is_too_large_or_without_a_length_is_refused_unread() -> None:
    for environ, code in (
        ({"CONTENT_LENGTH": str(MAX_BODY_BYTES)}, 200),
        ({"CONTENT_LENGTH": str(MAX_BODY_BYTES + 1)}, 413),
        ({"CONTENT_LENGTH": "9" * 5000}, 413),
        ({"CONTENT_LENGTH": "-1"}, 400),
        ({"CONTENT_LENGTH": "x"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
    ):
        body = io.BytesIO(b"x" * 100)
        answer = Answer(LOCAL, **HOME, REQUEST_METHOD="POST", **{"wsgi.input": body}, **environ)
        assert answer.code == code
        assert body.tell() == 0


def test_addresses_of_this_machine_alone_are_told_from_others() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "", "10.0.0.1", "node7"))
