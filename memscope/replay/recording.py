"""One device's events as the core takes them: dense pairs of pool and stream, and the allocation behind each."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property

import numpy as np
import numpy.typing as npt

from memscope._core import caching
from memscope.errors import InvariantError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.never_split import pools_that_never_split
from memscope.lifetimes.rules import rules_of
from memscope.lifetimes.state import AllocatorState
from memscope.replay.caching.settings import add_pairs
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import Int8Array, Int64Array
from memscope.units import format_count

_STATES = {
    BlockState.INACTIVE: caching.BlockState.FREE,
    BlockState.ACTIVE_ALLOCATED: caching.BlockState.ALLOCATED,
    BlockState.ACTIVE_PENDING_FREE: caching.BlockState.PENDING,
}
_N_FREE_CODES = 1 << 16
_MAX_CODES_PER_EVENT = 4
_WHILE_GROWING = (Action.SEGMENT_MAP, Action.SEGMENT_UNMAP, Action.SEGMENT_FREE, Action.FREE_COMPLETED)


class Recording:
    """Events of one device, ready to be followed or replayed.

    Parameters
    ----------
    lifetimes
        The device's lifetimes.
    pool_of_event, pool_of_start_segment
        Dense pool ids to use instead of the recorded ones, for recordings that do not have them.

    Attributes
    ----------
    action, address, size_bytes, pair, row
        int8 and int64 (n,): the events; ``pair`` is an index of :attr:`pairs` (−1 where the pool is not known), ``row``
        one of the lifetimes' allocations (−1 none).
    pairs
        Dense pool id and raw stream handle of each pair.
    """

    def __init__(
        self,
        lifetimes: DeviceLifetimes,
        *,
        pool_of_event: Int64Array | None = None,
        pool_of_start_segment: Int64Array | None = None,
    ) -> None:
        trace = lifetimes.trace
        self.lifetimes = lifetimes
        self.trace = trace
        self.first_event = lifetimes.first_event
        events = slice(lifetimes.first_event, lifetimes.end_event)
        self.action: Int8Array = trace.action[events]
        self.address: Int64Array = trace.address[events]
        self.size_bytes: Int64Array = trace.size_bytes[events]
        self.n_events = len(self.action)
        self.row = self._rows()
        self.requests_recorded = bool(np.any(self.action == Action.FREE_REQUESTED)) or not np.any(
            self.action == Action.FREE_COMPLETED
        )
        self.total_bytes = trace.metadata.device_total_bytes.get(lifetimes.device)
        self.start_state: AllocatorState = lifetimes.state_at(NONE_ID)
        pool = np.array(trace.pool_id[events], np.int64) if pool_of_event is None else pool_of_event
        start_pool = self.start_state.segments.pool_id if pool_of_start_segment is None else pool_of_start_segment
        self.pairs: list[tuple[int, int]] = []
        self._pair_ids: dict[tuple[int, int], int] = {}
        self.pair: Int64Array = np.full(self.n_events, NONE_ID, np.int64)
        is_request = ((self.action == Action.ALLOC) | (self.action == Action.OOM)) & (pool >= 0)
        self.pair[is_request] = self.dense_pairs(pool[is_request], trace.stream_id[events][is_request])
        self.start_pair = self.dense_pairs(np.asarray(start_pool, np.int64), self.start_state.segments.stream_id)

    @cached_property
    def stream(self) -> Int64Array:
        """Raw stream handle of each event: int64 (n,)."""
        return self.trace.stream_handles[self.trace.stream_id[self.first_event : self.first_event + self.n_events]]

    def _rows(self) -> Int64Array:
        table = self.lifetimes.allocations
        row = np.full(self.n_events, NONE_ID, np.int64)
        index = np.arange(len(table))
        for event in (table.alloc_event, table.free_requested_event, table.free_event):
            known = event >= 0
            row[event[known] - self.first_event] = index[known]
        return row

    def dense_pairs(self, pool: npt.NDArray[np.int64], stream_id: npt.NDArray[np.int32]) -> Int64Array:
        """Pair ids of dense pools and stream ids, made as needed: int64 (n,)."""
        if not len(pool):
            return np.empty(0, np.int64)
        handles = self.trace.stream_handles
        # One number for both ids, in the order of pools, then streams; either may be −1.
        n_streams = len(handles) + 1
        code = (pool.astype(np.int64) + 1) * n_streams + stream_id + 1
        used, place = _distinct(code)
        ids = [self._pair_id(one // n_streams - 1, int(handles[one % n_streams - 1])) for one in used.tolist()]
        pair: Int64Array = np.array(ids, np.int64)[place]
        return pair

    def _pair_id(self, pool: int, stream: int) -> int:
        pair = self._pair_ids.setdefault((pool, stream), len(self.pairs))
        if pair == len(self.pairs):
            self.pairs.append((pool, stream))
        return pair

    @property
    def n_deferred_frees(self) -> int:
        """Frees that did not complete at once."""
        requested = np.flatnonzero(self.action == Action.FREE_REQUESTED)
        if not np.any(self.action == Action.FREE_COMPLETED):
            return 0
        action, row = np.append(self.action, NONE_ID), np.append(self.row, NONE_ID)
        at_once = (action[requested + 1] == Action.FREE_COMPLETED) & (row[requested + 1] == row[requested])
        return int(np.count_nonzero(~at_once))

    def first_foreign_stream(self) -> int:
        """First free, or new segment, that names another stream than its allocation does; −1 for none."""
        allocs = np.flatnonzero((self.action == Action.ALLOC) & (self.row >= 0))
        of_row = np.zeros(len(self.lifetimes.allocations), np.int64)
        is_known = np.zeros(len(of_row), np.bool_)
        of_row[self.row[allocs]] = self.stream[allocs]
        is_known[self.row[allocs]] = True
        wrong = np.zeros(self.n_events, np.bool_)
        named = self.row >= 0
        wrong[named] = is_known[self.row[named]] & (of_row[self.row[named]] != self.stream[named])
        made = np.flatnonzero((self.action[:-1] == Action.SEGMENT_ALLOC) & (self.action[1:] == Action.ALLOC))
        wrong[made] |= self.stream[made] != self.stream[made + 1]
        found = np.flatnonzero(wrong)
        return int(found[0]) if len(found) else NONE_ID

    def describe(self, position: int) -> str:
        """One line about an event, for messages."""
        action = Action(int(self.action[position]))
        size = f"{action.name.lower()} of {format_count(int(self.size_bytes[position]))} bytes"
        if action in (Action.OOM, Action.SNAPSHOT):
            return size
        return f"{size} at {self.trace.address_text(int(self.address[position]))}"

    def start(self, allocator: caching.DeviceCachingAllocator) -> None:
        """Put what stood before the first event into an allocator that has no pools yet: one for every pair is made."""
        add_pairs(allocator, self.pairs, is_releasable=True)
        never_split = set(pools_that_never_split(self.trace, rules_of(self.trace.metadata)))
        for pool in allocator.pools:
            pool.can_split = pool.pool_id not in never_split
        allocator.set_n_rows(len(self.lifetimes.allocations))
        rows = {int(address): i for i, address in enumerate(self.start_state.segments.address)}
        for first, reservation_end, members in self._start_reservations():
            i = rows[members[0]]
            pool_index = 2 * int(self.start_pair[i]) + int(self.start_state.segments.is_large[i])
            is_expandable = bool(self.start_state.segments.is_expandable[i])
            size = reservation_end - first
            if is_expandable and reservation_end < 0:
                size = allocator.reservation_size(pool_index)
            tail = allocator.add_old_segment(pool_index, first, size, is_expandable)
            self._settle(allocator, tail, [rows[address] for address in members])

    def _settle(
        self, allocator: caching.DeviceCachingAllocator, block: caching.Block | None, segments: list[int]
    ) -> None:
        """Cut the one block of a reservation into those of the segments in it, and what is unmapped between them."""
        state = self.start_state
        blocks, unmapped = state.blocks, caching.BlockState.UNMAPPED
        for i in segments:
            address = int(state.segments.address[i])
            if block is not None and address > block.address:
                block = allocator.settle_old_block(block, address - block.address, unmapped, 0)
            for k in range(*np.searchsorted(blocks.segment_id, (i, i + 1)).tolist()):
                if block is None:
                    raise InvariantError(f"the blocks of the segment at {address:#x} reach beyond it")
                if state.allocation_ids[k] >= 0:
                    allocator.set_block_of(int(state.allocation_ids[k]), block)
                held = _STATES[BlockState(int(blocks.state[k]))]
                block = allocator.settle_old_block(
                    block, int(blocks.size_bytes[k]), held, int(blocks.requested_bytes[k])
                )
        if block is not None:
            allocator.settle_old_block(block, block.size_bytes, unmapped, 0)

    def _start_reservations(self) -> list[tuple[int, int, list[int]]]:
        """What stood before the first event: start, end and the segments inside, by address.

        A ``cudaMalloc`` segment is its own; mapped runs of one reservation go together, unless something else lies
        between them. A reservation begins at the lowest address that it is seen to map, before or after; where it ends
        is not known (−1) unless something follows it.
        """
        segments, timeline = self.start_state.segments, self.lifetimes.timeline
        key_at = dict(zip(timeline.start_address.tolist(), timeline.start_key.tolist(), strict=True))
        mapped: dict[int, list[int]] = {}
        for address, key in sorted(self._maps_of_start_reservations()):
            mapped.setdefault(key, []).append(address)
        groups: list[tuple[int, int, list[int]]] = []
        last_key = NONE_ID
        for i, address in enumerate(segments.address.tolist()):
            key = key_at[address]
            if not segments.is_expandable[i]:
                groups.append((address, address + int(segments.size_bytes[i]), [address]))
            elif key == last_key:
                groups[-1][2].append(address)
            else:
                below = groups[-1][2][-1] if groups else NONE_ID
                of_key = mapped.get(key, [])
                lowest = bisect_right(of_key, below)
                first = min(of_key[lowest], address) if lowest < len(of_key) else address
                groups.append((first, NONE_ID, [address]))
            last_key = key
        return groups

    def _maps_of_start_reservations(self) -> list[tuple[int, int]]:
        """Address and key of the maps while what was mapped before the first event, or some of it, still is.

        A reservation is given up when nothing is mapped in it; the next one may lie elsewhere.
        """
        timeline = self.lifetimes.timeline
        mapped_bytes: dict[int, int] = {}
        for key, start, end in zip(timeline.start_key, timeline.start_address, timeline.start_end, strict=True):
            mapped_bytes[int(key)] = mapped_bytes.get(int(key), 0) + int(end - start)
        found = []
        for action, address, size, key in zip(
            timeline.action.tolist(),
            timeline.address.tolist(),
            timeline.size_bytes.tolist(),
            timeline.key.tolist(),
            strict=True,
        ):
            if mapped_bytes.get(key, 0) <= 0:
                continue
            if action == Action.SEGMENT_MAP:
                mapped_bytes[key] += size
                found.append((address, key))
            elif action == Action.SEGMENT_UNMAP:
                mapped_bytes[key] -= size
        return found


def next_request(recording: Recording, position: int) -> int:
    """The request behind a ``segment_map``: the next alloc or oom, over what a failed attempt does in between."""
    while position < recording.n_events and recording.action[position] in _WHILE_GROWING:
        position += 1
    if position < recording.n_events and recording.action[position] in (Action.ALLOC, Action.OOM):
        return position
    return NONE_ID


def _distinct(code: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The distinct ones among numbers from 0 on, in their order, and the place of each number among them.

    Both ids of a pair are dense: as a rule the numbers are few, and a table of them is far cheaper than sorting the
    events. Thousands of pools beside thousands of streams are the exception.
    """
    n_codes = int(code.max()) + 1
    if n_codes > _N_FREE_CODES + _MAX_CODES_PER_EVENT * len(code):
        used, place = np.unique(code, return_inverse=True)
        return used, place
    is_used = np.zeros(n_codes, np.bool_)
    is_used[code] = True
    return np.flatnonzero(is_used), (np.cumsum(is_used) - 1)[code]
