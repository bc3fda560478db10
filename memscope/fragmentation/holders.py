"""Who holds some blocks: their category and owner, how old they are, and the step that they were born in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memscope.attribution.attribution import Attribution
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.steps import Steps
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID


@dataclass(frozen=True, slots=True)
class Holder:
    """One live block and who holds it; None is "not recorded".

    Attributes
    ----------
    row
        Its allocation.
    alloc_event
        None where it predates the events; then its age is counted from the first event on, and is more than that.
    age_events, age_ns
        How long it has lived by the moment asked about: events of the device, and time.
    step
        Name of the step that it was born in; None where it was born in none, or steps are not known.
    """

    row: int
    address: int
    block_bytes: int
    requested_bytes: int
    category: Category
    owner: str | None
    stack_id: int
    alloc_event: int | None
    age_events: int
    age_ns: int | None
    step: str | None


def holders_of(
    lifetimes: DeviceLifetimes, attribution: Attribution, rows: Sequence[int], event: int, steps: Steps | None = None
) -> tuple[Holder, ...]:
    """Who holds the blocks of some allocations that are live after an event, in the order of ``rows``."""
    return tuple(_holder(lifetimes, attribution, row, event, steps) for row in rows)


def _holder(lifetimes: DeviceLifetimes, attribution: Attribution, row: int, event: int, steps: Steps | None) -> Holder:
    table, trace = lifetimes.allocations, lifetimes.trace
    born = int(table.alloc_event[row])
    first = lifetimes.first_event if born == NONE_ID else born
    step_id = NONE_ID if steps is None else int(steps.step_of(table.alloc_event[row : row + 1])[0])
    return Holder(
        row=row,
        address=int(table.address[row]),
        block_bytes=int(table.block_bytes[row]),
        requested_bytes=int(table.requested_bytes[row]),
        category=Category(int(attribution.category[row])),
        owner=trace.string(int(attribution.owner_id[row])),
        stack_id=int(table.stack_id[row]),
        alloc_event=None if born == NONE_ID else born,
        age_events=max(event - first, 0),
        age_ns=_time_between(lifetimes, first, event),
        step=None if step_id == NONE_ID or steps is None else steps.labels[step_id],
    )


def _time_between(lifetimes: DeviceLifetimes, first: int, event: int) -> int | None:
    """Time from one event to another, None where it was not recorded. A dry run's times are not a device's."""
    trace = lifetimes.trace
    if event < first or trace.metadata.source == "dry-run" or not lifetimes.n_events:
        return None
    begin, end = int(trace.time_ns[first]), int(trace.time_ns[event])
    return None if NONE_ID in (begin, end) else max(end - begin, 0)
