"""What growing by copying costs: the program's requests replayed with the cache's tensors allocated otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from memscope._core import caching
from memscope.errors import UsageError
from memscope.kv_cache._parts import most_at_once
from memscope.kv_cache.lens import KvLens
from memscope.replay.caching.engine import replay_caching
from memscope.replay.requests import Requests, requests_of
from memscope.replay.result import ReplayResult
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int8Array, Int64Array
from memscope.units import format_bytes

AS_RECORDED = "as recorded"
ONCE = "allocated once"
POOL = "one pool for each layer"
SUMMARIES = {
    AS_RECORDED: "each tensor made anew, longer, beside the old one",
    ONCE: "each tensor at its final length from the start",
    POOL: "one tensor a layer for keys, one for values, of the most they held at once",
}

OnDone = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class KvAlternative:
    """The program's requests with the cache allocated in one way, replayed under the recorded settings."""

    name: str
    result: ReplayResult

    @property
    def peak_allocated_bytes(self) -> int:
        """Most bytes of blocks in use."""
        return int(self.result.usage.allocated_bytes.max())

    @property
    def free_at_peak_bytes(self) -> int:
        """Reserved and not in use, at the peak of reserved memory: what fragmentation and kept segments took."""
        usage = self.result.usage
        index = 0 if usage.reserved_bytes is None else int(np.argmax(usage.reserved_bytes))
        return int(self.result.unused_bytes[index])


@dataclass(frozen=True, slots=True)
class GrowthReplay:
    """With and without the copies.

    Attributes
    ----------
    alternatives
        As recorded first.
    notes
        What was assumed, a sentence each.
    """

    alternatives: tuple[KvAlternative, ...]
    notes: tuple[str, ...]

    def saved_bytes(self, alternative: KvAlternative) -> int | None:
        """Peak of reserved memory that an alternative saves; None where one of the replays ran out of memory."""
        recorded = self.alternatives[0].result
        if recorded.oom is not None or alternative.result.oom is not None:
            return None
        return recorded.peak_reserved_bytes - alternative.result.peak_reserved_bytes


def replay_without_copies(lens: KvLens, on_done: OnDone | None = None) -> GrowthReplay | None:
    """Replay the recorded requests, and the same with the growing tensors allocated once, and as pools.

    Everything else is asked for as in the recording, at the same places. None where nothing grew by copying, or the
    simulator does not cover the recorded settings.

    Parameters
    ----------
    on_done
        Called with the number of replays done, and of all.
    """
    if not len(lens.growth):
        return None
    requests = requests_of(lens.device.lifetimes)
    ways = {AS_RECORDED: requests, ONCE: _allocated_once(lens, requests), POOL: _pooled(lens, requests)}
    limits, found = lens.device.limits, []
    notes = list(requests.notes)
    if limits.total_bytes is not None:
        notes.append(f"the device has {format_bytes(limits.total_bytes)} ({limits.source})")
    for name, asked in ways.items():
        try:
            result = replay_caching(
                lens.device.lifetimes,
                limits=limits,
                requests=asked,
            )
        except UsageError:
            return None
        found.append(KvAlternative(name, result))
        if on_done is not None:
            on_done(len(found), len(ways))
    return GrowthReplay(tuple(found), tuple(notes))


def _allocated_once(lens: KvLens, requests: Requests) -> Requests:
    """Each chain of replacements as one tensor of its largest length."""
    rows = lens.parts.rows
    size = requests.requested_bytes[rows]
    largest = np.zeros(len(rows), np.int64)
    np.maximum.at(largest, lens.growth.chain, size)
    in_chain = _is_grown(lens)
    return merge_rows(requests, rows[in_chain], lens.growth.chain[in_chain], largest)


def _pooled(lens: KvLens, requests: Requests) -> Requests:
    """All tensors of one layer and part, of all caches, as one tensor of the most that they held at once."""
    in_chain = np.flatnonzero(_is_grown(lens))
    names = np.column_stack([lens.parts.layer, lens.parts.part_id, lens.parts.is_cross])[in_chain]
    _, pool = np.unique(names, axis=0, return_inverse=True)
    pool = pool.reshape(-1)
    rows = lens.parts.rows[in_chain]
    times, size = lens.times, np.zeros(int(pool.max()) + 1, np.int64)
    for i in range(len(size)):
        here = in_chain[pool == i]
        # What is stale has given its blocks back: the tokens lie where they were written.
        size[i], _ = most_at_once(times.begin[here], times.stale[here], requests.requested_bytes[lens.parts.rows[here]])
    return merge_rows(requests, rows, pool, size)


def _is_grown(lens: KvLens) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    is_grown = np.zeros(len(lens.parts), np.bool_)
    is_grown[lens.growth.old] = is_grown[lens.growth.new] = True
    return is_grown


def merge_rows(requests: Requests, rows: Int64Array, group: Int64Array, size_bytes: Int64Array) -> Requests:
    """Requests in which each group of allocations is one, made where its first was and freed where its last is.

    Parameters
    ----------
    rows, group
        int64 (m,): allocations, in order of allocation, and the group that each belongs to.
    size_bytes
        int64 (groups,): what is asked for in place of each group.
    """
    op, row = requests.op.copy(), requests.row.copy()
    requested = requests.requested_bytes.copy()
    n_rows = len(requested)
    # The first of a group stands for it; the last to be freed says when, or never.
    first = np.full(len(size_bytes), NONE_ID, np.int64)
    first[group[::-1]] = rows[::-1]
    requested[first[group]] = size_bytes[group]
    group_of = np.full(n_rows, NONE_ID, np.int64)
    group_of[rows] = group
    is_request = (op == caching.Op.MALLOC) | (op == caching.Op.FREE) | (op == caching.Op.FREE_LATER)
    is_request |= op == caching.Op.COMPLETE
    here = np.flatnonzero(is_request & (row != NONE_ID))
    here = here[group_of[row[here]] != NONE_ID]
    of_slot, of_row = group_of[row[here]], row[here]
    is_malloc = op[here] == caching.Op.MALLOC
    start = np.isin(rows, requests.start_rows)
    begun = np.zeros(len(size_bytes), np.bool_)
    begun[group[start]] = True
    drop_malloc = is_malloc & ((of_row != first[of_slot]) | begun[of_slot])
    last = _last_freed(rows, group, here, of_row, is_malloc, op, n_groups=len(size_bytes))
    drop_free = ~is_malloc & (of_row != last[of_slot])
    op[here[drop_malloc | drop_free]] = caching.Op.NONE
    row[here[drop_malloc | drop_free]] = NONE_ID
    kept = ~is_malloc & ~drop_free
    row[here[kept]] = first[of_slot[kept]]
    standing = ~np.isin(requests.start_rows, rows) | np.isin(requests.start_rows, first)
    return dataclasses.replace(
        requests,
        op=op,
        row=row,
        requested_bytes=requested,
        start_rows=requests.start_rows[standing],
        start_pending=requests.start_pending[standing],
    )


def _last_freed(
    rows: Int64Array,
    group: Int64Array,
    here: Int64Array,
    of_row: Int64Array,
    is_malloc: np.ndarray[tuple[int], np.dtype[np.bool_]],
    op: Int8Array,
    *,
    n_groups: int,
) -> Int64Array:
    """The allocation of each group whose free comes last; −1 where one of them is never freed: int64 (groups,)."""
    ends = (op[here] == caching.Op.FREE) | (op[here] == caching.Op.FREE_LATER)
    freed_at = np.full(int(rows.max(initial=0)) + 1, NONE_ID, np.int64)
    freed_at[of_row[ends & ~is_malloc]] = here[ends & ~is_malloc]
    when = freed_at[rows]
    order = np.argsort(when, kind="stable")
    last = np.full(n_groups, NONE_ID, np.int64)
    last[group[order]] = rows[order]
    last[group[when == NONE_ID]] = NONE_ID
    return last
