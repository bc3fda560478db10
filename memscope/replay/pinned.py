"""A recording followed event by event, pinned to what only it can tell.

The recorded addresses of segments, the moments at which deferred frees completed and the moments at which the driver
was out of memory are taken as recorded. Everything else the simulated allocator decides itself, and each decision must
be the recorded one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import numpy.typing as npt

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_pinned as kernel
from memscope._kernels.caching import find_free_block
from memscope._kernels.caching_blocks import add_segment, hand_out, lane_of, release_segment
from memscope._kernels.caching_expandable import unmap_block
from memscope._kernels.caching_rules import round_size, segment_size
from memscope.replay.arrays import grow, new_arrays
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.divergence import DivergedError, Divergence
from memscope.replay.growth import follow_growth
from memscope.replay.reclaim import ReclaimMatcher, Release
from memscope.replay.recording import Recording, next_request
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.units import format_count

_REASONS = {
    kernel.FITS_NOWHERE: "the recording took a free block, the rules find none that fits",
    kernel.FITS_ALREADY: "the recording asked the driver for memory, the rules find a free block that fits",
    kernel.SEGMENT_SIZE_DIFFERS: "the segment has another size than the rules give it",
    kernel.NOT_IN_USE: "what is freed is not in use",
    kernel.SIZE_DIFFERS: "the free names another size than the allocation",
    kernel.ACTIVE_BYTES_DIFFER: "the recorded active bytes are not those of the blocks in use",
    kernel.FITS_ELSEWHERE: "the rules take another free block",
}
TIES = "ties among blocks that predate the recording, taken as recorded"
DEFERRALS = "frees that waited for another stream (record_stream)"
CACHES_EMPTIED = "calls of empty_cache"
RECLAIMS = "reclaims before a request (a retry, or empty_cache)"


class PinnedReplay:
    """One device's events, followed once from start to end by :meth:`run`.

    Attributes
    ----------
    arrays
        The allocator's state, after the last event that was followed.
    position
        Number of events followed.
    inferred
        How often something was concluded from the events because the recording does not say it.
    """

    def __init__(
        self,
        recording: Recording,
        config: CachingAllocatorConfig,
        tie_rule: TieRule,
        *,
        reservation_bytes: int | None = None,
    ) -> None:
        self.recording = recording
        self.config = config
        self.tie_rule = tie_rule
        self.position = 0
        self.inferred: Counter[str] = Counter()
        # The recording says what the driver and the limits gave.
        unlimited = dataclasses.replace(config, memory_fraction=1.0, throws_on_malloc_oom=False)
        arrays = new_arrays(unlimited, tie_rule=tie_rule, total_bytes=recording.total_bytes, is_logged=False)
        arrays.config[at.CFG_CAPACITY] = -1
        if reservation_bytes is not None:
            arrays.config[at.CFG_RESERVATION] = reservation_bytes
        arrays.config[at.CFG_GC_BYTES] = 0 if config.gc_threshold_frac > 0 else -1
        self.arrays, self.block_of_row = recording.start(arrays)
        self._scratch = np.empty(0, np.int64)
        self._call_is_counted = False

    def run(self) -> Divergence | None:
        """Follow the events; the first divergence, None if there is none."""
        divergence = self._follow()
        foreign = self.recording.first_foreign_stream()
        if foreign == NONE_ID or self.position < foreign:
            return divergence
        self.position = foreign
        event, stream = self.recording.first_event + foreign, int(self.recording.stream[foreign])
        reason = "the stream is not the one that the memory was allocated on"
        return Divergence(event, f"{self.recording.describe(foreign)} on stream {stream:#x}", "its own stream", reason)

    def _follow(self) -> Divergence | None:
        recording = self.recording
        while self.position < recording.n_events:
            position, status = kernel.follow(
                self.arrays,
                recording.action,
                recording.address,
                recording.size_bytes,
                recording.pair,
                recording.row,
                self.block_of_row,
                recording.requests_recorded,
                self.position,
            )
            self.position = int(position)
            try:
                self._decide(int(status))
            except DivergedError as diverged:
                event = recording.first_event + diverged.position
                return Divergence(event, recording.describe(diverged.position), diverged.got, diverged.reason)
        self.inferred[DEFERRALS] += recording.n_deferred_frees
        return None

    def _decide(self, status: int) -> None:
        if status == kernel.FOLLOWED:
            return
        if status == kernel.NEEDS_ROOM:
            self.arrays = grow(self.arrays)
        elif status == kernel.FITS_ELSEWHERE:
            self._decide_tie()
        elif status == kernel.NEEDS_DECISION:
            self._decide_event(Action(int(self.recording.action[self.position])))
        else:
            raise self._diverged(status)

    def _decide_event(self, action: Action) -> None:
        self._make_room()
        if action in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP):
            self._reclaim()
        elif action == Action.SEGMENT_ALLOC:
            self._segment_alloc()
        elif action == Action.SEGMENT_MAP:
            follow_growth(self)
        elif action == Action.OOM:
            self._out_of_memory()
        else:
            raise DivergedError(self.position, "nothing", f"{action.name.lower()} cannot be followed here")

    def _diverged(self, status: int) -> DivergedError:
        recording, position = self.recording, self.position
        got = "nothing of the kind"
        if status in (kernel.FITS_ALREADY, kernel.FITS_ELSEWHERE):
            request = position + (status == kernel.FITS_ALREADY)
            lane, rounded = self.lane_of_request(request)
            block = int(find_free_block(self.arrays, lane, rounded))
            got = self.describe_block(block)
        elif status == kernel.SEGMENT_SIZE_DIFFERS:
            _, rounded = self.lane_of_request(position + 1)
            got = f"a segment of {format_count(int(segment_size(rounded, self.config.large_segment_bytes)))} bytes"
        elif status == kernel.ACTIVE_BYTES_DIFFER:
            got = f"{format_count(int(self.arrays.counters[at.C_ACTIVE]))} active bytes"
        elif status == kernel.SIZE_DIFFERS:
            block = int(self.block_of_row[recording.row[position]])
            got = f"{format_count(int(self.arrays.blocks[block, at.B_REQUESTED]))} bytes allocated there"
        return DivergedError(position, got, _REASONS[status])

    def describe_block(self, block: int) -> str:
        """One line about a free block, for a divergence."""
        address, size = self.arrays.blocks[block, at.B_ADDRESS], self.arrays.blocks[block, at.B_SIZE]
        return f"a free block of {format_count(int(size))} bytes at {int(address):#x}"

    def lane_of_request(self, position: int) -> tuple[int, int]:
        """Lane and rounded size of the request at a position (an alloc, or an oom, which carries it rounded)."""
        recording = self.recording
        rounded = int(recording.size_bytes[position])
        if recording.action[position] != Action.OOM:
            rounded = int(round_size(rounded, self.arrays.config[at.CFG_DIVISIONS :]))
        if recording.pair[position] == NONE_ID:
            raise DivergedError(position, "nothing", "the pool of the request is not known")
        return int(lane_of(int(recording.pair[position]), rounded)), rounded

    def _decide_tie(self) -> None:
        """Take the recorded block if the ages that decide between it and the simulator's are not known."""
        position = self.position
        lane, rounded = self.lane_of_request(position)
        chosen = int(find_free_block(self.arrays, lane, rounded))
        recorded = int(kernel.free_block_at(self.arrays, int(self.recording.address[position])))
        if recorded < 0 or not self.is_open_tie(chosen, recorded):
            raise self._diverged(kernel.FITS_ELSEWHERE)
        self.count_call(lane)
        self._call_is_counted = False
        self._take(position, recorded, rounded)
        self.inferred[TIES] += 1

    def is_open_tie(self, block: int, other: int) -> bool:
        """Whether two free blocks differ only in ages from before the recording."""
        blocks = self.arrays.blocks
        same = all(blocks[block, column] == blocks[other, column] for column in (at.B_SIZE, at.B_LANE))
        if not same or self.tie_rule == TieRule.ADDRESS:
            return False
        if self.tie_rule == TieRule.BLOCK_AGE:
            return bool(blocks[block, at.B_IS_OLD] and blocks[other, at.B_IS_OLD])
        segment, other_segment = blocks[block, at.B_SEGMENT], blocks[other, at.B_SEGMENT]
        is_old = self.arrays.segments[:, at.S_IS_OLD]
        return bool(segment != other_segment and is_old[segment] and is_old[other_segment])

    def _take(self, position: int, block: int, rounded: int) -> None:
        requested = int(self.recording.size_bytes[position])
        given = kernel.take(self.arrays, block, requested, rounded)
        self.block_of_row[self.recording.row[position]] = given
        self.position = position + 1

    def finish_request(self, block: int, rounded: int) -> None:
        """Give the free block to the allocation recorded at the current position."""
        self._call_is_counted = False
        self._take(self.position, block, rounded)

    def count_call(self, lane: int) -> None:
        """Count a request for garbage collection, once however often it is retried."""
        if not self._call_is_counted:
            kernel.count_call(self.arrays, lane)
        self._call_is_counted = True

    def _segment_alloc(self) -> None:
        """A miss that the fast path left: with garbage collection, or not followed by its allocation."""
        recording, position = self.recording, self.position
        request = position + 1
        if request >= recording.n_events or recording.action[request] != Action.ALLOC:
            raise DivergedError(position, "an allocation after it", "a segment was made for no request")
        if recording.address[request] != recording.address[position]:
            raise DivergedError(request, f"{int(recording.address[position]):#x}", "the new segment was not used")
        lane, rounded = self.lane_of_request(request)
        if find_free_block(self.arrays, lane, rounded) != at.NONE:
            raise self._diverged(kernel.FITS_ALREADY)
        n_bytes = int(recording.size_bytes[position])
        if segment_size(rounded, self.config.large_segment_bytes) != n_bytes:
            raise self._diverged(kernel.SEGMENT_SIZE_DIFFERS)
        self.count_call(lane)
        self._call_is_counted = False
        self._add_segment(position, lane, rounded)

    def _add_segment(self, position: int, lane: int, rounded: int) -> None:
        """The segment recorded at a position, and the allocation that follows it."""
        recording, request = self.recording, self.position + 1
        block = add_segment(self.arrays, lane, int(recording.address[position]), int(recording.size_bytes[position]))
        given = hand_out(self.arrays, block, int(recording.size_bytes[request]), rounded)
        self.block_of_row[recording.row[request]] = given
        self.position = request + 1

    def _make_room(self) -> None:
        if not at.has_room(self.arrays):
            self.arrays = grow(self.arrays)

    def _out_of_memory(self) -> None:
        """The request must not fit, and nothing that a reclaim would have freed may be left."""
        position = self.position
        lane, rounded = self.lane_of_request(position)
        block = int(find_free_block(self.arrays, lane, rounded))
        if block >= 0:
            reason = "the recording ran out of memory, the rules find a free block that fits"
            raise DivergedError(position, self.describe_block(block), reason)
        if int(self.arrays.lanes[lane, at.L_POOL]) == 0:
            left = ReclaimMatcher(self).of_pool(0)
            if left:
                reason = "the recording ran out of memory before all unused memory was given back"
                raise DivergedError(position, left[0].describe(), reason)
        self.count_call(lane)
        self._call_is_counted = False
        self.arrays.counters[at.C_N_OOMS] += 1
        self.position = position + 1

    def _reclaim(self) -> None:
        """A run of segments that went back to the driver: every one, in order."""
        recording, start = self.recording, self.position
        end = start
        while end < recording.n_events and recording.action[end] in (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP):
            end += 1
        request = self._request_after(end)
        matcher = ReclaimMatcher(self)
        if request != NONE_ID:
            lane, rounded = self.lane_of_request(request)
            self.count_call(lane)
            releases = matcher.match_request(start, end, lane, rounded)
        else:
            releases = matcher.match_all(start, end)
        if releases is None:
            raise DivergedError(start + matcher.n_matched, matcher.expected(), "a reclaim gives back other memory")
        for release in releases:
            self._release(release)
        self.inferred += matcher.inferred
        self.inferred[CACHES_EMPTIED if request == NONE_ID else RECLAIMS] += 1
        self.position = end

    def _request_after(self, position: int) -> int:
        """The request that a reclaim before this position was for, −1 if it was for none."""
        recording = self.recording
        if position >= recording.n_events:
            return NONE_ID
        if recording.action[position] == Action.OOM:
            return position
        if recording.action[position] == Action.SEGMENT_MAP:
            return next_request(recording, position)
        if recording.action[position] == Action.SEGMENT_ALLOC and position + 1 < recording.n_events:
            return position + 1
        return NONE_ID

    def _release(self, release: Release) -> None:
        if release.action == Action.SEGMENT_FREE:
            release_segment(self.arrays, release.block)
        else:
            unmap_block(self.arrays, release.block)

    def ordered_blocks(self, lane: int, *, unsplit_only: bool) -> npt.NDArray[np.int64]:
        """Free blocks of a lane in their order; only whole ``cudaMalloc`` segments if asked."""
        if len(self._scratch) < len(self.arrays.blocks):
            self._scratch = np.empty(len(self.arrays.blocks), np.int64)
        collect = kernel.unsplit_blocks if unsplit_only else kernel.free_blocks
        return self._scratch[: int(collect(self.arrays, lane, self._scratch))].copy()
