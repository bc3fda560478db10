"""A serving replay's report as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

import plotly.graph_objects as go

from memscope.figures.serving import shares_figure, shares_words, sweep_figure, swept_managers
from memscope.figures.serving_curves import over_time_figure, over_time_words, serving_curve
from memscope.reports import html_page as parts
from memscope.reports.html_page import in_themes, page, picture, write_page
from memscope.reports.serving import ServingReport
from memscope.serving.result import KvResult
from memscope.units import format_count, format_fraction
from memscope.words.serving import (
    CLAIMED_PARTS,
    WHAT_IS_ESTIMATED,
    WHAT_IS_EXACT,
    budget_finding,
    device_words,
    refusal_words,
    requests_words,
    result_label,
    scheduler_words,
    serving_finding,
    shape_words,
)

_NONE = "—"


def write_serving_html(report: ServingReport, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a report as one page.

    Raises
    ------
    UsageError
        If the file exists and may not be replaced.
    InputFileError
        If it cannot be written there.
    """
    return write_page(serving_html(report), path, overwrite=overwrite)


def serving_html(report: ServingReport) -> str:
    """The report as one page: the budget, the managers side by side, and each one's memory over time."""
    plan, results = report.plan, report.results
    name = plan.question.config.name
    title = serving_finding(results) if results else budget_finding(plan)
    where = f"{name} on {device_words(plan.question)}"
    body = parts.page_head(where) + parts.headline(title)
    body += _budget(report)
    if results:
        body += _section("KV memory that requests claim, over the whole run", _shares(results), _memory_table(results))
        body += _section("What the requests got", _service_table(report), f'<p class="quiet">{WHAT_IS_ESTIMATED}</p>')
        if swept_managers(results):
            sweep = in_themes(lambda theme: sweep_figure(results, theme))
            words = "what the block size changes: the share of memory that holds tokens, and requests at once"
            body += _section("By block size", picture("kv-sweep", sweep, words))
        body += "".join(_over_time(place, result) for place, result in enumerate(results))
        body += _notes(report)
    return page(f"memscope serving: {where}", body + parts.page_foot())


def _section(title: str, *content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{''.join(content)}</section>"


def _budget(report: ServingReport) -> str:
    plan = report.plan
    rows = [("device", parts.size(plan.budget.total_bytes), "")]
    for row in plan.budget.rows:
        name = f"<b>= {escape(row.name)}</b>" if row.name == "KV cache" else f"− {escape(row.name)}"
        rows.append((name, parts.size(row.bytes), "" if row.bytes is None else escape(row.source)))
    lines = [shape_words(plan)]
    if report.requests is not None:
        lines.append(f"{requests_words(plan)} {scheduler_words(plan)}")
    if plan.question.config.is_partial:
        lines.append("Only the text part of the model is counted.")
    text = "".join(f'<p class="quiet">{escape(line)}</p>' for line in lines)
    return _section("The GPU's memory", parts.table(("", "size", "where the number is from"), rows, (1,)), text)


def _shares(results: tuple[KvResult, ...]) -> str:
    rows = [(result_label(result), result) for result in results]
    figures = in_themes(lambda theme: shares_figure(rows, theme))
    return picture("kv-shares", figures, shares_words(results))


def _memory_table(results: tuple[KvResult, ...]) -> str:
    rows = [
        (
            escape(result_label(result)),
            *(format_fraction(part.share_frac(result.waste)) for part in CLAIMED_PARTS),
            format_count(result.peak_concurrent_requests),
            f"{result.mean_concurrent_requests:,.1f}",
            _count(result.largest_batch_requests),
            _count(result.longest_context_tokens),
        )
        for result in results
    ]
    headings = (
        "manager",
        *(part.label for part in CLAIMED_PARTS),
        "most at once",
        "mean",
        "fit at once",
        "longest context",
    )
    meanings = "".join(f"<li>{escape(part.label)}: {escape(part.meaning)}</li>" for part in CLAIMED_PARTS)
    mean = format_count(results[0].mean_final_tokens)
    words = f"“fit at once” counts requests of {mean} tokens, the mean at their end. {WHAT_IS_EXACT}"
    return (
        parts.table(headings, rows, range(1, len(headings)))
        + f'<ul class="quiet">{meanings}</ul><p class="quiet">{words}</p>'
    )


def _service_table(report: ServingReport) -> str:
    rows = []
    for result in report.results:
        rate = result.requests_per_s
        rows.append(
            (
                escape(result_label(result)),
                format_count(result.n_completed),
                format_count(result.n_preemptions),
                format_count(result.n_evictions),
                _NONE if result.prefix_hit_frac is None else format_fraction(result.prefix_hit_frac),
                _estimate(None if rate is None else rate / report.plan.shape.tensor_parallel),
                _estimate(result.first_token_s(50)),
                _estimate(result.first_token_s(99)),
            )
        )
    headings = (
        *("manager", "completed", "preempted", "evictions", "prefix hits"),
        *("≈ requests a second and GPU", "≈ wait, median s", "≈ wait, 99 % s"),
    )
    return parts.table(headings, rows, range(1, len(headings)))


def _over_time(place: int, result: KvResult) -> str:
    curve = serving_curve(result)
    figures: dict[str, go.Figure] = in_themes(lambda theme: over_time_figure(curve, theme))
    return _section(
        f"{result_label(result)}: memory over time", picture(f"kv-time-{place}", figures, over_time_words(curve))
    )


def _notes(report: ServingReport) -> str:
    items = [f"<li>{escape(text)}</li>" for text in _note_texts(report)]
    return _section("Notes", "<ul>", *items, "</ul>") if items else ""


def _note_texts(report: ServingReport) -> Iterator[str]:
    for result in report.results:
        refused = refusal_words(result, report.plan.max_length)
        for note in (*([refused] if refused else []), *result.notes):
            yield f"{result_label(result)}: {note}"


def _count(n: int | None) -> str:
    return _NONE if n is None else format_count(n)


def _estimate(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.2f}"
