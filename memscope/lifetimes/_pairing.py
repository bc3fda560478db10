"""One device's allocations as rows: paired from its events, completed with the final blocks no event mentions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope._core import lifetimes as core
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import BoolArray, Int8Array, Int64Array
from memscope.trace.trace import Trace

_PROBLEM_TEXT = {
    core.Contradiction.ALLOCATED_TWICE: "is allocated although it was not freed",
    core.Contradiction.FREED_TWICE: "is freed although nothing is allocated there",
    core.Contradiction.FREE_SIZE_DIFFERS: "is freed with another size than it was allocated with",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where the events of a device contradict each other or the final state."""

    device: int
    event: int | None
    text: str

    def __str__(self) -> str:
        where = "" if self.event is None else f", event {self.event:,}"
        return f"device {self.device}{where}: {self.text}"


class Pairs(NamedTuple):
    """One row for each allocation seen: int64 (rows,), events relative to the first of the device.

    ``alloc_event`` −1: it predates the events. ``free_event`` −1: its free never completed.
    """

    alloc_event: Int64Array
    free_requested_event: Int64Array
    free_event: Int64Array
    address: Int64Array
    requested_bytes: Int64Array


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows of one device, events relative to its first.

    Attributes
    ----------
    final_block
        int64 (rows,): the final block that holds the allocation at the end, −1 if none does.
    is_pending_at_start
        bool (rows,): its free was requested before the first event.
    n_unmatched_frees, n_implied_frees
        Frees whose alloc is not among the events; allocs at an address in use, in a recording without frees.
    problems
        Contradictions.
    """

    pairs: Pairs
    final_block: Int64Array
    is_pending_at_start: BoolArray
    n_unmatched_frees: int
    n_implied_frees: int
    problems: tuple[Problem, ...]


def pair_rows(trace: Trace, device: int) -> PairedRows:
    """Pair a device's allocs and frees, and add the final blocks that no event mentions."""
    first, end = trace.event_range(device)
    action, address = trace.action[first:end], trace.address[first:end]
    allocs_recorded = bool(np.any(action == Action.ALLOC))
    columns, n_unmatched, n_implied, contradiction = core.pair_events(
        action,
        address,
        trace.size_bytes[first:end],
        allocs_recorded=allocs_recorded,
        completions_recorded=_completions_are_recorded(trace, device, action),
    )
    pairs, problems = Pairs(*columns), []
    if contradiction is not None:
        what, at = contradiction
        text = f"address {trace.address_text(int(address[at]))} {_PROBLEM_TEXT[what]}"
        problems.append(Problem(device, first + at, text))
    if not allocs_recorded and (again := _freed_again(pairs)) != NONE_ID:
        text = f"address {trace.address_text(int(pairs.address[again]))} is freed again, and no alloc was recorded"
        event = first + int(max(pairs.free_requested_event[again], pairs.free_event[again]))
        problems.append(Problem(device, event, f"{text}: what was in use when cannot be told"))
    # A block born and freed among the events without a request for it: requests were not recorded at all.
    if not np.any(action == Action.FREE_REQUESTED) and np.any((pairs.alloc_event >= 0) & (pairs.free_event >= 0)):
        pairs = pairs._replace(free_requested_event=pairs.free_event)
    is_pending = (pairs.alloc_event < 0) & (pairs.free_requested_event < 0) & (pairs.free_event >= 0)
    final_block, silent, missing = _match_final_blocks(trace, device, pairs)
    if missing is not None and trace.metadata.block_layout_recorded:
        event = first + int(max(pairs.alloc_event[missing], pairs.free_requested_event[missing]))
        shown = trace.address_text(int(pairs.address[missing]))
        text = f"address {shown} is in use at the end, but no final block says so"
        problems.append(Problem(device, event, text))
    blocks = trace.blocks
    none = np.full(len(silent), NONE_ID, np.int64)
    return PairedRows(
        pairs=Pairs(
            np.concatenate([pairs.alloc_event, none]),
            np.concatenate([pairs.free_requested_event, none]),
            np.concatenate([pairs.free_event, none]),
            np.concatenate([pairs.address, blocks.address[silent]]),
            np.concatenate([pairs.requested_bytes, blocks.requested_bytes[silent]]),
        ),
        final_block=np.concatenate([final_block, silent]),
        is_pending_at_start=np.concatenate([is_pending, blocks.state[silent] == BlockState.ACTIVE_PENDING_FREE]),
        n_unmatched_frees=n_unmatched,
        n_implied_frees=n_implied,
        problems=tuple(problems),
    )


def _freed_again(pairs: Pairs) -> int:
    """The first row without an alloc at whose address an earlier one was freed, −1 for none.

    Both would have been in use before the events: at most one was, and when the other was made is not known.
    """
    rows = np.flatnonzero(pairs.alloc_event < 0)
    _, first = np.unique(pairs.address[rows], return_index=True)
    again = np.setdiff1d(np.arange(len(rows)), first)
    return int(rows[again[0]]) if len(again) else NONE_ID


def _completions_are_recorded(trace: Trace, device: int, action: Int8Array) -> bool:
    """Whether ``free_completed`` was recorded: it was skipped if none is there and not every free is still pending."""
    if np.any(action == Action.FREE_COMPLETED):
        return True
    blocks = trace.blocks
    on_device = trace.segments.device[blocks.segment_id] == device
    n_pending = np.count_nonzero(on_device & (blocks.state == BlockState.ACTIVE_PENDING_FREE))
    return bool(np.count_nonzero(action == Action.FREE_REQUESTED) <= n_pending)


def _match_final_blocks(trace: Trace, device: int, pairs: Pairs) -> tuple[Int64Array, Int64Array, int | None]:
    """Match what is in use at the end with the final blocks, by address.

    Returns the final block of each row (−1 none), the active final blocks that no row has, and the first row in use at
    the end that no final block has (None if all have one).
    """
    blocks = trace.blocks
    on_device = trace.segments.device[blocks.segment_id] == device
    active = np.flatnonzero(on_device & (blocks.state != BlockState.INACTIVE))
    active = active[np.argsort(blocks.address[active], kind="stable")]
    live = np.flatnonzero(pairs.free_event < 0)
    position = np.searchsorted(blocks.address[active], pairs.address[live])
    found = position < len(active)
    found[found] = blocks.address[active[position[found]]] == pairs.address[live[found]]
    final_block = np.full(len(pairs.address), NONE_ID, np.int64)
    final_block[live[found]] = active[position[found]]
    missing = live[~found]
    return final_block, np.setdiff1d(active, final_block), int(missing[0]) if len(missing) else None
