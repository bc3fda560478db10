"""Which private pool a segment or a reservation belonged to, where the recording does not say (before torch 2.12)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from memscope._core import caching
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import rules_of
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.recording import Recording, next_request
from memscope.replay.verify._pinned import follow
from memscope.replay.verify._state import PinnedState, Request
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.trace.tables import Int64Array


@dataclass(slots=True)
class _Reservation:
    """One reservation while it has memory: where it is mapped, for whom, and its pool if the final state names it."""

    base: int
    end: int
    stream: int
    is_large: bool
    first_event: int
    mapped_bytes: int = 0
    last_event: int = NONE_ID
    pool: int = NONE_ID

    def overlaps(self, other: _Reservation, n_events: int) -> bool:
        """Whether both existed at some moment, with the same stream and size class."""
        ends = [n_events if r.last_event == NONE_ID else r.last_event for r in (self, other)]
        alike = (self.stream, self.is_large) == (other.stream, other.is_large)
        return alike and self.first_event < ends[1] and other.first_event < ends[0]


class ReservationPools:
    """The reservations of a recording, found from its maps and unmaps.

    Attributes
    ----------
    of_event
        int64 (n,): the reservation that an allocation lies in, −1 for other events.
    of_start_segment
        int64 (segments,): the reservation of each segment before the first event.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._all: list[_Reservation] = []
        self._live: list[int] = []
        rounded = rules_of(recording.trace.metadata).round_sizes(recording.size_bytes)
        self._is_large = rounded > caching.SMALL_BYTES
        self.of_start_segment = self._start()
        self.of_event = np.full(recording.n_events, NONE_ID, np.int64)
        for position in np.flatnonzero(
            np.isin(recording.action, (Action.ALLOC, Action.SEGMENT_MAP, Action.SEGMENT_UNMAP))
        ).tolist():
            self._follow(position)
        final = recording.lifetimes.recorded_final_state().segments
        for address, pool in zip(final.address.tolist(), final.pool_id.tolist(), strict=True):
            found = self._holding(address)
            if found != NONE_ID:
                self._all[found].pool = pool

    def _start(self) -> Int64Array:
        segments = self._recording.start_state.segments
        of_segment = np.full(len(segments), NONE_ID, np.int64)
        for i in range(len(segments)):
            address, size = int(segments.address[i]), int(segments.size_bytes[i])
            stream = int(self._recording.trace.stream_handles[segments.stream_id[i]])
            of_segment[i] = self._add(address, size, stream, bool(segments.is_large[i]), NONE_ID)
        return of_segment

    def _add(self, address: int, size: int, stream: int, is_large: bool, position: int) -> int:
        self._all.append(_Reservation(address, address + size, stream, is_large, position, size))
        self._live.append(len(self._all) - 1)
        return self._live[-1]

    def _holding(self, address: int) -> int:
        """The live reservation whose mapped span an address lies in or follows, −1 for none."""
        below = [i for i in self._live if self._all[i].base <= address <= self._all[i].end]
        return max(below, key=lambda i: self._all[i].base, default=NONE_ID)

    def _follow(self, position: int) -> None:
        recording = self._recording
        address, size = int(recording.address[position]), int(recording.size_bytes[position])
        found = self._holding(address)
        if recording.action[position] == Action.ALLOC:
            self.of_event[position] = found
            return
        if recording.action[position] == Action.SEGMENT_UNMAP:
            if found == NONE_ID:
                return
            self._all[found].mapped_bytes -= size
            if self._all[found].mapped_bytes <= 0:
                self._all[found].last_event = position
                self._live.remove(found)
            return
        request = next_request(recording, position)
        stream, is_large = int(recording.stream[position]), bool(request != NONE_ID and self._is_large[request])
        reservation = self._all[found] if found != NONE_ID else None
        if reservation is None or (reservation.stream, reservation.is_large) != (stream, is_large):
            self._add(address, size, stream, is_large, position)
            return
        reservation.end = max(reservation.end, address + size)
        reservation.mapped_bytes += size

    def pools(self, *, prefers_default: bool) -> Int64Array:
        """A pool for each reservation: the known one; the default pool if nothing speaks against it; or a new one."""
        n_events = self._recording.n_events
        pools = np.array([reservation.pool for reservation in self._all], np.int64)
        next_pool = max(0, int(pools.max(initial=0))) + 1
        for i, reservation in enumerate(self._all):
            if pools[i] != NONE_ID:
                continue
            rivals = [k for k in np.flatnonzero(pools == 0) if self._all[k].overlaps(reservation, n_events)]
            if prefers_default and not rivals:
                pools[i] = 0
            else:
                pools[i] = next_pool
                next_pool += 1
        return pools

    @property
    def n_unnamed(self) -> int:
        """Reservations that were gone at the end, whose pool nothing names."""
        return sum(reservation.pool == NONE_ID for reservation in self._all)


RESERVATION_POOLS = "address reservations whose pool the recording does not name"
POOLS = "segments of private pools that the recording does not name"


@dataclass(frozen=True, slots=True)
class InferredPools:
    """Dense pool ids of a device's events and of the segments before them; −1 where a pool cannot be told."""

    of_event: Int64Array
    of_start_segment: Int64Array
    inferred: Counter[str]


def infer_pools(
    lifetimes: DeviceLifetimes, config: CachingAllocatorConfig, tie_rule: TieRule
) -> Iterator[InferredPools]:
    """Find pools for all segments so that no decision of the recording contradicts the rules; several are proposed.

    Blocks and segments evolve alike whatever their pools are, because the recording gives the addresses. So one pass
    in which pools are ignored collects pairs of segments that cannot have shared a pool: a request passed over a
    better block of the other, or a reclaim gave back one and left the other. Pools are then given out so that no such
    pair shares one: the pools of final segments are known, and the default pool is preferred.
    """
    start = lifetimes.state_at(NONE_ID).segments
    everything_default = np.zeros(lifetimes.n_events, np.int64)
    recording = Recording(
        lifetimes, pool_of_event=everything_default, pool_of_start_segment=np.zeros(len(start), np.int64)
    )
    if not np.any(lifetimes.trace.segments.pool_id > 0):
        yield InferredPools(everything_default, np.zeros(len(start), np.int64), Counter())
        return
    if np.any(recording.action == Action.SEGMENT_MAP):
        yield from _pools_of_reservations(recording)
        return
    instances = SegmentInstances(recording)
    evidence = PoolEvidence()
    follow(PinnedState.before(recording, config, tie_rule), evidence)
    for pools in (_fewest_pools(instances, evidence), _pools_by_reclaim(instances, evidence)):
        of_event = np.where(instances.of_event >= 0, pools[instances.of_event], 0)
        n_named = int(np.count_nonzero((instances.final_pool < 0) & (pools != 0)))
        yield InferredPools(of_event, pools[: len(start)], Counter({POOLS: n_named}))


def _pools_of_reservations(recording: Recording) -> Iterator[InferredPools]:
    found = ReservationPools(recording)
    for prefers_default in (True, False):
        pools = found.pools(prefers_default=prefers_default)
        of_event = np.where(found.of_event >= 0, pools[found.of_event], 0)
        of_start = pools[found.of_start_segment] if len(found.of_start_segment) else found.of_start_segment
        yield InferredPools(of_event, of_start, Counter({RESERVATION_POOLS: found.n_unnamed}))


class GivenBack(NamedTuple):
    """A segment that went back to the driver: its number by creation, and what its place in the order depends on."""

    serial: int
    is_large: bool
    key: tuple[int, int, int, int]


class SegmentInstances:
    """The segments of a recording in order of creation, those from before it first.

    Attributes
    ----------
    of_event
        int64 (n,): the segment that an allocation lies in, −1 for other events.
    final_pool
        int64 (segments,): the pool of those that were there at the end, −1 for the others.
    """

    def __init__(self, recording: Recording) -> None:
        state = recording.start_state.segments
        live = {int(address): i for i, address in enumerate(state.address)}
        starts = sorted(live)
        n = len(state)
        of_event = np.full(recording.n_events, NONE_ID, np.int64)
        for position, (action, address) in enumerate(
            zip(recording.action.tolist(), recording.address.tolist(), strict=True)
        ):
            if action == Action.SEGMENT_ALLOC:
                insort(starts, address)
                live[address] = n
                n += 1
            elif action == Action.SEGMENT_FREE:
                del starts[bisect_left(starts, address)]
                del live[address]
            elif action == Action.ALLOC:
                of_event[position] = live[starts[bisect_right(starts, address) - 1]]
        self.of_event = of_event
        self.final_pool = np.full(n, NONE_ID, np.int64)
        final = recording.lifetimes.recorded_final_state().segments
        for address, pool in zip(final.address.tolist(), final.pool_id.tolist(), strict=True):
            self.final_pool[live[address]] = pool


class PoolEvidence:
    """Decides for a recording that is followed as if there were one pool, and notes where that does not hold.

    Attributes
    ----------
    conflicts
        Pairs of segments (by order of creation, smaller first) that cannot have shared a pool.
    reclaims
        Every run of segments that went back.
    """

    def __init__(self) -> None:
        self.conflicts: set[tuple[int, int]] = set()
        self.reclaims: list[list[GivenBack]] = []

    def another_block_taken(self, state: PinnedState) -> None:
        """A request took another block than the best: the better ones were in other pools."""
        request = state.request_at(state.position)
        block = state.allocator.free_block_at(int(state.recording.address[request.position]))
        if block is None or block.size_bytes < request.rounded_bytes:
            raise state.diverged(caching.FollowStatus.FITS_ELSEWHERE)
        better = takewhile(lambda other: other != block, state.fitting_blocks(request))
        self._note(_serial(block), (_serial(other) for other in better))
        state.serve(request, block)

    def nothing_fitted(self, state: PinnedState, request: Request) -> None:
        """A request got a new segment although a block was free: that block was in another pool, or free too late."""
        late = state.completed_just_before()
        passed = [block for block in state.fitting_blocks(request) if not state.holds_any(block, late)]
        self._note(state.allocator.n_segments_made, (_serial(block) for block in passed))

    def out_of_memory(self, state: PinnedState) -> None:
        """A request that failed says nothing: its pool may have been any."""
        state.position += 1

    def memory_went_back(self, state: PinnedState) -> None:
        """Segments that went back, and unused ones that did not, were in different pools."""
        recording, end = state.recording, state.end_of_run(state.position, (Action.SEGMENT_FREE,))
        allocator = state.allocator
        found = [allocator.free_block_at(address) for address in recording.address[state.position : end].tolist()]
        given_back = [block for block in found if block is not None]
        if not given_back or len(given_back) < len(found):
            raise state.diverged(caching.FollowStatus.NOT_IN_USE)
        unused = {block for pool in allocator.pools for block in allocator.unsplit_blocks(pool.index)}
        kept = [_serial(block) for block in unused.difference(given_back)]
        for block in given_back:
            self._note(_serial(block), kept)
        self.reclaims.append([_given_back(state, block) for block in given_back])
        for block in given_back:
            allocator.release_block(block)
        state.position = end

    def _note(self, segment: int, others: Iterable[int]) -> None:
        self.conflicts.update((min(segment, other), max(segment, other)) for other in others if other != segment)


def _serial(block: caching.Block) -> int:
    """The number by creation of the segment that a block lies in."""
    return block.segment.serial - 1


def _given_back(state: PinnedState, block: caching.Block) -> GivenBack:
    pool = state.allocator.pools[block.pool]
    stream = pool.stream & 0xFFFFFFFFFFFFFFFF
    key = (stream, block.size_bytes, block.tie, block.address)
    return GivenBack(_serial(block), not pool.is_small, key)


def _against(n_segments: int, conflicts: set[tuple[int, int]]) -> list[set[int]]:
    against: list[set[int]] = [set() for _ in range(n_segments)]
    for one, other in conflicts:
        against[one].add(other)
        against[other].add(one)
    return against


def _fewest_pools(instances: SegmentInstances, evidence: PoolEvidence) -> Int64Array:
    """A pool for each segment: the most constrained first, the default pool if it can be, a new one if none can."""
    pools = instances.final_pool.copy()
    against = _against(len(pools), evidence.conflicts)
    known = [0, *sorted({int(pool) for pool in pools if pool > 0})]
    open_segments = {i for i in range(len(pools)) if pools[i] < 0}
    refused: list[set[int]] = [{int(pools[k]) for k in others if pools[k] >= 0} for others in against]
    while open_segments:
        i = min(open_segments, key=lambda k: (-len(refused[k]), k))
        open_segments.remove(i)
        choice = next((pool for pool in known if pool not in refused[i]), None)
        if choice is None:
            choice = max(known) + 1
            known.append(choice)
        pools[i] = choice
        for k in against[i]:
            refused[k].add(choice)
    return pools


def _pools_by_reclaim(instances: SegmentInstances, evidence: PoolEvidence) -> Int64Array:
    """A pool for each segment from the order in which it went back: the default pool first, then pool after pool.

    Every segment that was not there at the end went back in one reclaim. A pool ends there where the order within a
    pool breaks, or where two segments cannot have shared it.
    """
    pools = instances.final_pool.copy()
    against = _against(len(pools), evidence.conflicts)
    next_pool = max(0, int(pools.max(initial=0))) + 1
    for reclaim in evidence.reclaims:
        pool, group = 0, list[GivenBack]()
        for segment in reclaim:
            is_refused = any(pools[k] == pool for k in against[segment.serial])
            if is_refused or (group and _order(group[-1], pool) > _order(segment, pool)):
                pool, group = next_pool, []
                next_pool += 1
            group.append(segment)
            pools[segment.serial] = pool
    pools[pools < 0] = 0
    return pools


def _order(segment: GivenBack, pool: int) -> tuple[bool, tuple[int, int, int, int]]:
    """Where a segment stands among those of its pool in a reclaim: large ones first in the default pool, else last."""
    return segment.is_large == (pool != 0), segment.key
