"""Who may ask the dashboard: checked before a request is read, so that no page of another site and no neighbour does.

A browser sends other sites' requests to this machine too, and may be made to believe that another name is this
machine's. So on this machine the name that was asked for must be this machine's, and the page that asks must be the
dashboard's own. Elsewhere whoever asks must have the token that the address in the terminal has.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Callable, Iterable, Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from memscope.units import MiB, format_bytes

MAX_BODY_BYTES = 96 * MiB
"""What a file of 64 MiB takes in a page's request."""
COOKIE = "memscope-token"
_PARAMETER = "token"
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's own alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


class Gate:
    """A WSGI application that lets requests through to another, or answers them itself.

    Parameters
    ----------
    application
        What is behind it.
    host
        The address that is listened on.
    token
        What whoever asks must have; None where nobody need have one.
    """

    def __init__(self, application: Application, host: str, token: str | None) -> None:
        self._application = application
        self._names = _LOCAL_NAMES | {host.lower()} if is_loopback(host) else None
        self._token = token

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, or have it answered."""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, *_HEADERS], *rest)

        refused = self._refused(environ)
        if refused is None:
            return _closed_at_end(self._application(environ, start))
        status, text, headers = refused
        body = f"{text}\n".encode()
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *headers])
        return [body]

    def _refused(self, environ: Environ) -> tuple[str, str, list[tuple[str, str]]] | None:
        """Status, words and headers of what is not let through."""
        asked = environ.get("HTTP_HOST", "")
        if self._names is not None and _name_of(asked) not in self._names:
            return "403 Forbidden", "this dashboard is asked for by another name than this machine's", []
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not _is_same_place(origin, asked):
            return "403 Forbidden", "a page of another site asked for this", []
        if environ.get("HTTP_SEC_FETCH_SITE") == "cross-site" and environ.get("REQUEST_METHOD") != "GET":
            return "403 Forbidden", "a page of another site asked for this", []
        if self._token is not None and not self._is_known(environ):
            return self._without_token(environ)
        return _too_large(environ)

    def _is_known(self, environ: Environ) -> bool:
        try:
            cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
        except CookieError:
            cookie = None
        header = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        return self._is_token(cookie.value if cookie is not None else header)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), str(self._token).encode())

    def _without_token(self, environ: Environ) -> tuple[str, str, list[tuple[str, str]]]:
        """The token in the address becomes a cookie, and goes out of the address."""
        asked = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        if any(name == _PARAMETER and self._is_token(value) for name, value in asked):
            rest = urlencode([pair for pair in asked if pair[0] != _PARAMETER])
            # Quoted, and with one slash before it: the place is never one of another site.
            place = "/" + quote(environ.get("PATH_INFO", "").lstrip("/\\")) + (f"?{rest}" if rest else "")
            cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            return "303 See Other", "this way", [("Location", place), ("Set-Cookie", cookie)]
        return "403 Forbidden", "open the address that memscope dash has written, which has a token", []


def _closed_at_end(body: Iterable[bytes]) -> Iterator[bytes]:
    """What is sent, closed with its last byte or with whoever asked: a server may never come to close it.

    (Werkzeug first reads what a browser has still to say, which fails where the browser is gone.)
    """
    try:
        yield from body
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; empty for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_same_place(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def _too_large(environ: Environ) -> tuple[str, str, list[tuple[str, str]]] | None:
    """Refuse a body by what is said of it, before any of it is read."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return "411 Length Required", "say how long the request is", [("Connection", "close")]
    said = environ.get("CONTENT_LENGTH") or "0"
    if not (said.isascii() and said.isdigit()):
        return "400 Bad Request", "a request has a length", [("Connection", "close")]
    if len(said) > 18 or int(said) > MAX_BODY_BYTES:
        limit = format_bytes(MAX_BODY_BYTES)
        return "413 Content Too Large", f"more than {limit} are not read", [("Connection", "close")]
    return None
