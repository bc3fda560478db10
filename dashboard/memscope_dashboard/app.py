"""The dashboard's app: made by a function, so that two of them can live in one process."""

from __future__ import annotations

import logging
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dash_mantine_components as dmc
import pandas as pd  # noqa: F401 - whole before any thread draws: plotly mistakes a half-imported one for it
from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from werkzeug.serving import WSGIRequestHandler, make_server

from memscope.errors import SeveralSnapshotsError, UsageError
from memscope.export.reading import Span
from memscope.figures.replay import CURVE_COLORS
from memscope.figures.theme import FONT_FAMILY, MONO_FAMILY, THEMES, Theme
from memscope_dashboard.components import header, inspector, navigation, scrubber
from memscope_dashboard.gate import Gate, is_loopback, new_token
from memscope_dashboard.posts import guard_posts
from memscope_dashboard.store import TraceStore
from memscope_dashboard.view import View
from memscope_dashboard.views import VIEWS

MANTINE_THEME: dict[str, Any] = {
    "fontFamily": FONT_FAMILY,
    "fontFamilyMonospace": MONO_FAMILY,
    "primaryColor": "gray",
    "primaryShade": {"light": 8, "dark": 3},
    "autoContrast": True,
    "defaultRadius": "sm",
    "fontSizes": {"xs": "12px", "sm": "14px", "md": "14px", "lg": "16px", "xl": "20px"},
    "cursorType": "pointer",
    "respectReducedMotion": True,
}
USUAL_PORT = 8050
_ASSETS = Path(__file__).parent / "assets"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>
<link rel="icon" type="image/svg+xml" href="/assets/icons/mark.svg">
{%css%}
<style>VARIABLES</style>
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""


def create_app(store: TraceStore, views: Sequence[View] = VIEWS) -> Dash:
    """Make an app that shows the traces of a store.

    Parameters
    ----------
    store
        The traces.
    views
        The views, in the order of the navigation; the first is where the app opens.
    """
    app = Dash(
        __name__,
        assets_folder=str(_ASSETS),
        title="memscope",
        update_title="",
        serve_locally=True,
        index_string=_PAGE.replace("VARIABLES", style_variables()),
        add_log_handler=False,
    )
    app.layout = page(store, views)
    app.validation_layout = html.Div([app.layout, *[view.layout() for view in views], html.Button(id="unpin")])
    for part in (header, navigation, scrubber, inspector):
        part.register(app, store)
    for view in views:
        view.register(app, store)
    _register_router(app, views)
    guard_posts(app)
    return app


def page(store: TraceStore, views: Sequence[View]) -> Component:
    """The page around the views."""
    shell = dmc.AppShell(
        [
            dmc.AppShellHeader(header.layout(store)),
            dmc.AppShellNavbar(navigation.layout(views)),
            dmc.AppShellMain(html.Main(id="view", className="main")),
            dmc.AppShellAside(inspector.layout()),
            dmc.AppShellFooter(scrubber.layout()),
        ],
        header={"height": 52},
        navbar={"width": {"base": 60, "lg": 192}, "breakpoint": 0},
        aside={"width": {"base": 264, "lg": 304}, "breakpoint": 0},
        footer={"height": 116},
        padding=0,
        transitionDuration=0,
    )
    names = ("moment", "subject", "bounds", "jump", "pin", "narrow", "scheme", "scrub-heard", "view-fields")
    stores = [dcc.Store(id=name) for name in names]
    return dmc.MantineProvider(
        [dcc.Location(id="url", refresh=False), *stores, dcc.Store(id="scheme-kept", storage_type="local"), shell],
        id="mantine",
        theme=MANTINE_THEME,
    )


def style_variables() -> str:
    """CSS that defines every colour of both themes."""
    return "\n".join(_variables(theme) for theme in THEMES.values())


def _variables(theme: Theme) -> str:
    names = ("ink", "muted", "faint", "grid", "surface", "band", "red", "amber")
    colors = {name: getattr(theme, name) for name in names}
    colors |= {f"row-{name}": color for name, color in theme.rows.items()}
    colors |= {f"curve-{position}": color for position, color in enumerate(CURVE_COLORS[theme.name])}
    body = "".join(f"--ms-{name}:{color};" for name, color in colors.items())
    return f':root[data-mantine-color-scheme="{theme.name}"]{{{body}}}'


def _register_router(app: Dash, views: Sequence[View]) -> None:
    by_name = {view.name: view for view in views}

    def route(path: str | None) -> Component:
        name = (path or "").strip("/")
        return by_name.get(name, views[0]).layout()

    app.callback(Output("view", "children"), Input("url", "pathname"))(route)


def serve(
    paths: Sequence[str | Path],
    host: str = "127.0.0.1",
    port: int | None = USUAL_PORT,
    open_browser: bool = True,
    rules: str | Path | None = None,
    asks_for_token: bool = False,
    span: Span | None = None,
) -> None:
    """Serve the dashboard until it is interrupted.

    Where others than this machine can reach it, whoever asks must have the token that the address written has.

    Parameters
    ----------
    port
        0 takes any free port, None the usual one or, where that is taken, any free; the address is written to stderr.
    rules
        A TOML file of the user's own category rules.
    asks_for_token
        Whether a token is needed on this machine, too.
    span
        The part of each trace that is shown; the whole if not given.

    Raises
    ------
    InputFileError
        If the rules cannot be read, or there is only one trace and it cannot; among several the page says so.
    UsageError
        If the address cannot be listened on.
    """
    store = _store_of(paths, rules, span)
    token = new_token() if asks_for_token or not is_loopback(host) else None
    server = _server(create_app(store), host, port, token)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104
    shown = f"[{shown}]" if ":" in shown else shown
    url = f"http://{shown}:{server.server_port}/" + ("" if token is None else f"?token={token}")
    sys.stderr.write(f"memscope: the dashboard is at {url} (Ctrl+C ends it)\n")
    sys.stderr.flush()
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    finally:
        server.server_close()
        store.close()


def _store_of(paths: Sequence[str | Path], rules: str | Path | None, span: Span | None) -> TraceStore:
    """The traces to serve: of a single file, that can be read, or the several snapshots that it holds."""
    store = TraceStore(paths, rules=rules, span=span)
    if len(store.trace_ids) == 1:
        try:
            store.open(store.trace_ids[0])
        except SeveralSnapshotsError as several:
            return TraceStore(several.paths, rules=rules, span=span)
    return store


class _Handler(WSGIRequestHandler):
    """Handles a connection; one that says nothing for so long is closed, and ends its thread."""

    timeout = 60


def _server(app: Dash, host: str, port: int | None, token: str | None = None) -> Any:
    if port is None:
        try:
            return _server(app, host, USUAL_PORT, token)
        except UsageError:
            port = 0
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    try:
        gate = Gate(app.server, host, token)
        return make_server(host, port, gate, threaded=True, request_handler=_Handler)
    except (OSError, SystemExit) as error:
        raise UsageError(f"cannot listen on {host}:{port}: choose another port, or 0 for any free one") from error
