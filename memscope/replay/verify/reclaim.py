"""What a reclaim gives back by the rules, matched with a recorded run of ``segment_free`` and ``segment_unmap``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import handle_bytes
from memscope._kernels.caching_rules import UNLIMITED
from memscope.trace.schema import NONE_ID, Action
from memscope.units import format_count

if TYPE_CHECKING:
    from memscope.replay.verify.pinned import PinnedReplay

COLLECTIONS = "garbage collections"
POOL_RELEASES = "releases of private pools alone"
UNKNOWN_AGES = "choices of a garbage collection among blocks that predate the recording, taken as recorded"


@dataclass(frozen=True, slots=True)
class Release:
    """One block that goes back: a whole segment, or handles of an expandable one."""

    action: Action
    address: int
    size_bytes: int
    block: int
    lane: int
    stream: int

    @property
    def key(self) -> tuple[int, int, int, int]:
        """What must be as recorded."""
        return int(self.action), self.address, self.size_bytes, self.stream

    def describe(self) -> str:
        """One line for a divergence."""
        return f"{self.action.name.lower()} of {format_count(self.size_bytes)} bytes at {self.address:#x}"


class ReclaimMatcher:
    """Finds the stages of a reclaim in a recorded run; nothing is changed.

    Attributes
    ----------
    n_matched
        Events of the run that the best attempt explained.
    inferred
        What was concluded on the way.
    """

    def __init__(self, replay: PinnedReplay) -> None:
        self._replay = replay
        self._arrays = replay.arrays
        self._gone: set[int] = set()
        self._start = self._end = 0
        self.n_matched = 0
        self._expected: Release | None = None
        self.inferred: Counter[str] = Counter()

    def expected(self) -> str:
        """What the rules would give back where the match ended."""
        return "nothing more" if self._expected is None else self._expected.describe()

    def match_all(self, start: int, end: int) -> list[Release] | None:
        """The releases if the run is a full release of pools, as ``empty_cache`` does it; None if it is not."""
        self._start, self._end = start, end
        return self._full(0)

    def match_request(self, start: int, end: int, lane: int, rounded_bytes: int) -> list[Release] | None:
        """The releases if the run is what a request does that finds no block; None if it is not.

        The stages are garbage collection passes, blocks above the split limit, then everything; each may have sufficed.
        Pools released just before the request stand in front of them.
        """
        self._start, self._end = start, end
        done: list[Release] = []
        while True:
            stages = self._stages(len(done), lane, rounded_bytes)
            if stages is not None:
                return done + stages
            pool = self._pool_at(len(done))
            stage = None if pool is None else self._matching(len(done), self.of_pool(pool))
            if stage is None:
                return None
            self.inferred[POOL_RELEASES] += 1
            done += stage
            self._gone.update(release.block for release in stage)

    def _stages(self, offset: int, lane: int, rounded_bytes: int) -> list[Release] | None:
        """The rest of the run as the stages of one request's reclaim, None if it is not that."""
        done: list[Release] = []
        inferred, gone = self.inferred.copy(), set(self._gone)
        may_collect = self._replay.config.gc_threshold_frac > 0
        may_take_oversize = self._replay.config.max_split_bytes is not None
        while offset + len(done) < self._end - self._start:
            position = offset + len(done)
            rest = self._full(position)
            if rest is not None:
                return done + rest
            stage = self._collection(position) if may_collect else None
            if stage is not None:
                self.inferred[COLLECTIONS] += 1
            elif may_take_oversize:
                stage = self._matching(position, self._oversize(lane, rounded_bytes))
                may_take_oversize = may_collect = False
            if stage is None:
                self.inferred, self._gone = inferred, gone
                return None
            done += stage
            self._gone.update(release.block for release in stage)
        return done

    def _full(self, offset: int) -> list[Release] | None:
        """Whole pools to the end of the run: each pool's releases are complete and in order."""
        done: list[Release] = []
        pools: list[int] = []
        while offset + len(done) < self._end - self._start:
            pool = self._pool_at(offset + len(done))
            if pool is None or pool in pools:
                return None
            pools.append(pool)
            matched = self._matching(offset + len(done), self.of_pool(pool))
            if matched is None:
                return None
            done += matched
        if pools and pools[0] != 0 and self.of_pool(0):
            self.inferred[POOL_RELEASES] += 1
        return done

    def _pool_at(self, offset: int) -> int | None:
        """The pool of the memory that the run's event at an offset gives back, None if no free block is there."""
        address = int(self._replay.recording.address[self._start + offset])
        blocks = self._arrays.blocks
        top = int(self._arrays.counters[at.C_BLOCK_TOP])
        rows = blocks[:top]
        inside = (
            (rows[:, at.B_STATE] == at.FREE)
            & (rows[:, at.B_ADDRESS] <= address)
            & (rows[:, at.B_ADDRESS] + rows[:, at.B_SIZE] > address)
        )
        found = inside.nonzero()[0]
        return int(self._arrays.lanes[rows[found[0], at.B_LANE], at.L_POOL]) if len(found) else None

    def of_pool(self, pool: int) -> list[Release]:
        """Everything unused of a pool, in order: its large lanes first in the default pool, last in private ones."""
        lanes = self._arrays.lanes
        ordered = [int(lane) for lane in lanes[:, at.L_RELEASE_ORDER] if lane >= 0 and lanes[lane, at.L_POOL] == pool]
        releases = []
        for is_large in (1, 0) if pool == 0 else (0, 1):
            of_class = [lane for lane in ordered if lane & 1 == is_large]
            for lane in of_class:
                releases += self._whole_segments(lane)
            for lane in of_class:
                releases += self._handles(lane)
        return releases

    def _whole_segments(self, lane: int) -> list[Release]:
        found = self._replay.ordered_blocks(lane, unsplit_only=True)
        return [self._segment_free(int(block)) for block in found if int(block) not in self._gone]

    def _segment_free(self, block: int) -> Release:
        address, size, lane = self._arrays.blocks[block, [at.B_ADDRESS, at.B_SIZE, at.B_LANE]].tolist()
        return Release(Action.SEGMENT_FREE, address, size, block, lane, self._stream(lane))

    def _handles(self, lane: int) -> list[Release]:
        """Handles that lie wholly inside free blocks of expandable segments."""
        blocks, segments = self._arrays.blocks, self._arrays.segments
        handle = int(handle_bytes(self._arrays, lane))
        releases = []
        for block in self._replay.ordered_blocks(lane, unsplit_only=False).tolist():
            segment = segments[blocks[block, at.B_SEGMENT]]
            if not segment[at.S_IS_EXPANDABLE]:
                continue
            base, start = int(segment[at.S_ADDRESS]), int(blocks[block, at.B_ADDRESS])
            end = start + int(blocks[block, at.B_SIZE])
            first = base + -(-(start - base) // handle) * handle
            last = base + (end - base) // handle * handle
            if last > first:
                releases.append(Release(Action.SEGMENT_UNMAP, first, last - first, block, lane, self._stream(lane)))
        return releases

    def _matching(self, offset: int, releases: list[Release]) -> list[Release] | None:
        """The releases in recorded order if the run goes on with exactly them; open ties may be in any order."""
        releases = list(releases)
        for i in range(len(releases)):
            position = self._start + offset + i
            recorded = self._recorded(position) if position < self._end else None
            k = next((k for k in range(i, len(releases)) if releases[k].key == recorded), NONE_ID)
            if k < 0 or (k > i and not self._replay.is_open_tie(releases[i].block, releases[k].block)):
                if offset + i >= self.n_matched:
                    self.n_matched, self._expected = min(offset + i, self._end - self._start - 1), releases[i]
                return None
            releases[i], releases[k] = releases[k], releases[i]
        return releases or None

    def _recorded(self, position: int) -> tuple[int, int, int, int]:
        recording = self._replay.recording
        return (
            int(recording.action[position]),
            int(recording.address[position]),
            int(recording.size_bytes[position]),
            int(recording.stream[position]),
        )

    def _stream(self, lane: int) -> int:
        return self._replay.recording.pairs[lane // 2][1]

    def _oversize(self, lane: int, rounded_bytes: int) -> list[Release]:
        """``release_available_cached_blocks``: one block that is enough, or the largest ones above the split limit."""
        limit = self._replay.config.max_split_bytes or UNLIMITED
        wanted = max(rounded_bytes, limit)
        segments = self._whole_segments(lane)
        enough = [release for release in segments if release.size_bytes >= wanted]
        if enough:
            return enough[:1]
        chosen: list[Release] = []
        for release in reversed([release for release in segments if release.size_bytes >= limit]):
            if sum(done.size_bytes for done in chosen) >= wanted:
                break
            chosen.append(release)
        return chosen

    def _collection(self, offset: int) -> list[Release] | None:
        """One pass of garbage collection: default pool's large segments whose age is at least the mean."""
        arrays = self._arrays
        order = arrays.lanes[:, at.L_RELEASE_ORDER]
        lanes = [int(lane) for lane in order if lane >= 0 and lane & 1 and arrays.lanes[lane, at.L_POOL] == 0]
        candidates = [release for lane in lanes for release in self._whole_segments(lane)]
        if not candidates:
            return None
        if any(arrays.blocks[release.block, at.B_IS_OLD] for release in candidates):
            return self._collection_of_old(offset, candidates)
        calls = int(arrays.counters[at.C_GC_CALLS])
        ages = [calls - int(arrays.blocks[release.block, at.B_GC_BASE]) for release in candidates]
        cutoff = sum(ages) / len(ages)
        return self._matching(offset, [r for r, age in zip(candidates, ages, strict=True) if age >= cutoff])

    def _collection_of_old(self, offset: int, candidates: list[Release]) -> list[Release] | None:
        """Ages from before the recording are not known: whichever candidates were taken, in their order."""
        by_key = {release.key: (i, release) for i, release in enumerate(candidates)}
        taken: list[Release] = []
        last = -1
        for position in range(self._start + offset, self._end):
            i, release = by_key.get(self._recorded(position), (-1, None))
            if release is None or i <= last:
                break
            taken.append(release)
            last = i
        if taken:
            self.inferred[UNKNOWN_AGES] += 1
        return taken or None
