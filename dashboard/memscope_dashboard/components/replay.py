"""The table of replays, one row each, and what stands around it: verification, the search, progress, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from memscope.advise.confs import harmful_combinations
from memscope.advise.tune import Tuning
from memscope.device.limits import Limits
from memscope.device.recording import RecordedTrace
from memscope.errors import UsageError
from memscope.figures.replay import CURVE_COLORS, DASHES
from memscope.replay.compare import Comparison
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.result import Exactness, ReplayResult
from memscope.replay.strategies import STRATEGIES
from memscope.replay.sweep import Refused
from memscope.replay.verify.divergence import Divergence
from memscope.replay.verify.verify import DeviceVerification
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_duration, format_fraction
from memscope.words.labels import sentence
from memscope.words.replay import limits_words, oom_words, signed_bytes, tuning_words
from memscope_dashboard.components.text import facts, size
from memscope_dashboard.jobs import Progress
from memscope_dashboard.query import Query
from memscope_dashboard.replay_board import BoardState, ReplayOutcome

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
_REFUSED = ("refused", "of the requests that failed in the recording, those that fail here too")
N_CURVE_COLORS = len(CURVE_COLORS["light"])
_BAR_IN_SIGHT = 2.5
_N_COLUMNS = 3 + len(_HEADINGS)


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
    done = _as_compared(comparison, outcomes)
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
            *[
                html.Th(text, className="num", title=meaning)
                for text, meaning in (
                    *_HEADINGS[:2],
                    *((_REFUSED,) if comparison.recorded.n_ooms else ()),
                    *_HEADINGS[2:],
                )
            ],
        ]
    )
    return html.Table([html.Thead(head), html.Tbody(rows)], className="small-table replay-table")


def _as_compared(comparison: Comparison, outcomes: Sequence[ReplayOutcome | None]) -> list[ReplayOutcome]:
    """What is done, with the comparison's own results: beside the recording they may be less than exact."""
    done = [outcome for outcome in outcomes if outcome is not None and outcome.result is not None]
    return [replace(outcome, result=result) for outcome, result in zip(done, comparison.results, strict=True)]


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
            *([html.Td(format_count(recorded.n_ooms), className="num")] if recorded.n_ooms else []),
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
    verdict = comparison.verdict
    is_best = result is verdict.best and verdict.kind in ("saves", "serves more", "only another fits")
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
    why = html.Td(html.Div(oom_words(result.oom)), colSpan=_N_COLUMNS)
    return [row, html.Tr([why], className="failed-why", **{"data-curve": key})]


def _numbers(comparison: Comparison, result: ReplayResult) -> list[Any]:
    saved, calls, efficiency = comparison.saved_bytes(result), result.driver_calls, result.efficiency_frac
    return [
        "" if saved is None else _saved(saved, comparison.recorded.peak_reserved_bytes),
        *([] if not comparison.recorded.n_ooms else [_refused(result)]),
        "" if efficiency is None else format_fraction(efficiency),
        "" if calls is None else format_count(calls.n_calls),
        "" if calls is None else format_duration(calls.modelled_cost_ns),
        "" if result.n_retries is None else format_count(result.n_retries),
    ]


def _refused(result: ReplayResult) -> str:
    """How many requests were refused; nothing where the replay did not come to its end."""
    return "" if result.n_ooms is None or result.oom is not None else format_count(result.n_ooms)


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


_N_TUNED = 5


def verify_badge(found: DeviceVerification | None, progress: Progress, *, is_dry_run: bool = False) -> Component:
    """Whether the simulator does exactly what was recorded, in a few words; of a dry run that proves no prediction."""
    if found is None:
        if progress.is_active:
            return html.Span("○ verifying…", className="quiet")
        return html.Span("✕ could not be verified", className="bad" if progress.state == "failed" else "quiet")
    if found.exact:
        n = found.n_events_compared
        words = f" exact: {format_count(n)} event{'' if n == 1 else 's'} replayed as recorded"
        if is_dry_run:
            words = f" the dry run's {format_count(n)} events replayed alike"
        partly = html.Span(" · not all compared", className="warn") if found.skipped else None
        return html.Span([html.Span("●", className="dot"), words, partly])
    if found.not_comparable is not None:
        return html.Span("○ not comparable with the recording", className="warn")
    return html.Span(f"✕ diverges after {format_count(found.n_events_compared)} equal events", className="bad")


def verify_panel(
    recording: RecordedTrace, found: DeviceVerification | None, progress: Progress, query: Query
) -> list[Component]:
    """What was compared, what was not, and where replay and recording part."""
    if found is None:
        return [html.P(progress.problem or "The recording is being replayed under its own settings.")]
    parts: list[Any] = [html.P(_verified_words(recording, found))]
    if found.first_divergence is not None:
        parts += _divergence(found.first_divergence, query)
    recorded, replayed = found.recorded_peak_reserved_bytes, found.replayed_peak_reserved_bytes
    if recorded is not None and replayed is not None:
        parts.append(
            facts(
                [
                    ("peak reserved, recorded", f"{format_count(recorded)} bytes"),
                    ("replayed", f"{format_count(replayed)} bytes"),
                ]
            )
        )
    items = [html.Li(f"not compared: {text}", className="warn-item") for text in found.skipped]
    items += [html.Li(f"inferred: {what} ({format_count(n)})") for what, n in found.inferred.items()]
    if items:
        parts.append(html.Ul(items))
    return parts


def _verified_words(recording: RecordedTrace, found: DeviceVerification) -> str:
    if found.not_comparable is not None:
        return f"Not comparable: {found.not_comparable}."
    if not found.exact:
        return "Replayed under the recorded settings, the simulator's decisions part from the recorded ones here:"
    whose = "as the dry run recorded them" if recording.is_dry_run else "as PyTorch made them"
    words = f"{format_count(found.n_events_compared)} of {format_count(found.n_events)} events, "
    words += f"every address and the final blocks are {whose}."
    if recording.is_dry_run:
        words += (
            " A dry run's addresses come from this same simulator: this proves the file and the replay, "
            "not the prediction."
        )
    return words


def _divergence(divergence: Divergence, query: Query) -> list[Component]:
    at_end = divergence.event == NONE_ID
    pairs = [
        ("where", "in the final state" if at_end else f"event {format_count(divergence.event)}"),
        ("recorded", html.Code(divergence.expected)),
        ("replayed", html.Code(divergence.got)),
        ("why", divergence.reason),
    ]
    parts: list[Component] = [html.Div(facts(pairs), className="divergence")]
    if not at_end:
        search = Query(query.trace_id, query.device, divergence.event).search()
        links = [
            dcc.Link(f"{name} at this event", href=f"/{view}{search}", className="link")
            for view, name in (("map", "Address map"), ("timeline", "Timeline"))
        ]
        parts.append(html.P(links, className="links"))
    return parts


def progress_words(state: BoardState) -> str:
    """How far the work is, and what became of it."""
    n_all = len(state.outcomes)
    replays = f"{format_count(state.n_done)} of {format_count(n_all)} replays"
    searched = f"{format_count(state.searching.n_done)} settings"
    words = {
        "waiting": replays,
        "running": replays,
        "done": "",
        "cancelled": f"Cancelled: {replays} done." if state.n_done < n_all else "",
        "failed": f"Failed after {replays}: {state.comparing.problem}",
    }[state.comparing.state]
    if state.comparing.is_active:
        return words
    search = {
        "waiting": "the search begins when this is done",
        "running": f"Searching: {searched} of at least {format_count(state.searching.n_all)} replayed",
        "done": "",
        "cancelled": f"The search was cancelled after {searched}.",
        "failed": f"The search failed after {searched}: {state.searching.problem}",
    }[state.searching.state]
    return " ".join(part for part in (words, search) if part)


def progress_frac(state: BoardState) -> float | None:
    """Share of the work at hand that is done; None if there is none."""
    if state.comparing.is_active:
        return state.n_done / max(len(state.outcomes), 1)
    if state.searching.is_active:
        return state.searching.n_done / max(state.searching.n_all, 1)
    return None


def tuning_panel(tuning: Tuning | None) -> list[Component]:
    """The line to copy, what it gains, what weakens it, and the best settings found; nothing before a search."""
    if tuning is None:
        return []
    verdict = html.P(sentence(tuning_words(tuning)), className="verdict")
    parts: list[Component] = [html.H2("Best setting found"), verdict]
    if tuning.line is not None:
        copy = dmc.CopyButton(
            "Copy", copiedChildren="Copied", value=tuning.line, size="xs", variant="default", id="replay-copy"
        )
        parts.append(html.Div([html.Code(tuning.line, id="replay-line"), copy], className="tuned-line"))
    rows = []
    if tuning.baseline is not None:
        rows.append(_tuned_row(f"as recorded: {tuning.baseline.conf or 'default settings'}", tuning.baseline))
    rows += [_tuned_row(result.conf or "default settings", result) for result in tuning.results[:_N_TUNED]]
    rows.append(_tuned_row("lower bound", tuning.lower_bound))
    headings = [html.Th(text, className="num") for text in ("peak reserved", "calls", "≈ cost", "retries")]
    head = html.Tr([html.Th(f"{format_count(len(tuning.results))} settings replayed; the best"), *headings])
    parts.append(html.Table([html.Thead(head), html.Tbody(rows)], className="small-table"))
    if tuning.warnings:
        parts.append(html.Ul([html.Li(text, className="warn-item") for text in tuning.warnings], className="notes"))
    return parts


def _tuned_row(label: str, result: ReplayResult) -> Component:
    calls = result.driver_calls
    failed = html.Span("out of memory", className="bad") if result.oom is not None else None
    cells = [
        size(result.peak_reserved_bytes),
        "" if calls is None else format_count(calls.n_calls),
        "" if calls is None else format_duration(calls.modelled_cost_ns),
        "" if result.n_retries is None else format_count(result.n_retries),
    ]
    name = html.Td([html.Span(label, className="setting"), failed])
    return html.Tr([name, *[html.Td(cell, className="num") for cell in cells]])


def warnings_and_notes(outcomes: Sequence[ReplayOutcome], limits: Limits) -> list[Component]:
    """What speaks against the settings shown under these limits, and what the modelled rows assume."""
    parts: list[Component] = []
    warnings = [
        html.Li([html.Code(conf), f" {text}"], className="warn-item")
        for conf in dict.fromkeys(one.conf for one in outcomes if one.conf)
        for text in _harmful(conf, limits.memory_fraction)
    ]
    if warnings:
        parts.append(html.Ul(warnings, className="notes"))
    notes: dict[str, list[str]] = {}
    for one in outcomes:
        for note in () if one.result is None else one.result.notes:
            who = notes.setdefault(note, [])
            if one.strategy not in who:
                who.append(one.strategy)
    if notes:
        items = [html.Li([html.Span(f"{', '.join(who)}: ", className="quiet"), note]) for note, who in notes.items()]
        n = format_count(len(items))
        parts.append(html.Details([html.Summary(f"What these replays assume ({n})"), html.Ul(items)]))
    return parts


def _harmful(conf: str, memory_fraction: float | None) -> tuple[str, ...]:
    try:
        return harmful_combinations(CachingAllocatorConfig.parse(conf), memory_fraction)
    except UsageError:
        return ()


def capacity_placeholder(known_bytes: int | None) -> str:
    """What the field of the capacity shows while it is empty: how it is known stands above."""
    return "no limit" if known_bytes is None else format_bytes(known_bytes)


def limits_note(limits: Limits) -> str:
    """The device that the replays are made for, in the words of the command line."""
    more = " With a capacity the replays can run out of memory." if limits.total_bytes is None else ""
    return f"{sentence(limits_words(limits))}.{more}"
