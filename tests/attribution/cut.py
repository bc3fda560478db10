"""A recording without its first part: what a ring that overflowed leaves, or a recording that was begun in mid-life."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memscope.trace import schema
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import OwnerTable
from memscope.trace.trace import Trace


def without_first_events(trace: Trace, n: int) -> Trace:
    """The trace of one device without its first ``n`` events: what they made is there, and nothing tells its origin.

    Final segments and blocks stay. Owners of what was made before stand with its address, as those of a recording's
    end do; blocks from before have no stack.
    """
    first, end = trace.event_range(0)
    cut = min(first + n, end)
    live: dict[int, int] = {}
    allocs = np.flatnonzero(np.isin(trace.action[:cut], (Action.ALLOC, Action.FREE_COMPLETED)))
    for event in allocs.tolist():
        if trace.action[event] == Action.ALLOC:
            live[int(trace.address[event])] = event
        else:
            live.pop(int(trace.address[event]), None)
    events = {name: getattr(trace, name)[cut:] for name in schema.EVENT_COLUMNS}
    touched = set(trace.address[cut:][trace.action[cut:] == Action.ALLOC].tolist())
    stack_id = np.array(trace.blocks.stack_id)
    is_old = np.array([a in live and a not in touched for a in trace.blocks.address.tolist()], np.bool_)
    stack_id[is_old] = NONE_ID
    return replace(
        trace,
        **events,
        blocks=replace(trace.blocks, stack_id=stack_id),
        marks=replace(trace.marks.take(trace.marks.event >= cut), event=_later(trace.marks.event, cut)),
        samples=replace(trace.samples.take(trace.samples.event >= cut), event=_later(trace.samples.event, cut)),
        owners=_owners(trace.owners, live, cut),
        cache_layers=type(trace.cache_layers).empty(),
        cache_lengths=type(trace.cache_lengths).empty(),
        metadata=replace(trace.metadata, n_events_lost=None),
    )


def _later(event: np.ndarray, cut: int) -> np.ndarray:
    return event[event >= cut] - cut


def _owners(owners: OwnerTable, live: dict[int, int], cut: int) -> OwnerTable:
    """Owners of later events; and of what was live at the cut, by address."""
    address_of = {event: address for address, event in live.items()}
    old = np.array([event in address_of for event in owners.alloc_event.tolist()], np.bool_)
    before, after = owners.take(old), owners.take(owners.alloc_event >= cut)
    address = np.array([address_of[event] for event in before.alloc_event.tolist()], np.int64)
    device = np.zeros(len(before), np.int16)
    before = replace(before, alloc_event=np.full(len(before), NONE_ID, np.int64), device=device, address=address)
    before = before.take(np.argsort(address, kind="stable"))
    return OwnerTable.stacked([before, replace(after, alloc_event=after.alloc_event - cut)])
