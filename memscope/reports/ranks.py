"""Ranks side by side as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.ranks.comparison import (
    AlignedStep,
    Difference,
    Differences,
    PeakUse,
    RankComparison,
    RankRow,
    SettingDifference,
    Spread,
    StepUse,
)
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.units import format_bytes, format_count
from memscope.words.labels import row_label
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
    shortened,
    shown_steps,
    spread_words,
)

WHERE_OTHERS = " (the JSON has them)"
"""Where texts can be read that differ from those shown in their numbers only."""


def ranks_json(comparison: RankComparison) -> dict[str, Any]:
    """The object of ``memscope report A B --json``; rows are named by label, rank and device everywhere."""
    rows = comparison.rows
    return {
        "n_ranks": comparison.n_ranks,
        "is_one_run": comparison.is_one_run,
        "ranks": [_row(comparison, row) for row in rows],
        "without_devices": list(comparison.without_devices),
        "spread": {
            "peak_allocated": _spread(rows, comparison.peak_allocated),
            "peak_reserved": _spread(rows, comparison.peak_reserved),
            "by_category": {name: _spread(rows, spread) for name, spread in comparison.category_spreads.items()},
        },
        "steps": [_step(rows, step) for step in comparison.steps],
        "differences": None if comparison.differences is None else _differences(rows, comparison.differences),
        "settings_that_differ": [_setting(rows, setting) for setting in comparison.settings_that_differ],
    }


def _who(row: RankRow) -> dict[str, Any]:
    """A row; its rank is null where nothing tells it."""
    return {"label": row.label, "rank": row.rank, "device": row.device}


def _row(comparison: RankComparison, row: RankRow) -> dict[str, Any]:
    analysis = comparison.analyses[row.position]
    return {
        **_who(row),
        "rank_source": row.rank_source.name.lower(),
        "path": None if row.path is None else str(row.path),
        "name": row.name,
        "device_name": row.device_name,
        "total_bytes": row.total_bytes,
        "headroom_bytes": row.headroom_bytes,
        "n_events": row.n_events,
        "n_steps": row.n_steps,
        "peak": _use(row.peak),
        "peak_active": _use(row.peak_active),
        "peak_reserved": None if row.peak_reserved is None else _use(row.peak_reserved),
        "free_at_peak_reserved_bytes": row.free_at_peak_reserved_bytes,
        "by_category": dict(row.category_bytes),
        "n_ooms": len(row.oom_events),
        "oom_events": list(row.oom_events),
        "completeness": {
            "is_complete": analysis.completeness.is_complete,
            "n_events_lost": analysis.completeness.n_events_lost,
            "warnings": list(row.warnings),
        },
    }


def _use(use: PeakUse) -> dict[str, Any]:
    return {
        "event": use.event,
        "step": use.step,
        "where": use.where or None,
        "allocated_bytes": use.allocated_bytes,
        "active_bytes": use.active_bytes,
        "reserved_bytes": use.reserved_bytes,
        "free_bytes": use.free_bytes,
    }


def _spread(rows: tuple[RankRow, ...], spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {
        "highest": {**_who(rows[spread.highest]), "bytes": spread.highest_bytes},
        "median": {**_who(rows[spread.median]), "bytes": spread.median_bytes},
        "lowest": {**_who(rows[spread.lowest]), "bytes": spread.lowest_bytes},
        "spread_bytes": spread.spread_bytes,
        "spread_frac": spread.spread_frac,
        "n_measured": spread.n_rows,
    }


def _step(rows: tuple[RankRow, ...], step: AlignedStep) -> dict[str, Any]:
    return {
        "step": step.label,
        "occurrence": step.occurrence,
        "ranks": [None if use is None else _step_use(row, use) for row, use in zip(rows, step.uses, strict=True)],
        "spread": {"allocated": _spread(rows, step.allocated), "reserved": _spread(rows, step.reserved)},
    }


def _step_use(row: RankRow, use: StepUse) -> dict[str, Any]:
    return {
        **_who(row),
        "begin_event": use.begin,
        "end_event": use.end,
        "is_finished": use.is_finished,
        "allocated_bytes": use.allocated_bytes,
        "allocated_event": use.allocated_event,
        "reserved_bytes": use.reserved_bytes,
        "reserved_event": use.reserved_event,
    }


def _differences(rows: tuple[RankRow, ...], found: Differences) -> dict[str, Any]:
    return {
        "step": None if found.step is None else found.step.label,
        "occurrence": None if found.step is None else found.step.occurrence,
        "highest": {
            **_who(rows[found.highest]),
            "event": found.highest_event,
            "allocated_bytes": found.highest_allocated_bytes,
        },
        "lowest": {
            **_who(rows[found.lowest]),
            "event": found.lowest_event,
            "allocated_bytes": found.lowest_allocated_bytes,
        },
        "difference_bytes": found.difference_bytes,
        "categories": [_difference(d) for d in found.categories],
        "holders": [_difference(d) for d in found.holders],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "name": difference.name,
        "kind": difference.kind,
        "highest_bytes": difference.highest_bytes,
        "lowest_bytes": difference.lowest_bytes,
        "difference_bytes": difference.difference_bytes,
    }


def _setting(rows: tuple[RankRow, ...], setting: SettingDifference) -> dict[str, Any]:
    values = [{**_who(row), "value": value} for row, value in zip(rows, setting.values, strict=True)]
    return {"name": setting.name, "values": values}


N_ROWS_EACH = 16
"""Up to so many rows, each is listed; of more, the extremes and the median."""
_NAME_LENGTH = 24
_SITE_LENGTH = 200
_N_STEPS = 10
_N_HOLDERS = 8
_NOT_MEASURED = "not measured"
_NOT_RECORDED = "—"
_UNFINISHED = "*"


def print_ranks(comparison: RankComparison, console: Console) -> None:
    """Print the comparison: what to trust, each rank's peak, the spread, the steps, what differs."""
    console.print(Text(ranks_finding(comparison), style="bold"))
    _print_trust(comparison, console)
    console.print()
    _print_rows(comparison, console)
    for words in spread_words(comparison):
        console.print(f"  {words}")
    if len(comparison.rows) > 1:
        _print_categories(comparison, console)
        _print_steps(comparison, console)
        _print_differences(comparison, console)
        _print_settings(comparison, console)


def _print_trust(comparison: RankComparison, console: Console) -> None:
    for words in numbering_words(comparison):
        console.print(Text(f"  · {words}", style="dim"))
    for name in comparison.without_devices:
        console.print(Text(f"  ⚠ {name} is empty: it has no segments and no events", style="yellow"))
    analyses = comparison.analyses
    for words, sentence in grouped_by_rank(
        comparison, lambda row: [analyses[row.position].trust_sentence()], WHERE_OTHERS
    ):
        console.print(Text(f"  · {words}: {sentence}", style="dim"))
    for words, warning in grouped_by_rank(comparison, lambda row: row.warnings, WHERE_OTHERS):
        console.print(Text(f"  ⚠ {words}: {warning}", style="yellow"))


def _size(size: int | None) -> str:
    return _NOT_MEASURED if size is None else format_bytes(size)


def _print_rows(comparison: RankComparison, console: Console) -> None:
    listed = named_rows(comparison, N_ROWS_EACH)
    table = FittedTable(
        Column(comparison.noun, Kind.WORDS),
        Column("peak allocated"),
        Column("at", Kind.WORDS, place=3),
        Column("peak reserved", place=1),
        Column("free then", place=4),
        Column("headroom", place=5),
        Column("out of memory", place=2),
        Column("", Kind.NAME, place=6, style="dim", called="which is highest"),
    )
    has_headroom = any(row.headroom_bytes is not None for row in comparison.rows)
    for i in listed:
        row = comparison.rows[i]
        table.add_row(
            row.label,
            format_bytes(row.peak.allocated_bytes),
            place_words(row.peak),
            _size(None if row.peak_reserved is None else row.peak_reserved.reserved_bytes),
            _size(row.free_at_peak_reserved_bytes),
            _size(row.headroom_bytes) if has_headroom else "",
            _oom_words(row),
            _remark(comparison, i),
            style="bold red" if row.oom_events else None,
        )
    table.print(console)
    rest = [row for i, row in enumerate(comparison.rows) if i not in set(listed)]
    if rest:
        console.print(f"  {_rest_words(rest)}")


def _oom_words(row: RankRow) -> str:
    n = len(row.oom_events)
    return "" if not n else f"event {row.oom_events[0]:,}" + (f" and {n - 1} more" if n > 1 else "")


def _remark(comparison: RankComparison, row: int) -> str:
    spread = comparison.peak_allocated
    if not spread.spread_bytes:
        return ""
    if row == spread.highest:
        return "highest"
    if row == spread.lowest:
        return "lowest"
    return "median" if row == spread.median and len(comparison.rows) > N_ROWS_EACH else ""


def _rest_words(rest: Sequence[RankRow]) -> str:
    sizes = [row.peak.allocated_bytes for row in rest]
    n_ooms = sum(bool(row.oom_events) for row in rest)
    ooms = f", {format_count(n_ooms)} of them out of memory" if n_ooms else ""
    low, high = format_bytes(min(sizes)), format_bytes(max(sizes))
    between = f"peaks from {low} to {high} allocated" if low != high else f"peaks of {low} allocated"
    return f"{format_count(len(rest))} more: {between}{ooms} (the JSON has each)"


def _print_by_row(
    comparison: RankComparison, heading: str, lines: Sequence[tuple[str, Sequence[str], Spread]], console: Console
) -> None:
    """A table with a column for each rank, or for the extremes and the median where there are too many."""
    rows = comparison.rows
    first = Column(heading, Kind.WORDS)
    if len(rows) <= N_ROWS_EACH:
        table = FittedTable(first, *(Column(row.label) for row in rows), Column("spread"))
        for name, cells, spread in lines:
            apart = format_bytes(spread.spread_bytes) if spread.n_rows > 1 else _NOT_RECORDED
            table.add_row(shortened(name, _NAME_LENGTH), *cells, apart)
        if table.fits(console.width):
            table.print(console)
            return
    table = FittedTable(
        first,
        Column("highest"),
        Column("of", Kind.WORDS, place=2, called="which is highest"),
        Column("median", place=4),
        Column("lowest"),
        Column("of", Kind.WORDS, place=3, called="which is lowest"),
        Column("spread", place=1),
        Column(f"{comparison.noun}s", place=5),
    )
    for name, _, spread in lines:
        table.add_row(
            shortened(name, _NAME_LENGTH),
            format_bytes(spread.highest_bytes),
            rows[spread.highest].label,
            format_bytes(spread.median_bytes),
            format_bytes(spread.lowest_bytes),
            rows[spread.lowest].label,
            format_bytes(spread.spread_bytes),
            format_count(spread.n_rows),
        )
    table.print(console)


def _print_categories(comparison: RankComparison, console: Console) -> None:
    console.print()
    console.print(Text(f"Allocated, each {comparison.noun} at its own peak", style="bold"))
    lines = [
        (row_label(name), [format_bytes(row.category_bytes[name]) for row in comparison.rows], spread)
        for name, spread in comparison.category_spreads.items()
    ]
    _print_by_row(comparison, "category", lines, console)


def _print_steps(comparison: RankComparison, console: Console) -> None:
    if not comparison.steps:
        console.print()
        console.print(f"  no steps were recorded, so {comparison.noun}s are not aligned: mark them with rec.step()")
        return
    shown = shown_steps(comparison, _N_STEPS)
    n_all = len(comparison.steps)
    which = f", the {len(shown)} of {format_count(n_all)} that differ most in it" if len(shown) < n_all else ""
    same = f", the same {len(shown)}" if len(shown) < n_all else ""
    _print_step_table(comparison, f"Highest allocated in each step{which}", shown, _allocated, console)
    if comparison.peak_reserved is not None:
        _print_step_table(comparison, f"Highest reserved in each step{same}", shown, _reserved, console)
    uses = [(step, use) for step in shown for use in step.uses]
    notes = [f"{_NOT_RECORDED} not recorded"] if any(use is None for _, use in uses) else []
    if any(_is_cut(step, use) for step, use in uses):
        notes.append(f"{_UNFINISHED} the recording ended within the step")
    if notes:
        console.print(Text(f"  {'; '.join(notes)}", style="dim"))


def _allocated(step: AlignedStep) -> tuple[list[int | None], Spread | None]:
    return [None if use is None else use.allocated_bytes for use in step.uses], step.allocated


def _reserved(step: AlignedStep) -> tuple[list[int | None], Spread | None]:
    return [None if use is None else use.reserved_bytes for use in step.uses], step.reserved


def _is_cut(step: AlignedStep, use: StepUse | None) -> bool:
    return step.label is not None and use is not None and not use.is_finished


def _print_step_table(
    comparison: RankComparison,
    title: str,
    steps: Sequence[AlignedStep],
    sizes_of: Callable[[AlignedStep], tuple[list[int | None], Spread | None]],
    console: Console,
) -> None:
    lines = []
    for step in steps:
        sizes, spread = sizes_of(step)
        cells = [
            _NOT_RECORDED if size is None else format_bytes(size) + _UNFINISHED * _is_cut(step, use)
            for size, use in zip(sizes, step.uses, strict=True)
        ]
        if spread is not None:
            lines.append((step.title, cells, spread))
    console.print()
    console.print(Text(title, style="bold"))
    _print_by_row(comparison, "", lines, console)


def _print_differences(comparison: RankComparison, console: Console) -> None:
    found = comparison.differences
    if found is None:
        return
    highest, lowest = comparison.rows[found.highest].label, comparison.rows[found.lowest].label
    when = f" in {found.step.title}" if found.step is not None else ", each at its own peak (they share no step)"
    console.print()
    if not any(d.difference_bytes for d in (*found.categories, *found.holders)):
        console.print(Text(f"Nothing differs between {highest} and {lowest}{when}", style="bold"))
        return
    more = f"{change_words(found.difference_bytes)} allocated"
    console.print(Text(f"What {highest} holds beyond {lowest}{when}: {more}", style="bold"))
    console.print(
        Text(
            f"  after event {found.highest_event:,} of {highest} and event {found.lowest_event:,} of {lowest}",
            style="dim",
        )
    )
    categories = [d for d in found.categories if d.difference_bytes]
    _print_difference_table("category", (highest, lowest), categories, console)
    _print_difference_table("owner or line of code", (highest, lowest), found.holders[:_N_HOLDERS], console)
    rest = found.holders[_N_HOLDERS:]
    if rest:
        total = change_words(sum(d.difference_bytes for d in rest))
        console.print(f"  {format_count(len(rest))} more, {total} together (the JSON has each)")


def _print_difference_table(
    heading: str, labels: tuple[str, str], differences: Sequence[Difference], console: Console
) -> None:
    if not differences:
        return
    columns = [Column(label, place=2 + i) for i, label in enumerate(labels)]
    table = FittedTable(Column(heading, Kind.WORDS), *columns, Column("difference"), Column("bytes", place=1))
    for d in differences:
        sizes = (format_bytes(d.highest_bytes), format_bytes(d.lowest_bytes))
        name = row_label(d.name) if d.kind in ("category", "rounding") else d.name
        table.add_row(
            shortened(name, _SITE_LENGTH), *sizes, change_words(d.difference_bytes), f"{d.difference_bytes:+,}"
        )
    table.print(console)


def _print_settings(comparison: RankComparison, console: Console) -> None:
    console.print()
    if not comparison.settings_that_differ:
        console.print(f"  {same_settings_words(comparison)}")
        return
    console.print(Text("Settings and facts that differ", style="bold"))
    for setting in comparison.settings_that_differ:
        groups: Mapping[str, str] = setting_words(comparison, setting)
        parts = [f"{shortened(value, _SITE_LENGTH)} ({who})" for value, who in groups.items()]
        line = f"  {setting_label(setting.name)}: {'; '.join(parts)}"
        if len(line) <= console.width:
            console.print(Text(line))
        else:
            console.print(Text("\n".join([f"  {setting_label(setting.name)}", *(f"    {part}" for part in parts)])))
