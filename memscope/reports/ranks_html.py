"""Ranks side by side as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from memscope.figures.ledger import ledger_figure
from memscope.ranks.comparison import AlignedStep, Difference, RankComparison, Spread, StepUse
from memscope.reports import html_page as parts
from memscope.reports.html_page import in_themes, page, picture, write_page
from memscope.reports.ranks import WHERE_OTHERS
from memscope.units import format_bytes, format_count
from memscope.words.labels import row_label, sentence, split_site
from memscope.words.ranks import (
    change_words,
    grouped_by_rank,
    named_rows,
    numbering_words,
    place_words,
    ranks_finding,
    same_settings_words,
    setting_label,
    setting_words,
    shown_steps,
    spread_words,
)

_N_ROWS = 16
_N_COLUMNS = 8
_N_STEPS = 50
_N_HOLDERS = 20
_NOT_RECORDED = '<span class="missing">not recorded</span>'


def write_ranks_html(comparison: RankComparison, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a comparison as one page.

    Raises
    ------
    UsageError
        If the file exists and may not be replaced.
    InputFileError
        If it cannot be written there.
    """
    return write_page(ranks_html(comparison), path, overwrite=overwrite)


def ranks_html(comparison: RankComparison) -> str:
    """A comparison as one page: each rank's peak, the spread, the steps, what differs."""
    finding = ranks_finding(comparison)
    n_files = len(comparison.analyses)
    body = parts.page_head(f"{n_files} recordings side by side") + parts.headline(sentence(finding))
    body += _peaks(comparison) + _trust(comparison)
    if len(comparison.rows) > 1:
        body += _categories(comparison) + _steps(comparison) + _differences(comparison) + _settings(comparison)
    body += "".join(_ledger(comparison, i) for i in named_rows(comparison, _N_ROWS))
    return page(f"memscope: {n_files} recordings side by side", body + parts.page_foot())


def _section(title: str, *content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{''.join(content)}</section>"


def _trust(comparison: RankComparison) -> str:
    analyses = comparison.analyses
    items = [escape(words) for words in numbering_words(comparison)]
    sentences = grouped_by_rank(comparison, lambda row: [analyses[row.position].trust_sentence()], WHERE_OTHERS)
    items += [escape(f"{who}: {sentence}") for who, sentence in sentences]
    warnings = [f"{name} is empty: it has no segments and no events" for name in comparison.without_devices]
    warnings += [
        f"{who}: {warning}" for who, warning in grouped_by_rank(comparison, lambda row: row.warnings, WHERE_OTHERS)
    ]
    items += [f'<span class="warn">⚠</span> {escape(warning)}' for warning in warnings]
    return _section("Can it be trusted?", "<ul>", *(f"<li>{item}</li>" for item in items), "</ul>")


def _peaks(comparison: RankComparison) -> str:
    listed = named_rows(comparison, _N_ROWS)
    rows = []
    for row in (comparison.rows[i] for i in listed):
        n_ooms = len(row.oom_events)
        file = f'<br><span class="quiet">{escape(row.name)}</span>' if comparison.is_one_run else ""
        oom = f' <span class="bad">out of memory{f" {n_ooms} times" if n_ooms > 1 else ""}</span>' if n_ooms else ""
        rows.append(
            (
                f"{escape(row.label)}{oom}{file}",
                parts.size(row.peak.allocated_bytes),
                escape(place_words(row.peak)),
                parts.size(None if row.peak_reserved is None else row.peak_reserved.reserved_bytes),
                parts.size(row.free_at_peak_reserved_bytes),
                parts.size(row.headroom_bytes),
            )
        )
    headings = (comparison.noun, "peak allocated", "at", "peak reserved", "free then", "headroom")
    n_more = len(comparison.rows) - len(listed)
    more = f'<p class="quiet">{format_count(n_more)} more lie between these.</p>' if n_more else ""
    spread = "".join(f'<p class="quiet">{escape(words)}</p>' for words in spread_words(comparison))
    return _section("Each at its peak", parts.table(headings, rows, (1, 3, 4, 5)), more, spread)


def _by_row(comparison: RankComparison, heading: str, lines: Sequence[tuple[str, Sequence[str], Spread]]) -> str:
    """A table with a column for each row, or for the extremes and the median where there are too many."""
    rows = comparison.rows
    if len(rows) <= _N_COLUMNS:
        headings = (heading, *(row.label for row in rows), "spread")
        cells = [
            (name, *sizes, parts.size(spread.spread_bytes) if spread.n_rows > 1 else "—")
            for name, sizes, spread in lines
        ]
        return parts.table(headings, cells, range(1, len(headings)))
    headings = (heading, "highest", "of", "median", "lowest", "of", "spread", f"{comparison.noun}s")
    cells = [
        (
            name,
            parts.size(spread.highest_bytes),
            escape(rows[spread.highest].label),
            parts.size(spread.median_bytes),
            parts.size(spread.lowest_bytes),
            escape(rows[spread.lowest].label),
            parts.size(spread.spread_bytes),
            format_count(spread.n_rows),
        )
        for name, _, spread in lines
    ]
    return parts.table(headings, cells, (1, 3, 4, 6, 7))


def _categories(comparison: RankComparison) -> str:
    lines = [
        (
            parts.swatch(name) + escape(row_label(name)),
            [parts.size(row.category_bytes[name]) for row in comparison.rows],
            spread,
        )
        for name, spread in comparison.category_spreads.items()
    ]
    return _section(f"Allocated, each {comparison.noun} at its own peak", _by_row(comparison, "category", lines))


def _steps(comparison: RankComparison) -> str:
    if not comparison.steps:
        missing = f"No steps were recorded, so the {comparison.noun}s are not aligned: mark them with rec.step()."
        return _section("Steps", f'<p class="missing">{missing}</p>')
    shown = shown_steps(comparison, _N_STEPS)
    n_all = len(comparison.steps)
    which = f", the {len(shown)} of {format_count(n_all)} that differ most in it" if len(shown) < n_all else ""
    same = f", the same {len(shown)}" if len(shown) < n_all else ""
    allocated = [
        (escape(step.title), [_step_cell(step, use, "allocated_bytes") for use in step.uses], step.allocated)
        for step in shown
    ]
    reserved = [
        (escape(step.title), [_step_cell(step, use, "reserved_bytes") for use in step.uses], step.reserved)
        for step in shown
        if step.reserved is not None
    ]
    body = _section(f"Highest allocated in each step{which}", _by_row(comparison, "", allocated))
    if reserved:
        body += _section(f"Highest reserved in each step{same}", _by_row(comparison, "", reserved))
    return body


def _step_cell(step: AlignedStep, use: StepUse | None, name: str) -> str:
    if use is None:
        return _NOT_RECORDED
    cut = '<br><span class="quiet">recording ended</span>' if step.label is not None and not use.is_finished else ""
    return parts.size(getattr(use, name)) + cut


def _differences(comparison: RankComparison) -> str:
    found = comparison.differences
    if found is None:
        return ""
    highest, lowest = comparison.rows[found.highest].label, comparison.rows[found.lowest].label
    when = f" in {found.step.title}" if found.step is not None else ", each at its own peak (they share no step)"
    categories = [d for d in found.categories if d.difference_bytes]
    if not categories and not found.holders:
        return _section(f"Nothing differs between {highest} and {lowest}{when}")
    title = f"What {highest} holds beyond {lowest}{when}: {change_words(found.difference_bytes)} allocated"
    headings = (highest, lowest, "difference")
    moments = f"After event {found.highest_event:,} of {highest} and event {found.lowest_event:,} of {lowest}."
    rest = found.holders[_N_HOLDERS:]
    total = change_words(sum(d.difference_bytes for d in rest))
    more = f'<p class="quiet">{format_count(len(rest))} more, {total} together</p>' if rest else ""
    return _section(
        title,
        f'<p class="quiet">{escape(moments)}</p>',
        parts.table(("category", *headings), [_difference(d) for d in categories], (1, 2, 3)),
        parts.table(
            ("owner or line of code", *headings), [_difference(d) for d in found.holders[:_N_HOLDERS]], (1, 2, 3)
        ),
        more,
    )


def _difference(difference: Difference) -> tuple[str, ...]:
    name = escape(row_label(difference.name))
    if difference.kind in ("category", "rounding"):
        name = parts.swatch(difference.name) + name
    elif difference.kind == "site":
        function, place = split_site(difference.name)
        name = f"{escape(function)}<br><code class=quiet>{escape(place)}</code>"
    change = f'<span title="{difference.difference_bytes:+,} bytes">{change_words(difference.difference_bytes)}</span>'
    return name, parts.size(difference.highest_bytes), parts.size(difference.lowest_bytes), change


def _settings(comparison: RankComparison) -> str:
    if not comparison.settings_that_differ:
        return _section(sentence(same_settings_words(comparison)))
    rows = [
        ("" if i else escape(setting_label(setting.name)), escape(value), escape(who))
        for setting in comparison.settings_that_differ
        for i, (value, who) in enumerate(setting_words(comparison, setting).items())
    ]
    return _section("Settings and facts that differ", parts.table(("", "value", "who"), rows))


def _ledger(comparison: RankComparison, position: int) -> str:
    row = comparison.rows[position]
    peak = comparison.device_of(position).at(row.peak.event)
    figures = in_themes(lambda theme: ledger_figure(peak.ledger, theme))
    bar = picture(f"ledger-{position}", figures, f"the ledger of {row.label} as a bar")
    title = f"{row.label} at its peak: {format_bytes(row.peak.allocated_bytes)} allocated ({place_words(row.peak)})"
    return _section(title, bar, parts.ledger_table(peak.ledger))
