"""The JSON of ranks side by side: what ``memscope report --json`` prints for several traces."""

from __future__ import annotations

from typing import Any

from memscope.side_by_side import (
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


def ranks_json(comparison: RankComparison) -> dict[str, Any]:
    """The object of ``memscope report A B --json``; rows are named by rank and device everywhere."""
    rows = comparison.rows
    return {
        "n_ranks": comparison.n_ranks,
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


def _who(row: RankRow) -> dict[str, int]:
    return {"rank": row.rank, "device": row.device}


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
