"""The one place where errors become something to read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from dash import Dash, Input, Output, State, html, no_update
from dash.exceptions import PreventUpdate

from memscope.errors import MemscopeError

_LOG = logging.getLogger(__name__)


def view_frame(name: str, *children: Any) -> html.Div:
    """A view's outermost part: a place for a problem, and the panel that a problem replaces."""
    return html.Div(
        [html.Div(id=f"{name}-problem"), html.Div(list(children), id=f"{name}-panel", className="view-panel waiting")],
        className="view",
    )


def problem_panel(title: str, text: str) -> html.Div:
    """A message in place of a view."""
    return html.Div([html.H2(title), html.P(text, className="problem-text")], className="panel problem", role="alert")


def guarded(update: Callable[..., Sequence[Any]], n_outputs: int) -> Callable[..., list[Any]]:
    """Wrap a view's update: its outputs, then the problem's panel and the class of the view's own.

    A :class:`MemscopeError` is said in its own words. Anything else is a defect: it is logged with its traceback, and
    the user is told where to find it.
    """

    @wraps(update)
    def answer(*args: Any) -> list[Any]:
        try:
            return [*update(*args), None, "view-panel"]
        except PreventUpdate:
            raise
        except MemscopeError as error:
            panel = problem_panel("This cannot be shown", str(error))
        except Exception as error:  # noqa: BLE001 - this is the boundary
            _LOG.exception("a view failed")
            text = f"{type(error).__name__}: {error} — a defect in memscope; the terminal has the traceback"
            panel = problem_panel("memscope failed", text)
        return [*[no_update] * n_outputs, panel, "view-panel hidden"]

    return answer


def what_triggered(triggered: Sequence[Mapping[str, Any]], buttons: Sequence[str]) -> str | None:
    """Id of what a callback answers: a button that was clicked, else what came first; None where nothing was used.

    The browser sends what happens while it waits for an answer as one request: a click that comes with a clock's tick
    must not be taken for the tick.

    Parameters
    ----------
    triggered
        ``dash.ctx.triggered``.
    buttons
        Ids of buttons, whose values count their clicks: a button that has just appeared has none.
    """
    ids = {str(one["prop_id"]).rsplit(".", 1)[0]: one["value"] for one in triggered}
    clicked = next((button for button in buttons if ids.get(button)), None)
    return clicked or next((one for one in ids if one and one not in buttons), None)


def register_update(
    app: Dash,
    view: str,
    update: Callable[..., Sequence[Any]],
    outputs: Sequence[Output],
    inputs: Sequence[Input | State],
    **options: Any,
) -> None:
    """Register a view's main callback inside the boundary."""
    ends = [Output(f"{view}-problem", "children"), Output(f"{view}-panel", "className")]
    app.callback([*outputs, *ends], list(inputs), **options)(guarded(update, len(outputs)))
