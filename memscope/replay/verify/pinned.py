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
from memscope._kernels.caching import _growth_room as growth_room
from memscope._kernels.caching import find_free_block
from memscope._kernels.caching_blocks import add_segment, hand_out, is_expandable_block, lane_of, release_segment
from memscope._kernels.caching_expandable import unmap_block
from memscope._kernels.caching_rules import SMALL_BYTES, round_size, segment_size
from memscope.replay.caching.arrays import grow, new_arrays
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.recording import Recording, next_request
from memscope.replay.verify.divergence import DivergedError, Divergence
from memscope.replay.verify.growth import cut_for_choice, follow_growth, growth_without_map, note_failed_growth
from memscope.replay.verify.old_blocks import old_blocks_may_hold, widen_old_block
from memscope.replay.verify.reclaim import ReclaimMatcher, Release
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
OUT_OF_MEMORY_FITS = -1
_REASONS[OUT_OF_MEMORY_FITS] = "the recording ran out of memory, the rules find a free block that fits"
TIES = "ties among blocks that predate the recording, taken as recorded"
DEFERRALS = "frees that waited for another stream (record_stream)"
CACHES_EMPTIED = "calls of empty_cache"
LATE_FREES = "frees that completed while a request waited for all streams, too late to serve it"
PRIVATE_OOMS = "requests out of memory in a private pool that the recording does not name"
RECLAIMS = "reclaims before a request (a retry, or empty_cache)"


_GIVES_BACK = (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)
_WHILE_RECLAIMING = (Action.FREE_COMPLETED, *_GIVES_BACK)


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
        self._missed_request = NONE_ID
        self.lanes_with_spare: set[int] = set()

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
            self._decide_choice()
        elif status == kernel.FITS_NOWHERE:
            self._grow_without_map()
        elif status == kernel.FITS_ALREADY:
            self._make_room()
            self._segment_alloc()
        elif status == kernel.ACTIVE_BYTES_DIFFER and old_blocks_may_hold(self, self._missing_active_bytes()):
            self.position += 1
        elif status == kernel.NEEDS_DECISION:
            self._decide_event(Action(int(self.recording.action[self.position])))
        else:
            raise self._diverged(status)

    def _missing_active_bytes(self) -> int:
        return int(self.recording.size_bytes[self.position]) - int(self.arrays.counters[at.C_ACTIVE])

    def _decide_event(self, action: Action) -> None:
        self._make_room()
        if action in _GIVES_BACK:
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
        if status == kernel.FITS_ELSEWHERE:
            lane, rounded = self.lane_of_request(position)
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

    def _decide_choice(self) -> None:
        """Take the recorded block if what decides between it and the simulator's is not known."""
        position = self.position
        lane, rounded = self.lane_of_request(position)
        address = int(self.recording.address[position])
        recorded = int(kernel.free_block_at(self.arrays, address))
        if recorded < 0 or self.arrays.blocks[recorded, at.B_LANE] != lane:
            raise self._diverged(kernel.FITS_ELSEWHERE)
        chosen = self._first_fit_with(recorded, lane, rounded)
        if chosen == recorded:
            self.inferred[TIES] += 1
        elif chosen == at.NONE:
            raise self._diverged(kernel.FITS_ELSEWHERE)
        elif self.config.is_expandable and cut_for_choice(self, chosen, recorded):
            return  # Decided anew.
        elif widen_old_block(self, chosen, rounded):
            return
        elif not self._follows_reclaim() or growth_without_map(self, lane, rounded, address) != recorded:
            raise self._diverged(kernel.FITS_ELSEWHERE)
        self.count_call(lane)
        self._call_is_counted = False
        self._take(position, recorded, rounded)

    def _follows_reclaim(self) -> bool:
        """Whether memory went back just before: then the driver was asked next, not the free blocks."""
        return bool(self.position and self.recording.action[self.position - 1] in _WHILE_RECLAIMING)

    def _first_fit_with(self, favourite: int, lane: int, rounded: int) -> int:
        """The block that a request takes if a free block stands first among those of its size and unknown age."""
        blocks = self.arrays.blocks
        ordered = [int(b) for b in self.ordered_blocks(lane, unsplit_only=False) if blocks[b, at.B_SIZE] >= rounded]
        if not self.config.is_expandable:
            ordered = [block for block in ordered if not is_expandable_block(self.arrays, block)]
        if favourite not in ordered:
            return at.NONE
        place = ordered.index(favourite)
        ahead = next((i for i in range(place) if self.is_open_tie(ordered[i], favourite)), place)
        ordered.insert(ahead, ordered.pop(place))
        if not self.config.is_expandable:
            return ordered[0]
        # The walk over what can still grow, as in ``find_free_block``.
        room = [int(growth_room(self.arrays, block)) for block in ordered]
        i = 0
        while is_expandable_block(self.arrays, ordered[i]) and i + 1 < len(ordered) and room[i + 1] < room[i]:
            i += 1
        return ordered[i]

    def _grow_without_map(self) -> None:
        """A request that found no block took one all the same: it grew, and needed no more memory for it."""
        position = self.position
        lane, rounded = self.lane_of_request(position)
        block = growth_without_map(self, lane, rounded, int(self.recording.address[position]))
        if block == NONE_ID:
            raise self._diverged(kernel.FITS_NOWHERE)
        self.count_call(lane)
        self.finish_request(block, rounded)

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

    @property
    def _may_be_private(self) -> bool:
        """Whether the pool of a failed request is not recorded, and there were private pools."""
        metadata = self.recording.trace.metadata
        return not metadata.has_pool_ids and any(pool != 0 for pool, _ in self.recording.pairs)

    def check_nothing_fits(self, request: int, lane: int, rounded: int, status: int) -> None:
        """A request that got no free block must find none, save what was freed too late.

        A reclaim waits for all streams, which completes frees, and then asks the driver again but not the free blocks.
        What it leaves of blocks that were too large for the request may fit as well by then.

        Raises
        ------
        DivergedError
            If another block fits.
        """
        block = int(find_free_block(self.arrays, lane, rounded))
        if block == at.NONE or request == self._missed_request:
            return
        if status == OUT_OF_MEMORY_FITS and self._may_be_private:
            self.inferred[PRIVATE_OOMS] += 1
            return
        blocks = self.arrays.blocks
        late = self.completed_just_before()
        fitting = self.ordered_blocks(lane, unsplit_only=False)
        for other in [block, *fitting[blocks[fitting, at.B_SIZE] >= rounded].tolist()]:
            start, end = int(blocks[other, at.B_ADDRESS]), int(blocks[other, at.B_ADDRESS] + blocks[other, at.B_SIZE])
            if not any(start <= address < end for address in late):
                if widen_old_block(self, other, rounded):
                    self.check_nothing_fits(request, lane, rounded, status)
                    return
                raise DivergedError(self.position, self.describe_block(block), _REASONS[status])
        self.inferred[LATE_FREES] += len(late)

    def _note_miss(self, request: int, lane: int, rounded: int) -> None:
        """Remember that a request found no block before its reclaim began."""
        try:
            self.check_nothing_fits(request, lane, rounded, kernel.FITS_ALREADY)
        except DivergedError:
            return
        self._missed_request = request
        note_failed_growth(self, lane, rounded)

    def completed_just_before(self) -> list[int]:
        """Addresses of the frees that completed since the last event that is no part of a reclaim."""
        action, position = self.recording.action, self.position - 1
        late = []
        while position >= 0 and action[position] in _WHILE_RECLAIMING:
            if action[position] == Action.FREE_COMPLETED:
                late.append(int(self.recording.address[position]))
            position -= 1
        return late

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
        self.check_nothing_fits(request, lane, rounded, kernel.FITS_ALREADY)
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
        left = ReclaimMatcher(self).of_pool(0) if int(self.arrays.lanes[lane, at.L_POOL]) == 0 else []
        if left and self._may_be_private:
            self.inferred[PRIVATE_OOMS] += 1
        elif left:
            block = int(find_free_block(self.arrays, lane, rounded))
            if block >= 0:
                raise DivergedError(position, self.describe_block(block), _REASONS[OUT_OF_MEMORY_FITS])
            reason = "the recording ran out of memory before all unused memory was given back"
            raise DivergedError(position, left[0].describe(), reason)
        else:
            self.check_nothing_fits(position, lane, rounded, OUT_OF_MEMORY_FITS)
        self.count_call(lane)
        self._call_is_counted = False
        note_failed_growth(self, lane, rounded)
        self.arrays.counters[at.C_N_OOMS] += 1
        self.position = position + 1

    def _reclaim(self) -> None:
        """A run of segments that went back to the driver: every one, in order."""
        recording, start = self.recording, self.position
        end = start
        while end < recording.n_events and recording.action[end] in _GIVES_BACK:
            end += 1
        request = self._request_after(end)
        matcher = ReclaimMatcher(self)
        if request != NONE_ID:
            lane, rounded = self.lane_of_request(request)
            self.count_call(lane)
            self._note_miss(request, lane, rounded)
            releases = matcher.match_request(start, end, lane, rounded)
        else:
            releases = matcher.match_all(start, end)
        if releases is None and request == NONE_ID:
            releases = self._match_first_stages(matcher, start, end)
        if releases is None:
            raise DivergedError(start + matcher.n_matched, matcher.expected(), "a reclaim gives back other memory")
        for release in releases:
            self._release(release)
        self.inferred += matcher.inferred
        self.inferred[CACHES_EMPTIED if request == NONE_ID else RECLAIMS] += 1
        self.position = end

    def _match_first_stages(self, matcher: ReclaimMatcher, start: int, end: int) -> list[Release] | None:
        """What a request gave back before it waited for all streams: that wait completes frees in between."""
        recording, position = self.recording, end
        if position < recording.n_events and recording.action[position] == Action.ALLOC:
            return self._match_before_other_pool(matcher, start, end)
        while position < recording.n_events and recording.action[position] == Action.FREE_COMPLETED:
            position += 1
        if position == end:
            return None
        while position < recording.n_events and recording.action[position] in _GIVES_BACK:
            position += 1
        request = self._request_after(position)
        if request == NONE_ID:
            return None
        lane, rounded = self.lane_of_request(request)
        self.count_call(lane)
        self._note_miss(request, lane, rounded)
        return matcher.match_request(start, end, lane, rounded)

    def _match_before_other_pool(self, matcher: ReclaimMatcher, start: int, end: int) -> list[Release] | None:
        """A garbage collection for a request of the default pool that a pool with ``use_on_oom`` then served."""
        lane, rounded = self.lane_of_request(end)
        if self.config.gc_threshold_frac <= 0 or self.arrays.lanes[lane, at.L_POOL] == 0:
            return None
        self.arrays.counters[at.C_GC_CALLS] += rounded > SMALL_BYTES
        return matcher.match_request(start, end, lane, rounded)

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
