"""A recording and the simulated allocator that follows it: the one state that all decisions read and change."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from typing_extensions import Self

from memscope._core import caching
from memscope.device.limits import Limits
from memscope.replay.caching.settings import new_allocator
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.recording import Recording
from memscope.replay.verify.divergence import REASONS, DivergedError, Status
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.units import format_count

GIVES_BACK = (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)
_WHILE_RECLAIMING = (Action.FREE_COMPLETED, *GIVES_BACK)


@dataclass(frozen=True, slots=True)
class Request:
    """What the event at a position asks for: an alloc, or an oom, which carries its size rounded already.

    ``pool`` is the index of the allocator's pool that serves it.
    """

    position: int
    pool: int
    rounded_bytes: int


@dataclass(slots=True)
class PinnedState:
    """How far a recording was followed, and the allocator's state there.

    Attributes
    ----------
    recording, config, tie_rule
        What is followed, and by which rules; never changed.
    allocator
        As it is after the last event that was followed.
    position
        Number of events followed.
    inferred
        How often something was concluded from the events because the recording does not say it.
    missed_request
        Position of the request that is known to have found no free block before its reclaim began, −1 none.
    is_call_counted
        Whether the request that is being served was counted for garbage collection: once, however often it is retried.
    pools_with_spare
        Pools with a reservation that a failed request made, of which nothing is recorded yet.
    """

    recording: Recording
    config: CachingAllocatorConfig
    tie_rule: TieRule
    allocator: caching.DeviceCachingAllocator
    position: int = 0
    inferred: Counter[str] = field(default_factory=Counter)
    missed_request: int = NONE_ID
    is_call_counted: bool = False
    pools_with_spare: set[int] = field(default_factory=set)

    @classmethod
    def before(
        cls,
        recording: Recording,
        config: CachingAllocatorConfig,
        tie_rule: TieRule,
        *,
        reservation_bytes: int | None = None,
    ) -> Self:
        """The state before the first event; reservations have the device's size where no other is given."""
        # The recording says what the driver and the limits gave.
        unlimited = dataclasses.replace(config, memory_fraction=1.0, throws_on_malloc_oom=False)
        allocator = new_allocator(unlimited, Limits(recording.total_bytes), tie_rule=tie_rule)
        allocator.capacity_bytes = -1
        if reservation_bytes is not None:
            allocator.reservation_bytes = reservation_bytes
        if config.gc_threshold_frac > 0:
            allocator.garbage_collection_bytes = 0
        recording.start(allocator)
        return cls(recording, config, tie_rule, allocator)

    # What the recording says.

    def action_at(self, position: int) -> int:
        """The action of an event, −1 behind the last one."""
        return int(self.recording.action[position]) if position < self.recording.n_events else NONE_ID

    def request_at(self, position: int) -> Request:
        """The request that an event at a position makes.

        Raises
        ------
        DivergedError
            If its pool is not known.
        """
        recording = self.recording
        rounded = int(recording.size_bytes[position])
        if recording.action[position] != Action.OOM:
            rounded = caching.round_size(rounded, self.config.roundup_divisions)
        if recording.pair[position] == NONE_ID:
            raise DivergedError(position, "nothing", "the pool of the request is not known")
        pool = 2 * int(recording.pair[position]) + (rounded > caching.SMALL_BYTES)
        return Request(position, pool, rounded)

    def end_of_run(self, position: int, actions: tuple[Action, ...]) -> int:
        """The position behind a run of events of some kinds."""
        while self.action_at(position) in actions:
            position += 1
        return position

    def completed_just_before(self) -> list[int]:
        """Addresses of the frees that completed since the last event that is no part of a reclaim."""
        action, position = self.recording.action, self.position - 1
        late = []
        while position >= 0 and action[position] in _WHILE_RECLAIMING:
            if action[position] == Action.FREE_COMPLETED:
                late.append(int(self.recording.address[position]))
            position -= 1
        return late

    @property
    def follows_reclaim(self) -> bool:
        """Whether memory went back just before: then the driver was asked next, not the free blocks."""
        return bool(self.position and self.recording.action[self.position - 1] in _WHILE_RECLAIMING)

    @property
    def may_be_private(self) -> bool:
        """Whether the pool of a failed request is not recorded, and there were private pools."""
        metadata = self.recording.trace.metadata
        return not metadata.has_pool_ids and any(pool != 0 for pool, _ in self.recording.pairs)

    # What the allocator has.

    def is_default(self, pool: int) -> bool:
        """Whether a pool is one of the default pool's."""
        return self.allocator.pools[pool].pool_id == 0

    def stream_of(self, pool: int) -> int:
        """Raw handle of the stream that a pool belongs to."""
        return self.recording.pairs[pool // 2][1]

    def free_block_for(self, request: Request) -> caching.Block | None:
        """The free block that the rules give to a request."""
        return self.allocator.find_free_block(request.pool, request.rounded_bytes)

    def fitting_blocks(self, request: Request) -> Iterator[caching.Block]:
        """The free blocks that are large enough for a request, in order; nothing may change meanwhile."""
        block = self.allocator.first_free_block(request.pool, request.rounded_bytes)
        while block is not None:
            yield block
            block = self.allocator.next_free_block(block)

    def is_open_tie(self, block: caching.Block, other: caching.Block) -> bool:
        """Whether two free blocks differ only in ages from before the recording."""
        if (block.size_bytes, block.pool) != (other.size_bytes, other.pool) or self.tie_rule == TieRule.ADDRESS:
            return False
        if self.tie_rule == TieRule.BLOCK_AGE:
            return block.is_old and other.is_old
        segment, other_segment = block.segment, other.segment
        return segment.id != other_segment.id and segment.is_old and other_segment.is_old

    @staticmethod
    def growth_room_bytes(block: caching.Block) -> int:
        """Size of a block and of the unmapped range after it: what a request looks at where segments can grow."""
        later = block.next
        is_growing = later is not None and later.state == caching.BlockState.UNMAPPED
        return block.size_bytes + (later.size_bytes if later is not None and is_growing else 0)

    @staticmethod
    def holds_any(block: caching.Block, addresses: Iterable[int]) -> bool:
        """Whether one of some addresses lies in a block."""
        start, end = block.address, block.end
        return any(start <= address < end for address in addresses)

    def describe_block(self, block: caching.Block) -> str:
        """One line about a free block, for a divergence."""
        address = self.recording.trace.address_text(block.address)
        return f"a free block of {format_count(block.size_bytes)} bytes at {address}"

    def diverged(self, status: Status) -> DivergedError:
        """What is wrong with the next event, by the reason for which it was not followed."""
        position, got = self.position, "nothing of the kind"
        if status == caching.FollowStatus.FITS_ELSEWHERE:
            block = self.free_block_for(self.request_at(position))
            got = got if block is None else self.describe_block(block)
        elif status == caching.FollowStatus.SEGMENT_SIZE_DIFFERS:
            rounded = self.request_at(position + 1).rounded_bytes
            got = f"a segment of {format_count(self.segment_bytes(rounded))} bytes"
        elif status == caching.FollowStatus.ACTIVE_BYTES_DIFFER:
            got = f"{format_count(self.allocator.stats.active_bytes)} active bytes"
        elif status == caching.FollowStatus.SIZE_DIFFERS:
            block = self.allocator.block_of(int(self.recording.row[position]))
            got = got if block is None else f"{format_count(block.requested_bytes)} bytes allocated there"
        return DivergedError(position, got, REASONS[status])

    def segment_bytes(self, rounded_bytes: int) -> int:
        """Size of the ``cudaMalloc`` that a rounded request leads to."""
        return caching.allocation_size(rounded_bytes, self.config.large_segment_bytes)

    # What changes both.

    def count_call(self, pool: int) -> None:
        """Count a request for garbage collection, once however often it is retried."""
        if not self.is_call_counted:
            self.allocator.count_call(pool)
        self.is_call_counted = True

    def serve(self, request: Request, block: caching.Block) -> None:
        """Give a free block to the allocation of a request: the event is followed, and the request done."""
        self.finish(request, self.allocator.alloc_from(block, int(self.recording.size_bytes[request.position])))

    def finish(self, request: Request, given: caching.Block) -> None:
        """The events up to a request are followed; the block that it was given is in use."""
        self.allocator.set_block_of(int(self.recording.row[request.position]), given)
        self.position = request.position + 1
        self.is_call_counted = False

    def refuse(self, request: Request) -> None:
        """A request failed, and is done."""
        self.allocator.count_oom()
        self.position = request.position + 1
        self.is_call_counted = False
