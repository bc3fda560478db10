"""The object of ``memscope diff --json``. Bytes are integers, what was not measured is null."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from memscope.compare.difference import Difference, Row
from memscope.device.device import Moment
from memscope.reports.json import usage_json
from memscope.words.compare import differing_facts


def diff_json(difference: Difference) -> dict[str, Any]:
    """Both moments, their difference, and the rows that sum to it, rounding among them."""
    a, b = difference.a, difference.b
    return {
        "a": _moment_json(a),
        "b": _moment_json(b),
        "device": b.device.index,
        "delta_bytes": difference.delta_bytes,
        "delta_reserved_bytes": _reserved_delta(a, b),
        "by": difference.by.value,
        "rows": rows_json(difference.rows),
        "categories": rows_json(difference.categories),
        "matched": asdict(difference.matched),
        "owners_in": difference.owners_in,
        "settings_that_differ": [{"name": n, "a": one, "b": two} for n, one, two in differing_facts(difference)],
    }


def _moment_json(moment: Moment) -> dict[str, Any]:
    device = moment.device
    return {
        "trace": device.recording.name,
        "device": device.index,
        **usage_json(moment),
        "peak_allocated_bytes": device.peak().allocated_bytes,
        "peak_reserved_bytes": device.peak_reserved().reserved_bytes,
        "is_complete": device.recording.completeness.is_complete,
        "warnings": list(device.recording.completeness.warnings),
    }


def _reserved_delta(a: Moment, b: Moment) -> int | None:
    return None if a.reserved_bytes is None or b.reserved_bytes is None else b.reserved_bytes - a.reserved_bytes


def rows_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows of a difference, those without a difference among them."""
    return [
        {
            "key": row.key,
            "category": row.category,
            "a_bytes": row.a_bytes,
            "b_bytes": row.b_bytes,
            "delta_bytes": row.delta_bytes,
            "a_allocations": None if row.is_rounding else row.n_a,
            "b_allocations": None if row.is_rounding else row.n_b,
            "change": None if row.is_rounding else row.change.value,
            "site": row.site,
        }
        for row in rows
    ]
