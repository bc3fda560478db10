"""``memscope dash``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import rules_option, span_options
from memscope.errors import MissingDependencyError, needed_for

if TYPE_CHECKING:
    from memscope.export.reading import Span


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRACE...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8050, show_default=True, help="0 takes any free port.")
@click.option("--open/--no-open", "open_browser", default=True, help="Open a browser window. [default: open]")
@click.option("--token", is_flag=True, help="Ask for a token, as is always done where others can reach the address.")
@span_options
@rules_option
def dash(
    traces: tuple[Path, ...],
    host: str,
    port: int,
    open_browser: bool,
    token: bool,
    steps: str | None,
    events: str | None,
    rules: Path | None,
) -> None:
    """Open the dashboard on one trace or several."""
    from memscope.export.reading import parse_span

    span = parse_span(steps, events)
    serve_traces(traces, host=host, port=port, open_browser=open_browser, token=token, rules=rules, span=span)


def serve_traces(
    traces: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = True,
    token: bool = False,
    rules: Path | None = None,
    span: Span | None = None,
) -> None:
    """Serve the dashboard until it is interrupted; without a port, on the usual one or, if that is taken, any free."""
    require_dashboard()
    with needed_for("the dashboard", "dash"):
        serve = import_module("memscope_dashboard.app").serve
    serve(list(traces), host=host, port=port, open_browser=open_browser, rules=rules, asks_for_token=token, span=span)


def require_dashboard() -> None:
    """Refuse before long work whose result could not be shown, without importing anything.

    Raises
    ------
    MissingDependencyError
        If a package is not installed.
    """
    missing = next((name for name in ("dash", "plotly") if find_spec(name) is None), None)
    if missing is not None:
        raise MissingDependencyError(missing, "dash", "the dashboard")
