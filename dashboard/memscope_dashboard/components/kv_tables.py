"""Tables of a recorded key/value cache: its caches, its pools, and the replays without the copies."""

from __future__ import annotations

from typing import Any

from dash import html
from dash.development.base_component import Component

from memscope.figures.kv_cache import color_of
from memscope.figures.theme import Theme
from memscope.kv_cache.alternatives import SUMMARIES, GrowthReplay
from memscope.kv_cache.lens import CacheSummary, KvLens, KvRow
from memscope.kv_cache.series import SPLITS
from memscope.units import format_bytes, format_count
from memscope.words.kv_cache import LABELS, MEANINGS, N_POOLS, growth_verdict, kinds_words, pool_words
from memscope.words.labels import NOT_MEASURED, sentence
from memscope_dashboard.components.text import size
from memscope_dashboard.jobs import Progress

N_CACHES = 40
_WORDS = ("kept by",)
"""Columns of words, which stand at the left."""


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
