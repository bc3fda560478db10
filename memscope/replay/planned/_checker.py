"""Proof that a static plan is sound; written on its own, so that a mistake of the planner cannot be repeated here."""

from __future__ import annotations

import numpy as np

from memscope._core import planning
from memscope.errors import InvariantError
from memscope.trace.tables import BoolArray, Int64Array

MIN_ALIGNMENT_BYTES = 512


def check_plan(
    start: Int64Array,
    end: Int64Array,
    size_bytes: Int64Array,
    offset: Int64Array,
    plan_bytes: int,
    *,
    alignment_bytes: int = MIN_ALIGNMENT_BYTES,
) -> None:
    """Check that no two allocations that live at the same time overlap, and that all are aligned and inside the plan.

    O(n log n).

    Parameters
    ----------
    start, end
        int64 (rows,): each lives in ``[start, end)``; one that ends where another starts may share its place.
    size_bytes, offset
        int64 (rows,): each occupies ``[offset, offset + size_bytes)``.
    plan_bytes
        Size of the address range.

    Raises
    ------
    InvariantError
        If it is not so; the message names the rows, by position.
    """
    start, end, size_bytes, offset = (np.asarray(column, np.int64) for column in (start, end, size_bytes, offset))
    if not len(start) == len(end) == len(size_bytes) == len(offset):
        raise InvariantError("plan: start, end, size_bytes and offset differ in length")
    _refuse(start >= end, "ends no later than it starts", start, end)
    _refuse(size_bytes <= 0, "has no size", size_bytes, offset)
    _refuse(offset % alignment_bytes != 0, f"is not aligned to {alignment_bytes:,} bytes", size_bytes, offset)
    # Compared without a sum, which could overflow.
    outside = (offset < 0) | (offset > plan_bytes - size_bytes)
    _refuse(outside, f"is not inside a plan of {plan_bytes:,} bytes", size_bytes, offset)
    overlap = planning.find_overlap(start, end, offset, offset + size_bytes)
    if overlap is not None:
        row, other = overlap
        places = " and ".join(f"{i} in [{int(offset[i]):,}, {int(offset[i] + size_bytes[i]):,})" for i in (other, row))
        raise InvariantError(f"plan: allocations {places} overlap and are both alive at event {int(start[row]):,}")


def _refuse(is_wrong: BoolArray, what: str, *columns: Int64Array) -> None:
    rows = np.flatnonzero(is_wrong)
    if len(rows):
        values = ", ".join(f"{int(column[rows[0]]):,}" for column in columns)
        raise InvariantError(f"plan: allocation {int(rows[0])} ({values}) {what} ({len(rows):,} such)")
