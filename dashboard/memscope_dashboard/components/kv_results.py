"""What stands around the simulation's pictures: the budget, the managers' table, progress, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from memscope.serving.managers import MANAGERS
from memscope.serving.question import ServingPlan
from memscope.serving.result import KvResult
from memscope.units import format_count, format_fraction
from memscope.words.serving import (
    CLAIMED_PARTS,
    WHAT_IS_ESTIMATED,
    WHAT_IS_EXACT,
    manager_label,
    refusal_words,
    result_label,
    scheduler_words,
)
from memscope_dashboard.components.grid import NUMBER, data_grid
from memscope_dashboard.components.text import size
from memscope_dashboard.kv_board import KvState

ROW_PX, HEAD_PX = 32, 52
_NONE = "—"
_SHARES = tuple((part.name, part.label, part.meaning) for part in CLAIMED_PARTS)
_COUNTS = (
    ("peak", "peak at once", "requests that run at the same time, at most"),
    ("mean", "mean at once", "requests that run at the same time, on average over time"),
    ("preempted", "put back", "requests put back because memory lacked"),
    ("evictions", "evicted", "cached blocks of prefixes given up for others"),
    ("hits", "prefix hits", "full blocks of prompts found cached at a request's first start"),
    ("batch", "fit at once", "requests of the mean final length that fit together"),
    ("context", "longest context", "tokens of the longest sequence that fits alone"),
)
_ESTIMATES = (("rate", "≈ req/s", "estimate of the cost model: requests completed, over the whole replay, on one GPU"),)


def budget_table(plan: ServingPlan) -> Component:
    """The device's memory, shared out line by line, with where each number is from."""
    budget = plan.budget
    rows = [html.Tr([html.Td("device"), html.Td(size(budget.total_bytes), className="num"), html.Td()])]
    for row in budget.rows:
        is_rest = row.name == "KV cache"
        cells = [
            html.Td(f"{'=' if is_rest else '−'} {row.name}"),
            html.Td(size(row.bytes), className="num"),
            html.Td("" if row.bytes is None else row.source, className="quiet"),
        ]
        rows.append(html.Tr(cells, className="total" if is_rest else ""))
    return html.Table(html.Tbody(rows), className="small-table kv-budget")


def manager_grid() -> Component:
    """The table of managers, empty."""
    columns = [
        {"field": "label", "headerName": "manager", "width": 140, "pinned": "left", "tooltipField": "summary"},
        *[_column(name, heading, meaning, 66) for name, heading, meaning in _SHARES],
        *[_column(name, heading, meaning, 60) for name, heading, meaning in _COUNTS],
        *[_column(name, heading, meaning, 58) for name, heading, meaning in _ESTIMATES],
    ]
    selection = {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True}
    return data_grid("kv-grid", columns, "", rowSelection=selection, headerHeight=HEAD_PX, rowHeight=ROW_PX)


def _column(name: str, heading: str, meaning: str, width: int) -> dict[str, Any]:
    return {
        "field": name,
        "headerName": heading,
        "headerTooltip": meaning,
        "flex": 1,
        "minWidth": width,
        "wrapHeaderText": True,
        "valueFormatter": {"function": f"params.data ? params.data.{name}_text : ''"},
        **NUMBER,
    }


def manager_rows(state: KvState) -> list[dict[str, Any]]:
    """A row for each replay of the plan; those that are not done, or could not be made, have no numbers."""
    rows = []
    for job, outcome in zip(state.plan.jobs, state.outcomes, strict=True):
        row: dict[str, Any] = {
            "row": job_label(job.manager, job.options.block_size, job.options.page_bytes),
            "summary": MANAGERS[job.manager].summary,
        }
        row["label"] = row["row"]
        result = None if outcome is None else outcome.result
        missing = "…" if outcome is None else _NONE
        values = _nothing(missing) if result is None else _numbers(result, state.plan.shape.tensor_parallel)
        for name, (value, text) in values.items():
            row |= {name: value, f"{name}_text": text}
        rows.append(row)
    return rows


def job_label(manager: str, block_size: int, page_bytes: int) -> str:
    """A replay's name, the same as its result's."""
    blocks = block_size if MANAGERS[manager].has_blocks else None
    return manager_label(manager, blocks, page_bytes if manager == "virtual" else None)


def _nothing(text: str) -> dict[str, tuple[float | None, str]]:
    """Every number of a row that has none, shown as the text."""
    return {name: (None, text) for name, _, _ in (*_SHARES, *_COUNTS, *_ESTIMATES)}


def _numbers(result: KvResult, tensor_parallel: int) -> dict[str, tuple[float | None, str]]:
    """Every number of a result and how it is shown."""
    rate = result.requests_per_s
    each = None if rate is None else rate / tensor_parallel
    found = {part.name: _percent(result.waste.share(getattr(result.waste, part.name))) for part in CLAIMED_PARTS}
    found |= {
        "peak": _count(result.peak_concurrent_requests),
        "mean": (result.mean_concurrent_requests, f"{result.mean_concurrent_requests:,.1f}"),
        "preempted": _count(result.n_preemptions),
        "evictions": _count(result.n_evictions),
        "hits": _percent(result.prefix_hit_frac),
        "batch": _count(result.largest_batch_requests),
        "context": _count(result.longest_context_tokens),
        "rate": (each, _NONE if each is None else f"{each:,.2f}"),
    }
    return found


def _percent(fraction: float | None) -> tuple[float | None, str]:
    return fraction, _NONE if fraction is None else format_fraction(fraction)


def _count(n: int | None) -> tuple[float | None, str]:
    return n, _NONE if n is None else format_count(n)


def progress_words(state: KvState) -> str:
    """How far the work is, and what became of it."""
    n_all, running = len(state.outcomes), state.running
    done = f"{format_count(state.n_done)} of {format_count(n_all)} managers"
    if running.state == "running" and state.at:
        requests = f"{format_count(running.n_done)} of {format_count(running.n_all)} requests"
        return f"{state.at}: {requests} served" if running.n_done else f"{state.at}: compiling or starting…"
    return {
        "waiting": f"{done}; waits for another simulation to end",
        "running": done,
        "done": "",
        "cancelled": f"Cancelled: {done} done." if state.n_done < n_all else "",
        "failed": f"Failed after {done}: {running.problem}",
    }[running.state]


def notes(state: KvState) -> list[Component]:
    """What could not be replayed, what was refused, what the replays assume, and which numbers are what."""
    problems = [
        html.Li([html.Span(f"{manager_label(one.manager, one.block_size)}: ", className="quiet"), one.problem])
        for one in state.done
        if one.problem
    ]
    results = state.results
    found = [*_grouped([(refusal_words(r, state.plan.max_length), result_label(r)) for r in results])]
    found += _grouped([(note, result.manager) for result in results for note in result.notes])
    mean = results[0].mean_final_tokens if results else 0
    words = f"“fit at once” counts requests of {format_count(mean)} tokens, the mean at their end. "
    parts: list[Component] = [
        html.P([words if mean else "", WHAT_IS_EXACT, " ≈ ", WHAT_IS_ESTIMATED, " ", scheduler_words(state.plan)])
    ]
    if problems:
        parts.insert(0, html.Ul(problems, className="kv-problems"))
    if found:
        parts.append(html.Ul(found))
    if state.plan.question.config.is_partial:
        parts.append(html.P("Only the text part of the model is counted.", className="warn"))
    return parts


def _grouped(pairs: Sequence[tuple[str | None, str]]) -> list[Component]:
    """The same sentence about several managers said once."""
    who: dict[str, list[str]] = {}
    for text, name in pairs:
        if text is not None and name not in who.setdefault(text, []):
            who[text].append(name)
    return [html.Li([html.Span(f"{', '.join(names)}: ", className="quiet"), text]) for text, names in who.items()]
