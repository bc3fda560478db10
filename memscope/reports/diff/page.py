"""A difference as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from memscope.compare.difference import By, Difference, Row
from memscope.figures.compare import waterfall_figure
from memscope.reports import html_page as parts
from memscope.reports.html_page import in_themes, page, picture, write_page
from memscope.units import format_bytes, format_items
from memscope.words.compare import (
    changes_words,
    differing_facts,
    headline,
    matched_words,
    owners_hint,
    place_hint,
    place_words,
    row_name,
    signed_bytes,
    trace_names,
)
from memscope.words.labels import row_label, sentence, short_place, split_site

_N_ROWS = 50


def write_diff_html(differences: Sequence[Difference], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write differences, one for each device, as one page.

    Raises
    ------
    UsageError
        If the file exists and may not be replaced.
    InputFileError
        If it cannot be written there.
    """
    return write_page(diff_html(differences), path, overwrite=overwrite)


def diff_html(differences: Sequence[Difference]) -> str:
    """Differences as one page: the sum, the waterfall by category, the rows, what else differs."""
    names = " → ".join(dict.fromkeys(trace_names(differences[0])))
    body = parts.page_head(f"memscope diff: {names}")
    for i, difference in enumerate(differences):
        about = f"Device {difference.b.device.index}" if len(differences) > 1 else ""
        body += parts.headline(sentence(headline(difference)), about)
        body += _moments(difference) + _waterfall(difference, i) + _rows(difference)
    return page(f"memscope diff: {names}", body + parts.page_foot())


def _section(title: str, *content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{''.join(content)}</section>"


def _moments(difference: Difference) -> str:
    rows = []
    for label, moment, name in zip("AB", (difference.a, difference.b), trace_names(difference), strict=True):
        warnings = moment.device.recording.completeness.warnings
        listed = "".join(f'<br><span class="warn">⚠</span> {escape(text)}' for text in warnings)
        rows.append(
            (
                f"<b>{label}</b> {escape(name)}{listed}",
                escape(place_words(moment)),
                parts.size(moment.allocated_bytes),
                parts.size(moment.reserved_bytes),
                parts.size(moment.device.peak_reserved().reserved_bytes),
            )
        )
    table = parts.table(("", "moment", "allocated", "reserved", "reserved at most"), rows, (2, 3, 4))
    facts = differing_facts(difference)
    hints = [hint for hint in (place_hint(difference), owners_hint(difference)) if hint]
    note = "".join(f'<p class="quiet">{escape(sentence(hint))}.</p>' for hint in hints)
    differing = parts.table(("differs", "A", "B"), [tuple(map(escape, fact)) for fact in facts]) if facts else ""
    return _section("What is compared", table, note, differing)


def _waterfall(difference: Difference, i: int) -> str:
    rows = [
        (
            parts.swatch(row.category) + escape(row_label(row.key)),
            parts.size(row.a_bytes),
            parts.size(row.b_bytes),
            _change(row.delta_bytes),
        )
        for row in difference.categories
    ]
    a, b = difference.a.allocated_bytes, difference.b.allocated_bytes
    total = [f"<b>{cell}</b>" for cell in (parts.size(a), parts.size(b), _change(difference.delta_bytes))]
    rows.append(("<b>allocated</b>", total[0], total[1], total[2]))
    drawing = ""
    if difference.delta_bytes or any(row.delta_bytes for row in difference.categories):
        figures = in_themes(lambda theme: waterfall_figure(difference, theme))
        drawing = picture(f"waterfall-{i}", figures, "what each category adds or takes between both moments")
    return _section("By category", drawing, parts.table(("category", "A", "B", "difference"), rows, (1, 2, 3)))


def _rows(difference: Difference) -> str:
    if difference.by is By.CATEGORY:
        return ""
    changed = [row for row in difference.rows if row.delta_bytes and not row.is_rounding]
    rows = [
        (
            _change(row.delta_bytes),
            row.change.value,
            parts.size(row.a_bytes),
            parts.size(row.b_bytes),
            parts.swatch(row.category) + escape(row_label(row.category)),
            _name(row),
        )
        for row in changed[:_N_ROWS]
    ]
    rest = changed[_N_ROWS:]
    total = signed_bytes(sum(row.delta_bytes for row in rest))
    more = f'<p class="quiet">{format_items(len(rest), "more row")}, {total} together</p>' if rest else ""
    how = f'<p class="quiet">{escape(sentence(matched_words(difference)))}.</p>'
    table = parts.table(("difference", "", "A", "B", "category", "owner or line of code"), rows, (0, 2, 3))
    return _section(f"What changed: {changes_words(difference)}", table if rows else "", more, how)


def _name(row: Row) -> str:
    function, place = split_site(row_name(row))
    name = f"{escape(function)}<br><code class=quiet>{escape(place)}</code>" if place else escape(row_name(row))
    if row.site is None or row.site == row.key:
        return name
    function, place = split_site(row.site)
    where = f"{escape(function)} {escape(short_place(place))}"
    return f'{name}<br><code class=quiet title="{escape(row.site)}">{where}</code>'


def _change(n_bytes: int) -> str:
    exact = f"{n_bytes:+,} bytes"
    return f'<span title="{exact}">{signed_bytes(n_bytes) if n_bytes else format_bytes(0)}</span>'
