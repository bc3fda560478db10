"""What pages send, checked before it reaches a view: anything may come, and none of it is a failure of the server."""

from __future__ import annotations

import logging
import os
from typing import Any

from dash import Dash
from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException

from memscope.words.labels import printable

_LOG = logging.getLogger(__name__)
_UPDATE = "/_dash-update-component"
_MOST_CHANGED = 1000
_LONGEST_TEXT = 300


class _MalformedError(ValueError):
    """A request that no page of the dashboard sends."""


def guard_posts(app: Dash) -> None:
    """Have an app answer requests that cannot be answered with 400, and say so in one line of the log."""
    server = app.server

    def check() -> Response | None:
        if request.path != _UPDATE:
            return None
        try:
            _check_update(app, request.get_json(force=True))
        except (_MalformedError, RecursionError, UnicodeError) as error:
            return _bad(str(error))
        return None

    def refuse(error: Exception) -> Any:
        if isinstance(error, HTTPException):
            return error
        if os.environ.get("MEMSCOPE_DEBUG"):
            _LOG.exception("a request could not be answered")
        else:
            said = printable(f"{type(error).__name__}: {error}", _LONGEST_TEXT)
            _LOG.warning("a request could not be answered: %s", said)
        return _bad("this request cannot be answered")

    server.before_request(check)
    server.register_error_handler(Exception, refuse)


def _bad(text: str) -> Response:
    response = jsonify(error=printable(text, _LONGEST_TEXT))
    response.status_code = 400
    return response


def _check_update(app: Dash, body: Any) -> None:
    """Check that a request is of the form in which a page asks for an update.

    Raises
    ------
    _MalformedError
        If it is not.
    """
    if not isinstance(body, dict):
        raise _MalformedError("an update is an object")
    output = body.get("output")
    if not isinstance(output, str) or output not in app.callback_map:
        raise _MalformedError("there is no such output")
    for name in ("inputs", "state"):
        entries = body.get(name, [])
        if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
            raise _MalformedError(f"its {name} are none of a page's")
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or len(changed) > _MOST_CHANGED or not all(isinstance(c, str) for c in changed):
        raise _MalformedError("its changedPropIds are none of a page's")
    if not isinstance(body.get("outputs", []), dict | list):
        raise _MalformedError("its outputs are none of a page's")


def _is_entry(entry: Any) -> bool:
    """A component's property, or a list of those where an id is a pattern."""
    if isinstance(entry, list):
        return all(isinstance(one, dict) and _is_entry(one) for one in entry)
    return (
        isinstance(entry, dict) and isinstance(entry.get("id"), str | dict) and isinstance(entry.get("property"), str)
    )
