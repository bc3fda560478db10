"""What a reclaim gives back by the rules, matched with a recorded run of ``segment_free`` and ``segment_unmap``.

A run is read from its front, stage by stage. What was read so far is a value (:class:`Reading`) that every stage
extends or refuses, so that another stage can be tried from the same place; nothing of the allocator is changed before
a whole run was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from memscope._core import caching
from memscope.replay.recording import next_request
from memscope.replay.verify._choice import check_nothing_fits
from memscope.replay.verify._growth import note_failed_growth
from memscope.replay.verify._state import GIVES_BACK, PinnedState, Request
from memscope.replay.verify.divergence import DivergedError
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from memscope.units import format_count

COLLECTIONS = "garbage collections"
POOL_RELEASES = "releases of private pools alone"
UNKNOWN_AGES = "choices of a garbage collection among blocks that predate the recording, taken as recorded"
CACHES_EMPTIED = "calls of empty_cache"
RECLAIMS = "reclaims before a request (a retry, or empty_cache)"

Key = tuple[int, int, int, int]
"""Action, address, bytes and stream of an event: what must be as recorded."""


@dataclass(frozen=True, slots=True)
class Release:
    """One block that goes back: a whole segment, or handles of an expandable one."""

    action: Action
    address: int
    size_bytes: int
    block: caching.Block
    stream: int

    @property
    def key(self) -> Key:
        """What must be as recorded."""
        return int(self.action), self.address, self.size_bytes, self.stream

    def describe(self, trace: Trace) -> str:
        """One line for a divergence."""
        size = f"{format_count(self.size_bytes)} bytes"
        return f"{self.action.name.lower()} of {size} at {trace.address_text(self.address)}"


@dataclass(frozen=True, slots=True)
class Reading:
    """The front of a run, explained: what went back, in recorded order, and what was concluded from it."""

    releases: tuple[Release, ...] = ()
    inferred: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.releases)

    def then(self, releases: list[Release], *inferred: str) -> Reading:
        """The front that is longer by some more events."""
        return Reading((*self.releases, *releases), (*self.inferred, *inferred))

    @property
    def blocks(self) -> frozenset[caching.Block]:
        """What is gone after it."""
        return frozenset(release.block for release in self.releases)


class UnusedMemory:
    """What reclaims would give back, by the rules; the state is only read.

    Each question takes the blocks that are already ``gone`` by the stages before.
    """

    def __init__(self, state: PinnedState) -> None:
        self._state = state
        pools = state.allocator.pools
        self._pools = [pools[i] for i in state.allocator.release_order]

    def of_pool(self, pool_id: int, gone: AbstractSet[caching.Block] = frozenset()) -> list[Release]:
        """Everything unused of a pool, in order: its large blocks first in the default pool, last in private ones."""
        releases = []
        pools = [pool for pool in self._pools if pool.pool_id == pool_id]
        for is_small in (False, True) if pool_id == 0 else (True, False):
            of_class = [pool.index for pool in pools if pool.is_small == is_small]
            for pool in of_class:
                releases += self._whole_segments(pool, gone)
            for pool in of_class:
                releases += self._handles(pool)
        return releases

    def oversize(self, request: Request, gone: AbstractSet[caching.Block]) -> list[Release]:
        """``release_available_cached_blocks``: one block that is enough, or the largest ones above the split limit."""
        limit = self._state.config.max_split_bytes or caching.UNLIMITED
        wanted = max(request.rounded_bytes, limit)
        segments = self._whole_segments(request.pool, gone)
        enough = [release for release in segments if release.size_bytes >= wanted]
        if enough:
            return enough[:1]
        chosen: list[Release] = []
        for release in reversed([release for release in segments if release.size_bytes >= limit]):
            if sum(done.size_bytes for done in chosen) >= wanted:
                break
            chosen.append(release)
        return chosen

    def collectable(self, gone: AbstractSet[caching.Block]) -> list[Release]:
        """What a garbage collection considers: the default pool's large segments."""
        large = [pool.index for pool in self._pools if pool.pool_id == 0 and not pool.is_small]
        return [release for pool in large for release in self._whole_segments(pool, gone)]

    def collected(self, candidates: list[Release]) -> list[Release]:
        """One pass of garbage collection: those whose age is at least the mean."""
        ages = [self._state.allocator.gc_age(release.block) for release in candidates]
        cutoff = sum(ages) / len(ages)
        return [release for release, age in zip(candidates, ages, strict=True) if age >= cutoff]

    def pool_at(self, address: int) -> int | None:
        """The id of the pool of the free block that an address lies in, None if there is none."""
        block = self._state.allocator.free_block_holding(address)
        return None if block is None else self._state.allocator.pools[block.pool].pool_id

    def _whole_segments(self, pool: int, gone: AbstractSet[caching.Block]) -> list[Release]:
        stream = self._state.stream_of(pool)
        return [
            Release(Action.SEGMENT_FREE, block.address, block.size_bytes, block, stream)
            for block in self._state.allocator.unsplit_blocks(pool)
            if block not in gone
        ]

    def _handles(self, pool: int) -> list[Release]:
        """Handles that lie wholly inside free blocks of expandable segments."""
        allocator, stream = self._state.allocator, self._state.stream_of(pool)
        releases = []
        for block in allocator.free_blocks(pool):
            if block.segment.is_expandable:
                start, end = allocator.whole_handles(block)
                if end > start:
                    releases.append(Release(Action.SEGMENT_UNMAP, start, end - start, block, stream))
        return releases


@dataclass(slots=True)
class Refusal:
    """How far the best attempt to read a run came, and what the rules would have given back there.

    Attempts only add to it; nothing that is decided depends on it.
    """

    n_read: int = 0
    expected: Release | None = None

    def note(self, n_read: int, expected: Release) -> None:
        """An attempt came that far; of several that came equally far the last counts."""
        if n_read >= self.n_read:
            self.n_read, self.expected = n_read, expected

    def describe(self, trace: Trace) -> str:
        """What the rules would have given back, for a divergence."""
        return "nothing more" if self.expected is None else self.expected.describe(trace)


@dataclass(frozen=True, slots=True)
class RunReader:
    """Reads one run of events that gave memory back, as the stages of a reclaim.

    Attributes
    ----------
    run
        The events.
    refusal
        Where the best attempt failed, for the message if none succeeds.
    """

    state: PinnedState
    run: tuple[Key, ...]
    unused: UnusedMemory
    refusal: Refusal = field(default_factory=Refusal)

    @classmethod
    def of(cls, state: PinnedState, start: int, end: int) -> RunReader:
        """A reader of the events from a position up to another."""
        recording = state.recording
        columns = (recording.action, recording.address, recording.size_bytes, recording.stream)
        keys = zip(*(column[start:end].tolist() for column in columns), strict=True)
        return cls(state, tuple(keys), UnusedMemory(state))

    def read_for_nothing(self) -> Reading | None:
        """The run as ``empty_cache`` does it: a full release of pools; None if it is not that."""
        return self._whole_pools(Reading())

    def read_for(self, request: Request) -> Reading | None:
        """The run as a request does it that finds no block; None if it is not that.

        Pools released just before the request stand in front of its own stages.
        """
        before: Reading | None = Reading()
        while before is not None:
            found = self._stages(before, request)
            if found is not None:
                return found
            before = self._pool_alone(before)
        return None

    def _stages(self, reading: Reading, request: Request) -> Reading | None:
        """The rest of the run by what a request gives back; each stage may have sufficed.

        The stages are passes of garbage collection, then blocks above the split limit, then everything.
        """
        collects = self.state.config.gc_threshold_frac > 0
        takes_oversize = self.state.config.max_split_bytes is not None
        while len(reading) < len(self.run):
            everything = self._whole_pools(reading)
            if everything is not None:
                return everything
            further = self._collection(reading) if collects else None
            if further is None and takes_oversize:
                further = self._extended(reading, self.unused.oversize(request, reading.blocks))
                collects = takes_oversize = False
            if further is None:
                return None
            reading = further
        return reading

    def _whole_pools(self, reading: Reading) -> Reading | None:
        """Whole pools to the end of the run: each pool's releases are complete and in order."""
        gone = reading.blocks
        pools: list[int] = []
        further = reading
        while len(further) < len(self.run):
            pool = self._next_pool(further)
            if pool is None or pool in pools:
                return None
            pools.append(pool)
            extended = self._extended(further, self.unused.of_pool(pool, gone))
            if extended is None:
                return None
            further = extended
        if pools and pools[0] != 0 and self.unused.of_pool(0, gone):
            return further.then([], POOL_RELEASES)
        return further

    def _pool_alone(self, reading: Reading) -> Reading | None:
        """One pool that was released before the request."""
        pool = self._next_pool(reading)
        return (
            None if pool is None else self._extended(reading, self.unused.of_pool(pool, reading.blocks), POOL_RELEASES)
        )

    def _next_pool(self, reading: Reading) -> int | None:
        """The pool of what the next event gives back, None if no free block is there."""
        _, address, _, _ = self.run[len(reading)]
        return self.unused.pool_at(address)

    def _collection(self, reading: Reading) -> Reading | None:
        """One pass of garbage collection."""
        candidates = self.unused.collectable(reading.blocks)
        if any(release.block.is_old for release in candidates):
            return self._collection_of_old(reading, candidates)
        return self._extended(reading, self.unused.collected(candidates), COLLECTIONS) if candidates else None

    def _collection_of_old(self, reading: Reading, candidates: list[Release]) -> Reading | None:
        """Ages from before the recording are not known: whichever candidates were taken, in their order."""
        by_key = {release.key: (i, release) for i, release in enumerate(candidates)}
        taken: list[Release] = []
        last = -1
        for key in self.run[len(reading) :]:
            i, release = by_key.get(key, (-1, None))
            if release is None or i <= last:
                break
            taken.append(release)
            last = i
        return reading.then(taken, UNKNOWN_AGES, COLLECTIONS) if taken else None

    def _extended(self, reading: Reading, releases: list[Release], *inferred: str) -> Reading | None:
        """The reading with releases that the run goes on with, exactly; open ties may be in any order."""
        ordered = list(releases)
        recorded = iter(self.run[len(reading) :])
        for i in range(len(ordered)):
            key = next(recorded, None)
            k = next((k for k in range(i, len(ordered)) if ordered[k].key == key), NONE_ID)
            if k < 0 or (k > i and not self.state.is_open_tie(ordered[i].block, ordered[k].block)):
                self.refusal.note(min(len(reading) + i, len(self.run) - 1), ordered[i])
                return None
            ordered[i], ordered[k] = ordered[k], ordered[i]
        return reading.then(ordered, *inferred) if ordered else None


def follow_reclaim(state: PinnedState) -> None:
    """A run of segments that went back to the driver: every one, in order.

    Raises
    ------
    DivergedError
        If the rules give other memory back.
    """
    start = state.position
    end = state.end_of_run(start, GIVES_BACK)
    reader = RunReader.of(state, start, end)
    request = _request_after(state, end)
    if request is None:
        reading = reader.read_for_nothing()
        if reading is None:
            reading = _read_first_stages(reader, end)
    else:
        _miss(state, request)
        reading = reader.read_for(request)
    if reading is None:
        reason = "a reclaim gives back other memory"
        raise DivergedError(start + reader.refusal.n_read, reader.refusal.describe(state.recording.trace), reason)
    for release in reading.releases:
        is_whole = release.action == Action.SEGMENT_FREE
        give_back = state.allocator.release_block if is_whole else state.allocator.unmap_block
        give_back(release.block)
    state.inferred += Counter(reading.inferred)
    state.inferred[CACHES_EMPTIED if request is None else RECLAIMS] += 1
    state.position = end


def _read_first_stages(reader: RunReader, end: int) -> Reading | None:
    """What a request gave back before it waited for all streams: that wait completes frees in between."""
    state = reader.state
    if state.action_at(end) == Action.ALLOC:
        return _read_before_other_pool(reader, state.request_at(end))
    waited = state.end_of_run(end, (Action.FREE_COMPLETED,))
    if waited == end:
        return None
    request = _request_after(state, state.end_of_run(waited, GIVES_BACK))
    if request is None:
        return None
    _miss(state, request)
    return reader.read_for(request)


def _read_before_other_pool(reader: RunReader, request: Request) -> Reading | None:
    """A garbage collection for a request of the default pool that a pool with ``use_on_oom`` then served."""
    state = reader.state
    if state.config.gc_threshold_frac <= 0 or state.is_default(request.pool):
        return None
    state.allocator.gc_calls += request.rounded_bytes > caching.SMALL_BYTES
    return reader.read_for(request)


def _request_after(state: PinnedState, position: int) -> Request | None:
    """The request that a reclaim before this position was for, None if it was for none."""
    action = state.action_at(position)
    if action == Action.OOM:
        return state.request_at(position)
    if action == Action.SEGMENT_MAP:
        request = next_request(state.recording, position)
        return None if request == NONE_ID else state.request_at(request)
    if action == Action.SEGMENT_ALLOC and position + 1 < state.recording.n_events:
        return state.request_at(position + 1)
    return None


def _miss(state: PinnedState, request: Request) -> None:
    """A request that found no block begins its reclaim; that it found none need not be asked again."""
    state.count_call(request.pool)
    try:
        check_nothing_fits(state, request, caching.FollowStatus.FITS_ALREADY)
    except DivergedError:
        return
    state.missed_request = request.position
    note_failed_growth(state, request)
