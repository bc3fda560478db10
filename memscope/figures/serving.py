"""Managers of key/value memory side by side: the shares of their memory, and what a block's size changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from memscope.attribution.driver_usage import CUDA_CONTEXT
from memscope.attribution.ledger import FREE_PINNED, FREE_RELEASABLE
from memscope.figures.replay import curve_color
from memscope.figures.theme import Theme, bare_axis, empty_figure, empty_note, quiet_axis
from memscope.serving.result import KvResult
from memscope.units import format_count, format_fraction
from memscope.words.labels import plain
from memscope.words.serving import CLAIMED_PARTS, ClaimedPart, result_label

ROW_PX = 30
SWEEP_PX = 224
_HEAD_PX, _FOOT_PX = 26, 26
_CHARACTER_PX = 7
_MIN_TEXT_FRAC = 0.17
"""A part narrower than this share of its bar has no room for its number."""
_ROWS = {
    "tokens": "kv_cache",
    "reservation": FREE_PINNED,
    "internal": CUDA_CONTEXT,
    "external": FREE_RELEASABLE,
}
"""The ledger row whose colour each part of claimed memory has."""
_HATCHED = ("external",)
"""Drawn hatched, as free memory is everywhere."""


def is_hatched(part: ClaimedPart) -> bool:
    """Whether a part is drawn hatched."""
    return part.name in _HATCHED


def part_color(part: ClaimedPart, theme: Theme) -> str:
    """The colour of a part."""
    return theme.color(_ROWS[part.name])


def ink_on_part(part: ClaimedPart, theme: Theme) -> str:
    """The colour of text on a part."""
    return theme.ink if is_hatched(part) else theme.ink_on(_ROWS[part.name])


def shares_height(n_rows: int) -> int:
    """Height of the picture of shares, in pixels."""
    return _HEAD_PX + _FOOT_PX + ROW_PX * max(n_rows, 1)


def shares_figure(rows: Sequence[tuple[str, KvResult | None]], theme: Theme) -> go.Figure:
    """Draw the key/value memory that requests claim as one bar for each manager: tokens, and each kind of waste.

    Parameters
    ----------
    rows
        A name and a result each; None for a replay that is still to come, whose place stays empty.
    """
    labels = [label for label, _ in rows]
    if not rows:
        note = [empty_note("nothing is replayed", theme)]
        return empty_figure(theme, shares_height(0), xaxis=bare_axis(), yaxis=bare_axis(), annotations=note)
    left_px = 16 + _CHARACTER_PX * max(map(len, labels))
    figure = empty_figure(
        theme,
        shares_height(len(rows)),
        margin={"l": left_px, "r": 22, "t": _HEAD_PX, "b": _FOOT_PX},
        barmode="stack",
        bargap=0.28,
        hovermode="closest",
        xaxis=quiet_axis(theme, range=[0, 100.2], ticksuffix=" %", dtick=25, fixedrange=True),
        yaxis=quiet_axis(
            theme,
            range=[len(rows) - 0.5, -0.5],
            tickmode="array",
            tickvals=list(range(len(rows))),
            ticktext=[plain(label) for label in labels],
            tickfont={"size": 12, "color": theme.ink},
            ticklabelstandoff=6,
            fixedrange=True,
        ),
        annotations=[parts_key(theme, left_px)],
    )
    for part in CLAIMED_PARTS:
        _add_part(figure, part, rows, theme)
    return figure


def parts_key(theme: Theme, left_px: int) -> dict[str, Any]:
    """The names of the parts beside their colours, above a picture with that margin."""
    marks = [
        f"<span style='color:{theme.muted if is_hatched(part) else part_color(part, theme)}'>"
        f"{'▨' if is_hatched(part) else '■'}</span> {part.label}"
        for part in CLAIMED_PARTS
    ]
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
    font = {"size": 12, "color": theme.muted}
    return place | {
        "text": "&nbsp;&nbsp;&nbsp;".join(marks),
        "showarrow": False,
        "font": font,
        "xshift": -left_px,
        "yshift": 3,
    }


def part_fill(part: ClaimedPart, theme: Theme) -> dict[str, Any]:
    """Plotly's pattern of a part: plain, or hatched as free memory is."""
    if not is_hatched(part):
        return {"shape": ""}
    hatch = {"shape": "/", "fillmode": "replace", "size": 6, "solidity": 0.4}
    return hatch | {"fgcolor": part_color(part, theme), "bgcolor": theme.surface}


def _add_part(figure: go.Figure, part: ClaimedPart, rows: Sequence[tuple[str, KvResult | None]], theme: Theme) -> None:
    done = [(row, label, result) for row, (label, result) in enumerate(rows) if result is not None]
    shares = [part.share_frac(result.waste) for _, _, result in done]
    figure.add_bar(
        x=[100 * share for share in shares],
        y=[row for row, _, _ in done],
        orientation="h",
        name=part.label,
        marker={"color": part_color(part, theme), "pattern": part_fill(part, theme), "line": {"width": 0}},
        text=[format_fraction(share) if share >= _MIN_TEXT_FRAC else "" for share in shares],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="none",
        textfont={"size": 12, "color": ink_on_part(part, theme)},
        customdata=[(plain(label), format_fraction(share)) for (_, label, _), share in zip(done, shares, strict=True)],
        hovertemplate=f"<b>%{{customdata[0]}}</b><br>%{{customdata[1]}} {part.label}: {part.meaning}<extra></extra>",
    )


def swept_managers(results: Sequence[KvResult]) -> dict[str, list[KvResult]]:
    """Managers that were replayed with several block sizes: name → results by block size."""
    found: dict[str, list[KvResult]] = {}
    for result in results:
        if result.block_size is not None:
            found.setdefault(result.manager, []).append(result)
    by_size = {name: sorted(each, key=lambda result: result.block_size or 0) for name, each in found.items()}
    return {name: each for name, each in by_size.items() if len(each) > 1}


def sweep_figure(results: Sequence[KvResult], theme: Theme) -> go.Figure:
    """Draw what block sizes change: the share of memory that holds tokens, and the most requests at once."""
    swept = swept_managers(results)
    sizes = sorted({result.block_size or 0 for each in swept.values() for result in each})
    names = [str(size) for size in sizes]
    axis = quiet_axis(theme, type="category", categoryorder="array", categoryarray=names, fixedrange=True)
    axis |= {"range": [-0.3, len(names) - 0.3]}
    figure = empty_figure(
        theme,
        SWEEP_PX,
        margin={"l": 56, "r": 96, "t": 28, "b": 40},
        hovermode="closest",
        xaxis=axis | {"domain": [0, 0.42], "title": _axis_title("tokens of a block")},
        xaxis2=axis | {"domain": [0.58, 1], "anchor": "y2", "title": _axis_title("tokens of a block")},
        yaxis=quiet_axis(theme, showgrid=True, ticksuffix=" %", nticks=5, fixedrange=True),
        yaxis2=quiet_axis(
            theme, showgrid=True, anchor="x2", nticks=5, tickformat=",d", rangemode="tozero", fixedrange=True
        ),
    )
    figure.update_layout(
        annotations=[_head(0, "KV memory that holds tokens", theme), _head(0.58, "most requests at once", theme)]
    )
    for position, (name, each) in enumerate(swept.items()):
        _add_sweep(figure, name, each, position, theme)
    for number, values in (("", _share_percent), ("2", _peak)):
        figure.update_layout(
            annotations=[*figure.layout.annotations, *_curve_names(swept, sizes, number, values, theme)]
        )
    return figure


def _share_percent(result: KvResult) -> float:
    return 100 * (result.kv_token_share_frac or 0.0)


def _peak(result: KvResult) -> float:
    return float(result.peak_concurrent_requests)


def _curve_names(
    swept: dict[str, list[KvResult]],
    sizes: Sequence[int],
    axis: str,
    values: Callable[[KvResult], float],
    theme: Theme,
) -> list[dict[str, Any]]:
    """The managers' names at their curves' ends, those that end close together kept apart."""
    order = sorted(swept, key=lambda name: -values(swept[name][-1]))
    return [
        {
            "text": name,
            "x": sizes.index(swept[name][-1].block_size or 0),
            "y": values(swept[name][-1]),
            "xref": f"x{axis}",
            "yref": f"y{axis}",
            "xanchor": "left",
            "xshift": 8,
            "yshift": 16 * ((len(order) - 1) / 2 - order.index(name)),
            "showarrow": False,
            "font": {"size": 12, "color": curve_color(theme.name, "exact", position)},
        }
        for position, name in enumerate(swept)
    ]


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 6, "font": {"size": 12}}


def _head(x: float, text: str, theme: Theme) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": x, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 8}
    return place | {"text": text, "showarrow": False, "font": {"size": 12, "color": theme.ink}}


def _add_sweep(figure: go.Figure, name: str, each: Sequence[KvResult], position: int, theme: Theme) -> None:
    words = [
        f"<b>{plain(result_label(result))}</b><br>{format_fraction(result.kv_token_share_frac or 0)} holds tokens<br>"
        f"{format_count(result.peak_concurrent_requests)} requests at once, at most<br>"
        f"{format_count(result.n_preemptions)} preemptions"
        for result in each
    ]
    shared: dict[str, Any] = {
        "x": [str(result.block_size) for result in each],
        "mode": "lines+markers",
        "name": name,
        "line": {
            "color": curve_color(theme.name, "exact", position),
            "width": 2,
            "dash": "solid" if position % 2 == 0 else "dash",
        },
        "marker": {"size": 6},
        "customdata": words,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    figure.add_scatter(y=[_share_percent(result) for result in each], **shared)
    figure.add_scatter(y=[_peak(result) for result in each], xaxis="x2", yaxis="y2", **shared)


def shares_words(results: Sequence[KvResult]) -> str:
    """What the picture of shares shows, for those who cannot see it."""
    each = [
        f"{result_label(result)}: "
        + ", ".join(f"{format_fraction(p.share_frac(result.waste))} {p.label}" for p in CLAIMED_PARTS)
        for result in results
    ]
    return f"Shares of key/value memory. {'; '.join(each)}." if each else "Nothing is replayed."
