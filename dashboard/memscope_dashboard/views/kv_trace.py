"""The key/value cache of the open trace: what it holds over the run, by layer and cache, and what its growth cost."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from memscope.device.device import Device
from memscope.errors import MemscopeError
from memscope.figures.kv_cache import MAX_LAYERS_DRAWN, cache_figure, color_of, layers_figure
from memscope.figures.theme import Theme, theme_named
from memscope.kv_cache.alternatives import SUMMARIES, GrowthReplay, replay_without_copies
from memscope.kv_cache.lens import CacheSummary, KvLens, KvRow
from memscope.kv_cache.series import SPLITS
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count
from memscope.words.kv_cache import LABELS, MEANINGS, N_POOLS, cache_finding, growth_verdict, kinds_words, pool_words
from memscope.words.labels import NOT_MEASURED, sentence
from memscope_dashboard.board import IDLE, Board
from memscope_dashboard.boundary import register_update
from memscope_dashboard.components.run_graph import draw_run, register_run_graph, run_controls, run_graph, run_note
from memscope_dashboard.components.text import finding, picture, section, size, view_heading
from memscope_dashboard.jobs import Jobs, Progress
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

N_CACHES = 40
_WORDS = ("kept by",)
"""Columns of words, which stand at the left."""
_TICK_MS = 400
_PATIENCE_S = 0.15
_NO_CACHE = (
    "Caches of Hugging Face models are found by themselves where memscope records; those of other programs by stack, "
    'by memscope.register_kv_cache, or by memscope.tag("kv_cache").'
)
_GROUPS = (("layer", "layers"), ("cache", "caches"))


class KvLensBoard:
    """The replays with and without the copies.

    Parameters
    ----------
    lens
        The cache.
    jobs
        Where the replays run.
    """

    def __init__(self, lens: KvLens, jobs: Jobs) -> None:
        self._lens = lens
        self._board: Board[None, GrowthReplay | None] = Board(jobs)

    @property
    def replay(self) -> GrowthReplay | None:
        """What the replays found; None before that, and where there was nothing to replay."""
        return self._board.answer(None)

    def begin(self) -> Progress:
        """Begin the replays, unless they were begun or nothing grew; how far they are."""
        if not len(self._lens.growth):
            return IDLE
        return self._board.ask(None, lambda report: replay_without_copies(self._lens, report))

    def wait(self, timeout_s: float) -> Progress:
        """Wait a little for the end, so that short replays need no second question."""
        self.begin()
        return self._board.wait(None, timeout_s)

    def close(self) -> None:
        """End what waits or runs."""
        self._board.close()


def split_chips(row: KvRow, theme: Theme) -> list[Component]:
    """What the cache's bytes are at a moment: colour, name and size of each part."""
    return [
        html.Span(
            [
                html.Span(className="swatch", style={"background": color_of(name, theme)}),
                html.Span(LABELS[name], className="chip-name"),
                size(getattr(row, name)),
            ],
            className="chip",
            title=MEANINGS[name],
        )
        for name in SPLITS
        if getattr(row, name)
    ]


def _table(headings: tuple[tuple[str, str], ...], rows: list[list[Any]]) -> Component:
    """A small table: the first column names, the others are numbers; headings have what they mean on hover."""
    heads = [html.Th(name, title=meaning, className=_class(i, headings)) for i, (name, meaning) in enumerate(headings)]
    head = html.Thead(html.Tr(heads))
    body = [html.Tr([html.Td(cell, className=_class(i, headings)) for i, cell in enumerate(cells)]) for cells in rows]
    return html.Table([head, html.Tbody(body)], className="small-table kv-lens-table")


def _class(position: int, headings: tuple[tuple[str, str], ...]) -> str:
    return "" if position == 0 or headings[position][0] in _WORDS else "num"


def caches_table(lens: KvLens) -> Component:
    """The caches that were told apart, largest first."""
    caches = sorted(lens.caches, key=lambda cache: -cache.peak_bytes)
    if not caches:
        return html.P(
            "Which cache a tensor belongs to was not recorded. memscope tells the caches of Hugging Face models apart "
            "where it records them itself.",
            className="quiet small",
        )
    headings = (
        ("cache", "numbered in the order in which they were first seen: one for each generate()"),
        ("kept by", "the classes of its layers"),
        ("sequences", "of its batch, or beams"),
        ("tokens", "of each sequence, at its end"),
        ("room", "tokens of each sequence that were allocated"),
        ("a token", "bytes of one token of one sequence in all layers on this device"),
        ("peak", "most bytes of blocks at once"),
    )
    table = _table(headings, [_cache_cells(cache) for cache in caches[:N_CACHES]])
    if len(caches) <= N_CACHES:
        return table
    more = html.P(f"{format_count(len(caches) - N_CACHES)} smaller ones are not shown.", className="quiet small")
    return html.Div([table, more])


def _cache_cells(cache: CacheSummary) -> list[Any]:
    return [
        str(cache.cache_id),
        html.Span(kinds_words(cache), className="quiet"),
        _count(cache.n_sequences),
        _count(cache.n_tokens),
        "grows" if cache.capacity_tokens is None and cache.kinds else _count(cache.capacity_tokens),
        size(cache.bytes_per_token),
        size(cache.peak_bytes),
    ]


def _count(n: int | None) -> Any:
    return html.Span(NOT_MEASURED, className="not-measured") if n is None else format_count(n)


def pools_words(pools: tuple[KvRow, ...]) -> list[Component]:
    """Each pool in a line."""
    lines = [f"{pool_words(row)}. What they hold only their owner knows." for row in pools[:N_POOLS]]
    if len(pools) > N_POOLS:
        lines.append(f"{format_count(len(pools) - N_POOLS)} smaller ones are not shown.")
    return [html.P(line, className="small") for line in lines]


def growth_title(lens: KvLens, replay: GrowthReplay | None, progress: Progress) -> str:
    """What growing by copying did and cost."""
    cost = lens.cost
    if not cost.n_copies:
        return "Nothing grew by copying"
    did = f"It grows by copying: {format_count(cost.n_copies)} copies moved {format_bytes(cost.moved_bytes)}"
    if progress.is_active:
        return f"{did}; replaying without them, {progress.n_done} of {max(progress.n_all, 3)}…"
    if progress.state == "failed":
        return f"{did}; the replay failed: {progress.problem}"
    return f"{did}; {growth_verdict(replay)}"


def growth_table(lens: KvLens, replay: GrowthReplay | None) -> list[Component]:
    """The replays side by side."""
    if not lens.cost.n_copies:
        return []
    beside = html.P(
        ["Old tensors beside their replacements: ", size(lens.cost.copy_peak_bytes), " at most."], className="small"
    )
    if replay is None:
        return [beside]
    headings = (
        ("the same requests, the cache", ""),
        ("peak reserved", "most bytes of segments at once"),
        ("saved", "against the replay as recorded"),
        ("peak allocated", "most bytes of blocks in use at once"),
        ("free at the peak", "reserved and not in use at the peak of reserved memory"),
    )
    first = replay.alternatives[0]
    rows: list[list[Any]] = []
    for one in replay.alternatives:
        saved = replay.saved_bytes(one)
        rows.append(
            [
                html.Span(one.name, title=SUMMARIES[one.name]),
                "out of memory" if one.result.oom is not None else size(one.result.peak_reserved_bytes),
                "" if saved is None or one is first else _signed(saved),
                size(one.peak_allocated_bytes),
                size(one.free_at_peak_bytes),
            ]
        )
    notes = [f"{name}: {meaning}." for name, meaning in SUMMARIES.items()]
    notes.append(f"Replayed in PyTorch's allocator under the recorded settings: {first.result.exactness}.")
    quiet = [
        html.P(text, className="quiet small") for text in (*notes, *(f"{sentence(note)}." for note in replay.notes))
    ]
    return [_table(headings, rows), html.Div([beside, *quiet], className="kv-notes")]


def _signed(saved: int) -> Any:
    return html.Span(f"−{format_bytes(-saved)}") if saved < 0 else size(saved)


def layout() -> Component:
    """Components and ids only."""
    choice = dmc.SegmentedControl(
        id="kvlens-group", data=[{"value": v, "label": text} for v, text in _GROUPS], value="layer", size="xs"
    )
    layers = html.Section(
        [html.Div([html.H2(id="kvlens-layers-title"), choice], className="panel-head"), picture("kvlens-layers")],
        className="panel",
    )
    return html.Div(
        [
            html.Div(id="kvlens-problem"),
            html.Div(
                [
                    view_heading("kvlens-title", "kvlens-note", run_controls("kvlens")),
                    html.Div(
                        [
                            html.Div(id="kvlens-chips", className="chips"),
                            *run_graph("kvlens"),
                            html.Section(
                                [html.H2(id="kvlens-growth-title"), html.Div(id="kvlens-growth")], className="panel"
                            ),
                            html.Div(
                                [
                                    section(
                                        "Caches of the whole run",
                                        html.Div(id="kvlens-caches"),
                                        html.Div(id="kvlens-pools"),
                                    ),
                                    layers,
                                ],
                                className="columns",
                            ),
                        ],
                        id="kvlens-body",
                        className="panel-stack hidden",
                    ),
                    dcc.Interval(id="kvlens-tick", interval=_TICK_MS, disabled=True),
                ],
                id="kvlens-panel",
                className="view-panel waiting",
            ),
        ]
    )


def update(store: TraceStore, data: dict[str, Any] | None, scheme: str | None, axis: str, group: str) -> list[Any]:
    """Everything about a moment but the picture over the run and what growing cost."""
    if data is None or scheme is None:
        raise PreventUpdate
    query, theme = Query.from_data(data), theme_named(scheme)
    try:
        query.analysis(store)
    except MemscopeError as error:
        raise PreventUpdate from error  # the view that this is a part of says so
    moment = query.moment(store)
    lens = query.opinions(store).kv_lens
    if not lens:
        return [cache_finding(lens, moment.event), _NO_CACHE, *[no_update] * 5, "panel-stack hidden"]
    rows = lens.by_layer(moment.event) if group == "layer" else lens.by_cache(moment.event)
    more = "" if len(rows) <= MAX_LAYERS_DRAWN else f", the first {MAX_LAYERS_DRAWN}"
    note = run_note(moment.device, axis)
    if not moment.lifetimes.n_events:
        note = "No events were recorded: only the state at the end is known."
    return [
        finding(cache_finding(lens, moment.event)),
        note,
        split_chips(lens.total_at(moment.event), theme),
        f"{_title(rows, group)} at this moment{more}",
        layers_figure(rows, theme),
        caches_table(lens),
        pools_words(lens.pools_at(moment.event)),
        "panel-stack",
    ]


def _title(rows: tuple[Any, ...], group: str) -> str:
    n = len([row for row in rows if row.key != NONE_ID])
    return f"{format_count(n)} {group}{'' if n == 1 else 's'}" if n else f"The {group}s"


def update_growth(store: TraceStore, subject: dict[str, Any] | None) -> list[Any]:
    """What growing by copying cost; begins the replays where that was not done yet. Whether to ask again is last."""
    if subject is None or subject["device"] is None:
        raise PreventUpdate
    query = Query.from_data(subject)
    lens = query.opinions(store).kv_lens
    board = store.remembered(query.trace_id, ("kv growth", query.device), lambda _: KvLensBoard(lens, store.jobs))
    progress = board.wait(_PATIENCE_S)
    title, table = growth_title(lens, board.replay, progress), growth_table(lens, board.replay)
    return [finding(title), table, not progress.is_active]


def draw(store: TraceStore, subject: dict[str, Any] | None, *chosen: Any) -> list[Any]:
    """Figure and the reset button for a device, an axis and a visible range."""

    def figure_of(device: Device, theme: Theme, **drawn: Any) -> go.Figure:
        assert subject is not None
        lens = store.analysis(subject["trace"]).opinions(device.index).kv_lens
        return cache_figure(lens, theme, **drawn)

    return draw_run(store, figure_of, subject, *chosen)


def register(app: Dash, store: TraceStore) -> None:
    """Wiring only."""
    axis = Input("kvlens-axis", "value")
    outputs = [Output(f"kvlens-{name}", "children") for name in ("title", "note", "chips", "layers-title")]
    outputs += [Output("kvlens-layers", "figure")]
    outputs += [Output(f"kvlens-{name}", "children") for name in ("caches", "pools")]
    outputs += [Output("kvlens-body", "className")]
    inputs: list[Input | State] = [
        Input("moment", "data"),
        Input("scheme", "data"),
        axis,
        Input("kvlens-group", "value"),
    ]
    register_update(app, "kvlens", lambda *args: update(store, *args), outputs, inputs)
    app.callback(
        Output("kvlens-graph", "figure"),
        Output("kvlens-reset", "style"),
        Input("subject", "data"),
        Input("scheme", "data"),
        axis,
        Input("kvlens-window", "data"),
        State("moment", "data"),
    )(lambda *args: draw(store, *args))
    register_run_graph(app, store, "kvlens")
    app.callback(
        Output("kvlens-growth-title", "children"),
        Output("kvlens-growth", "children"),
        Output("kvlens-tick", "disabled"),
        Input("subject", "data"),
        Input("kvlens-tick", "n_intervals"),
    )(lambda subject, _: update_growth(store, subject))
