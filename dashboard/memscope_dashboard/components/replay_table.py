"""The table of replays: one row each, the recording first, those still to come last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from memscope.figures.replay_curves import CURVE_COLORS, DASHES
from memscope.replay.compare import Comparison
from memscope.replay.result import Exactness, ReplayResult
from memscope.replay.strategies import STRATEGIES
from memscope.replay.sweep import Refused
from memscope.units import format_bytes, format_count, format_duration, format_fraction
from memscope.words.replay import oom_words, signed_bytes
from memscope_dashboard.components.text import size
from memscope_dashboard.replay_board import ReplayOutcome

RECORDED_KEY = "recorded"
_MEANINGS = {
    "exact": "PyTorch's own decisions for these requests",
    "modelled": "under the assumptions named below the table",
    "bound": "a lower limit: no allocator can need less",
}
_HEADINGS = (
    ("reserved", "the peak; the dark part of the bar is the peak of active bytes"),
    ("saved", "against the recording"),
    ("efficiency", "peak active / peak reserved"),
    ("calls", "the driver's"),
    ("≈ cost", "of the driver's calls: a rough estimate, which leaves out what they wait for"),
    ("retries", "requests served only after a reclaim"),
)
N_CURVE_COLORS = len(CURVE_COLORS["light"])
_BAR_IN_SIGHT = 2.5
_N_COLUMNS = 2 + len(_HEADINGS)


def curve_key(strategy: str, conf: str | None) -> str:
    """What names a replay's curve and row on the page."""
    return strategy if conf is None else f"{strategy} {conf}"


def label_of(strategy: str, conf: str | None) -> str:
    """A replay as the command line names it: its strategy, and its settings if it has any."""
    return strategy if conf is None else f"{strategy} · {conf or 'default settings'}"


def curve_positions(asked: Sequence[tuple[str, str | None]]) -> dict[str, int]:
    """Place of each replay among those of its strategy's exactness: its colour, whatever is done already."""
    counts: dict[Exactness, int] = {}
    positions = {}
    for strategy, conf in asked:
        exactness = STRATEGIES[strategy].exactness
        positions[curve_key(strategy, conf)] = counts.get(exactness, 0)
        counts[exactness] = counts.get(exactness, 0) + 1
    return positions


def replay_table(
    comparison: Comparison, asked: Sequence[tuple[str, str | None]], outcomes: Sequence[ReplayOutcome | None]
) -> Component:
    """Every number of the comparison, in the columns of the command line's table."""
    positions = curve_positions(asked)
    done = [outcome for outcome in outcomes if outcome is not None and outcome.result is not None]
    largest = _scale_bytes(comparison, [one.result.peak_reserved_bytes for one in done if one.result is not None])
    rows = [_recorded_row(comparison, largest)]
    for outcome in sorted(done, key=_rank):
        position = positions[curve_key(outcome.strategy, outcome.conf)]
        rows += _rows(comparison, outcome, position, largest)
    rows += map(_refused_row, comparison.refused)
    rows += [_waiting_row(*one) for one, outcome in zip(asked, outcomes, strict=True) if outcome is None]
    head = html.Tr(
        [
            html.Th("strategy and settings"),
            html.Th(className="bar-cell"),
            *[html.Th(text, className="num", title=meaning) for text, meaning in _HEADINGS],
        ]
    )
    return html.Table([html.Thead(head), html.Tbody(rows)], className="small-table replay-table")


def _scale_bytes(comparison: Comparison, peaks: Sequence[int]) -> int:
    """What a whole bar stands for: one that is far beyond the recording is cut off, so that others show."""
    recorded = comparison.recorded.peak_reserved_bytes
    near = [peak for peak in peaks if recorded is None or peak <= _BAR_IN_SIGHT * recorded]
    return max([recorded or 0, *near])


def _rank(outcome: ReplayOutcome) -> tuple[bool, int]:
    result = outcome.result
    return (True, 0) if result is None else (result.oom is not None, result.peak_reserved_bytes)


def _name(strategy: str, conf: str | None, line: str, *marks: Any) -> list[Component]:
    words: list[Any] = [html.Span(className=f"line {line}", **{"aria-hidden": "true"}), html.Span(strategy)]
    if conf is not None:
        words.append(html.Span(conf or "default settings", className="setting" if conf else "quiet"))
    return [html.Div([*words, *marks], className="replay-name")]


def _recorded_row(comparison: Comparison, largest: int) -> Component:
    recorded = comparison.recorded
    conf = "settings not recorded" if recorded.conf is None else recorded.conf
    efficiency = recorded.efficiency_frac
    return html.Tr(
        [
            html.Td(_name("recorded", conf, "line-recorded")),
            html.Td(_bar(recorded.peak_reserved_bytes, recorded.peak_active_bytes, largest), className="bar-cell"),
            html.Td(size(recorded.peak_reserved_bytes), className="num"),
            html.Td(),
            html.Td("" if efficiency is None else format_fraction(efficiency), className="num"),
            *[html.Td() for _ in range(3)],
        ],
        className="recorded",
        **{"data-curve": RECORDED_KEY},
    )


def _rows(comparison: Comparison, outcome: ReplayOutcome, position: int, largest: int) -> list[Component]:
    """A replay's numbers, and where it ran out of memory if it did."""
    result = outcome.result
    assert result is not None
    family = STRATEGIES[outcome.strategy].exactness
    line = f"line-{DASHES[family]} curve-{'bound' if family == 'bound' else position % N_CURVE_COLORS}"
    badge = html.Span(
        result.exactness, className=f"exactness {result.exactness}", title=_MEANINGS.get(result.exactness)
    )
    name = _name(outcome.strategy, outcome.conf, line, badge)
    is_best = result is comparison.best and (comparison.saved_bytes(result) or 0) > 0
    classes = " ".join(name for name, on in (("best", is_best), ("failed", result.oom is not None)) if on)
    key = curve_key(outcome.strategy, outcome.conf)
    row = html.Tr(
        [
            html.Td(name, title=STRATEGIES[outcome.strategy].summary),
            html.Td(_bar(result.peak_reserved_bytes, result.peak_active_bytes, largest), className="bar-cell"),
            html.Td(size(result.peak_reserved_bytes), className="num"),
            *[html.Td(cell, className="num") for cell in _numbers(comparison, result)],
        ],
        className=classes,
        tabIndex=0,
        **{"data-curve": key},
    )
    if result.oom is None:
        return [row]
    why = html.Td(oom_words(result.oom), colSpan=_N_COLUMNS)
    return [row, html.Tr([why], className="failed-why", **{"data-curve": key})]


def _numbers(comparison: Comparison, result: ReplayResult) -> list[Any]:
    saved, calls = comparison.saved_bytes(result), result.driver_calls
    return [
        "" if saved is None else _saved(saved, comparison.recorded.peak_reserved_bytes),
        format_fraction(result.efficiency_frac),
        "" if calls is None else format_count(calls.n_calls),
        "" if calls is None else format_duration(calls.modelled_cost_ns),
        "" if result.n_retries is None else format_count(result.n_retries),
    ]


def _saved(saved_bytes: int, recorded_bytes: int | None) -> Component:
    if not saved_bytes:
        return html.Span("0", className="quiet")
    share = f"{format_fraction(abs(saved_bytes) / recorded_bytes)}" if recorded_bytes else None
    exact = f"{format_count(saved_bytes)} bytes"
    return html.Span(signed_bytes(saved_bytes), title=exact if share is None else f"{exact}, {share} of the recorded")


def _bar(reserved: int | None, active: int, largest: int) -> Component | None:
    if reserved is None or not largest:
        return None
    used = html.Span(style={"width": f"{100 * min(active, reserved) / largest:.2f}%"}, className="used")
    whole = html.Span(
        style={"width": f"{min(100 * reserved / largest, 100):.2f}%"},
        className="whole cut" if reserved > largest else "whole",
    )
    return html.Span([whole, used], className="peak-bar", title=f"peak active {format_bytes(active)}")


def _refused_row(refused: Refused) -> Component:
    name = _name(refused.strategy, refused.conf, "line-none")
    return html.Tr([html.Td([*name, html.Div(refused.reason, className="warn small")], colSpan=_N_COLUMNS)])


def _waiting_row(strategy: str, conf: str | None) -> Component:
    name = _name(strategy, conf, "line-none")
    cells = [html.Td(className="bar-cell"), *[html.Td() for _ in _HEADINGS]]
    return html.Tr([html.Td(name), *cells], className="to-come")
