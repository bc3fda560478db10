"""A comparison of ranks in words: the finding, who is meant, which rows and steps are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from memscope.ranks.comparison import (
    AlignedStep,
    PeakUse,
    RankComparison,
    RankRow,
    RankSource,
    SettingDifference,
    Spread,
)
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction

_N_GROUPS = 6
_N_ALIKE = 3
_PLACE_LENGTH = 32
_LABEL_LENGTH = 80
_SETTING_LABELS = {
    "source": "recorded by",
    "torch_version": "torch",
    "alloc_conf": "allocator settings",
    "device_name": "device",
    "device_total_bytes": "device memory",
    "memory_fraction": "memory fraction",
    "n_steps": "steps",
    "n_events": "events",
}
_NUMBERS = re.compile(r"\d[\d,.]*( [KMGT]?i?B\b)?")


def ranks_finding(comparison: RankComparison) -> str:
    """``rank 2 peaks highest: 74.0 MiB allocated (step 2, backward); rank 0 lowest, 12.0 MiB (16.2 %) less``."""
    spread, rows = comparison.peak_allocated, comparison.rows
    top = rows[spread.highest]
    if len(rows) == 1:
        return f"{top.label}: peak {format_bytes(spread.highest_bytes)} allocated ({place_words(top.peak)})"
    if not spread.spread_bytes:
        what = "devices" if comparison.n_ranks < len(rows) else f"{comparison.noun}s"
        return f"all {len(rows)} {what} peak at {format_bytes(spread.highest_bytes)} allocated"
    less = f"{format_bytes(spread.spread_bytes)} ({format_fraction(spread.spread_frac or 0)}) less"
    peak = f"{format_bytes(spread.highest_bytes)} allocated ({place_words(top.peak)})"
    return f"{top.label} peaks highest: {peak}; {rows[spread.lowest].label} lowest, {less}"


def place_words(use: PeakUse) -> str:
    """Where a moment lies: its step and phase, else its event."""
    return shortened(use.where, _PLACE_LENGTH) or ("the start" if use.event == NONE_ID else f"event {use.event:,}")


def shortened(text: str, limit: int) -> str:
    """A name on one line; a longer one loses its end. Names in a trace are anyone's: they may hold line breaks."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def change_words(n_bytes: int) -> str:
    """A difference with its sign: ``+12.0 MiB``."""
    return f"+{format_bytes(n_bytes)}" if n_bytes > 0 else format_bytes(n_bytes)


def numbers_words(numbers: Iterable[int]) -> str:
    """Runs of numbers: ``0–3, 7``."""
    ordered = sorted(set(numbers))
    runs = [list(run) for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0][1]) if len(run) == 1 else f"{run[0][1]}–{run[-1][1]}" for run in runs)


def rank_words(comparison: RankComparison, rows: Sequence[RankRow]) -> str:
    """Who is meant: ``rank 3``, ``ranks 0–3, 7``, ``all ranks``; a part of a rank's devices, and files, by name."""
    if not comparison.is_one_run:
        if len(rows) == len(comparison.rows) > 1:
            return "all traces"
        return "; ".join(shortened(row.label, _LABEL_LENGTH) for row in rows)
    ranks = {row.rank for row in rows if row.rank is not None}
    if len(rows) < sum(row.rank in ranks for row in comparison.rows):
        return "; ".join(row.label for row in rows)
    if len(ranks) == comparison.n_ranks > 1:
        return "all ranks"
    return f"rank{'s' if len(ranks) > 1 else ''} {numbers_words(ranks)}"


def grouped_by_rank(
    comparison: RankComparison, texts_of: Callable[[RankRow], Iterable[str]], where_others: str = ""
) -> list[tuple[str, str]]:
    """Each distinct text once, with the ranks that it is said of: (who, text), in order of first appearance.

    Of texts that differ in their numbers only, the first few are given, and who has the others; ``where_others`` says
    where those can be read.
    """
    rows_of: dict[str, list[RankRow]] = {}
    for row in comparison.rows:
        for text in dict.fromkeys(texts_of(row)):
            rows_of.setdefault(text, []).append(row)
    alike: dict[str, list[str]] = {}
    for text in rows_of:
        alike.setdefault(_NUMBERS.sub("#", text), []).append(text)
    found = []
    for texts in alike.values():
        found += [(rank_words(comparison, rows_of[text]), text) for text in texts[:_N_ALIKE]]
        others = {id(row): row for text in texts[_N_ALIKE:] for row in rows_of[text]}
        if others:
            found.append((rank_words(comparison, list(others.values())), f"the same, with other numbers{where_others}"))
    return found


def numbering_words(comparison: RankComparison) -> list[str]:
    """What told the ranks, where that was not the recordings themselves, or that nothing did."""
    if not comparison.is_one_run:
        if comparison.n_ranks == 1:
            return []
        return ["nothing says that these are ranks of one run: each is called by its file"]
    rows = [row for row in comparison.rows if row.rank_source is RankSource.FILE_NAME]
    return [f"{rank_words(comparison, rows)}: numbered by the name of the file"] if rows else []


def spread_words(comparison: RankComparison) -> list[str]:
    """The spread of the peaks, a sentence each."""
    found = (("allocated", comparison.peak_allocated), ("reserved", comparison.peak_reserved))
    return [_spread_sentence(comparison, what, spread) for what, spread in found if spread is not None]


def _spread_sentence(comparison: RankComparison, what: str, spread: Spread) -> str:
    missing = len(comparison.rows) - spread.n_rows
    unmeasured = f"; not measured in {format_count(missing)}" if missing else ""
    if spread.n_rows == 1:
        return f"peak {what}: {format_bytes(spread.highest_bytes)}{unmeasured}"
    if not spread.spread_bytes:
        return f"peak {what}: {format_bytes(spread.highest_bytes)} everywhere, spread 0 B{unmeasured}"
    share = "" if spread.spread_frac is None else f", {format_fraction(spread.spread_frac)} of the highest"
    rows = comparison.rows
    low, high = (
        f"{format_bytes(size)} ({rows[i].label})"
        for size, i in ((spread.lowest_bytes, spread.lowest), (spread.highest_bytes, spread.highest))
    )
    middle = f", median {format_bytes(spread.median_bytes)}" if spread.n_rows > 2 else ""
    return f"peak {what}: {low} to {high}{middle}; spread {format_bytes(spread.spread_bytes)}{share}{unmeasured}"


def named_rows(comparison: RankComparison, limit: int) -> list[int]:
    """Positions of the rows to list: all up to a limit, else the extremes, the medians and the first out of memory."""
    rows = comparison.rows
    if len(rows) <= limit:
        return list(range(len(rows)))
    spreads = [spread for spread in (comparison.peak_allocated, comparison.peak_reserved) if spread is not None]
    named = {i for spread in spreads for i in (spread.highest, spread.median, spread.lowest)}
    named |= {next((i for i, row in enumerate(rows) if row.oom_events), spreads[0].highest)}
    return sorted(named)


def shown_steps(comparison: RankComparison, limit: int) -> list[AlignedStep]:
    """The steps to list, in order: all up to a limit, else those in which the ranks lie farthest apart."""
    steps = comparison.steps
    if len(steps) <= limit:
        return list(steps)
    by_spread = sorted(range(len(steps)), key=lambda i: (-steps[i].allocated.spread_bytes, i))
    chosen = by_spread[:limit]
    differences = comparison.differences
    if differences is not None and differences.step is not None:
        position = steps.index(differences.step)
        if position not in chosen:
            chosen[-1] = position
    return [steps[i] for i in sorted(chosen)]


def same_settings_words(comparison: RankComparison) -> str:
    """That nothing of what was set or is fixed differs."""
    who = "on all ranks" if comparison.is_one_run else "in all traces"
    return f"settings, versions, device sizes and numbers of events are the same {who}"


def setting_label(name: str) -> str:
    """What people call a setting or a fact of a recording."""
    return _SETTING_LABELS.get(name, name.replace("allocator_settings.", "allocator setting "))


def setting_words(comparison: RankComparison, setting: SettingDifference) -> dict[str, str]:
    """Each value of a setting, and the ranks that have it; of many values the first few."""
    rows_of: dict[str, list[RankRow]] = {}
    for row, value in zip(comparison.rows, setting.values, strict=True):
        rows_of.setdefault(_value_words(setting.name, value), []).append(row)
    words = {value: rank_words(comparison, rows) for value, rows in list(rows_of.items())[:_N_GROUPS]}
    if len(rows_of) > _N_GROUPS:
        words["…"] = f"{format_count(len(rows_of) - _N_GROUPS)} more values"
    return words


def _value_words(name: str, value: object) -> str:
    if value is None:
        return "not recorded"
    if name == "alloc_conf" and value == "":
        return "default"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{format_bytes(value)} = {format_count(value)} bytes"
    return format_count(value) if type(value) is int else str(value)
