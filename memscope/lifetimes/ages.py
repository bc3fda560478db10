"""Which allocations last, in what order those from before the events were probably made, and what replaced which."""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int64Array

_REGION_GAP_BYTES = 256 << 20
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


def by_age(lifetimes: DeviceLifetimes) -> Int64Array:
    """Rows from before the events, those that were probably made first at the front: int64.

    Within a region of the address space later segments lie higher, and earlier requests lower in their segments. Of
    several regions the order is that in which the events take new ones; without any such, that of the platform.
    """
    table = lifetimes.allocations
    old = np.flatnonzero(table.alloc_event == NONE_ID)
    old = old[np.argsort(table.address[old], kind="stable")]
    if not len(old):
        return old
    address = table.address[old]
    region = np.concatenate([[0], np.cumsum(np.diff(address) - table.block_bytes[old][:-1] > _REGION_GAP_BYTES)])
    if region[-1] and _goes_down(lifetimes, address):
        region = -region
    return old[np.lexsort((address, region))]


def follow_replacements(lifetimes: DeviceLifetimes, rows: Int64Array, among: Int64Array) -> dict[int, int]:
    """Find what takes the place of each of some allocations, and of what replaces them: rows by the rows they replace.

    That is, of ``among``, the newest of the same size that is alive when the allocation is let go of and has replaced
    nothing yet: ``x = f(x)`` makes the new value before the old one is dropped. Linear in both after a sort.
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
    alive: dict[int, list[int]] = {}
    replaced_by: dict[int, int] = {}
    for row, born in zip(who[order].tolist(), is_birth[order].tolist(), strict=True):
        stack = alive.setdefault(int(size[row]), [])
        if born:
            stack.append(row)
            continue
        if row in stack:
            stack.remove(row)
        if row in followed and stack:
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
    return n_below > n_above if n_below != n_above else int(address[-1]) >= _TOP_DOWN_ADDRESS
