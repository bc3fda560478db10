"""Which allocations last, in what order those from before the events were probably made, and what replaced which."""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int64Array

_REGION_GAP_BYTES = 64 << 20
"""Segments further apart than this lie in regions of the address space that the driver took at different times."""
_TOP_DOWN_ADDRESS = 1 << 46
"""Linux gives a process addresses from its upper end downwards; drivers on it take their regions there."""


def lasting_rows(lifetimes: DeviceLifetimes) -> BoolArray:
    """Which allocations are still there after the last that is made: bool (rows,).

    What a program lets go of when it ends was kept for all of its work.
    """
    first, end = lifetimes.first_event, lifetimes.end_event
    allocs = np.flatnonzero(lifetimes.trace.action[first:end] == Action.ALLOC)
    last = first + int(allocs[-1]) if len(allocs) else NONE_ID
    lasting: BoolArray = (lifetimes.died_event > last) if len(allocs) else lifetimes.allocations.free_event == NONE_ID
    return lasting


def by_age(lifetimes: DeviceLifetimes) -> tuple[Int64Array, ...]:
    """Rows from before the events, those that were probably made first at the front: int64, in one order or two.

    Within a region of the address space later segments lie higher, and earlier requests lower in their segments. Where
    a driver takes regions as Linux gives them, later ones may lie higher or lower: both orders are given, first the one
    in which the events take new regions, without any such from above downwards.
    """
    table, segments = lifetimes.allocations, lifetimes.timeline.segments_at(lifetimes.first_event - 1)
    old = np.flatnonzero(table.alloc_event == NONE_ID)
    gap = segments.address[1:] - (segments.address + segments.size_bytes)[:-1]
    starts = segments.address[1:][gap > _REGION_GAP_BYTES]
    region = np.searchsorted(starts, table.address[old], "right")
    upwards = old[np.lexsort((table.address[old], region))]
    if len(np.unique(region)) < 2 or int(table.address[old].max()) < _TOP_DOWN_ADDRESS:
        return (upwards,)
    downwards = old[np.lexsort((table.address[old], -region))]
    return (downwards, upwards) if _goes_down(lifetimes, segments.address) else (upwards, downwards)


def follow_replacements(
    lifetimes: DeviceLifetimes, rows: Int64Array, among: Int64Array, is_replaced: BoolArray | None = None
) -> dict[int, int]:
    """Find what takes the place of each of some allocations, and of what replaces them: rows by the rows they replace.

    That is, of ``among``, the newest of the same size that is alive when the allocation is let go of and has replaced
    nothing yet: ``x = f(x)`` makes the new value before the old one is dropped. Where ``is_replaced``, bool (rows of
    the table,), is false an allocation is let go of for another reason. Linear in both after a sort.
    """
    table, died = lifetimes.allocations, lifetimes.died_event
    size = table.requested_bytes
    among = among[np.isin(size[among], size[rows])]
    dying = np.union1d(rows, among)
    dying = dying[died[dying] != NEVER]
    event = np.concatenate([table.alloc_event[among], died[dying]])
    is_birth = np.arange(len(event)) < len(among)
    who = np.concatenate([among, dying])
    order = np.lexsort((~is_birth, event))
    followed = set(rows.tolist())
    dead: set[int] = set()
    newest: dict[int, list[int]] = {}
    replaced_by: dict[int, int] = {}
    for row, born in zip(who[order].tolist(), is_birth[order].tolist(), strict=True):
        stack = newest.setdefault(int(size[row]), [])
        if born:
            stack.append(row)
            continue
        dead.add(row)
        while stack and stack[-1] in dead:
            stack.pop()
        if row in followed and stack and (is_replaced is None or is_replaced[row]):
            replaced_by[row] = stack.pop()
            followed.add(replaced_by[row])
    return replaced_by


def _goes_down(lifetimes: DeviceLifetimes, address: Int64Array) -> bool:
    """Whether later regions lie lower: by the segments that the events add outside of all that was there."""
    trace = lifetimes.trace
    within = slice(lifetimes.first_event, lifetimes.end_event)
    is_new = np.isin(trace.action[within], (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP))
    new = trace.address[within][is_new]
    n_below, n_above = int(np.sum(new < address[0])), int(np.sum(new > address[-1]))
    return n_below >= n_above
