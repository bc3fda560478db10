"""A recording and the simulated allocator that follows it: the one state that all decisions read and change."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_pinned as kernel
from memscope._kernels.caching import find_free_block
from memscope._kernels.caching_blocks import lane_of
from memscope._kernels.caching_rules import round_size, segment_size
from memscope.device.limits import Limits
from memscope.replay.caching.arrays import grow, new_arrays
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.recording import Recording
from memscope.replay.verify.divergence import REASONS, DivergedError
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.trace.tables import Int64Array
from memscope.units import format_count

GIVES_BACK = (Action.SEGMENT_FREE, Action.SEGMENT_UNMAP)
_WHILE_RECLAIMING = (Action.FREE_COMPLETED, *GIVES_BACK)


@dataclass(frozen=True, slots=True)
class Request:
    """What the event at a position asks for: an alloc, or an oom, which carries its size rounded already."""

    position: int
    lane: int
    rounded_bytes: int


@dataclass(slots=True)
class PinnedState:
    """How far a recording was followed, and the allocator's state there.

    Attributes
    ----------
    recording, config, tie_rule
        What is followed, and by which rules; never changed.
    arrays, block_of_row
        The allocator after the last event that was followed, and the block of each allocation (−1 none).
    position
        Number of events followed.
    inferred
        How often something was concluded from the events because the recording does not say it.
    missed_request
        Position of the request that is known to have found no free block before its reclaim began, −1 none.
    is_call_counted
        Whether the request that is being served was counted for garbage collection: once, however often it is retried.
    lanes_with_spare
        Lanes with a reservation that a failed request made, of which nothing is recorded yet.
    """

    recording: Recording
    config: CachingAllocatorConfig
    tie_rule: TieRule
    arrays: at.CachingArrays
    block_of_row: Int64Array
    position: int = 0
    inferred: Counter[str] = field(default_factory=Counter)
    missed_request: int = NONE_ID
    is_call_counted: bool = False
    lanes_with_spare: set[int] = field(default_factory=set)

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
        arrays = new_arrays(unlimited, Limits(recording.total_bytes), tie_rule=tie_rule, is_logged=False)
        arrays.config[at.CFG_CAPACITY] = -1
        if reservation_bytes is not None:
            arrays.config[at.CFG_RESERVATION] = reservation_bytes
        arrays.config[at.CFG_GC_BYTES] = 0 if config.gc_threshold_frac > 0 else -1
        arrays, block_of_row = recording.start(arrays)
        return cls(recording, config, tie_rule, arrays, block_of_row)

    def make_room(self) -> None:
        """Lengthen the arrays where the next request could run out of rows."""
        if not at.has_room(self.arrays):
            self.arrays = grow(self.arrays)

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
            rounded = int(round_size(rounded, self.arrays.config[at.CFG_DIVISIONS :]))
        if recording.pair[position] == NONE_ID:
            raise DivergedError(position, "nothing", "the pool of the request is not known")
        return Request(position, int(lane_of(int(recording.pair[position]), rounded)), rounded)

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

    def stream_of_lane(self, lane: int) -> int:
        """Raw handle of the stream that a lane belongs to."""
        return self.recording.pairs[lane // 2][1]

    # What the allocator has.

    def pool_of_lane(self, lane: int) -> int:
        """Dense pool id that a lane belongs to."""
        return int(self.arrays.lanes[lane, at.L_POOL])

    def free_block_for(self, request: Request) -> int:
        """The free block that the rules give to a request, −1 for none."""
        return int(find_free_block(self.arrays, request.lane, request.rounded_bytes))

    def free_block_at(self, address: int) -> int:
        """The free block that begins at an address, −1 for none."""
        return int(kernel.free_block_at(self.arrays, address))

    def free_blocks(self, lane: int) -> npt.NDArray[np.int64]:
        """The free blocks of a lane in their order."""
        out = np.empty(int(self.arrays.counters[at.C_BLOCK_TOP]), np.int64)
        return out[: int(kernel.free_blocks(self.arrays, lane, out))]

    def fitting_blocks(self, request: Request) -> list[int]:
        """The free blocks that are large enough for a request, in their order."""
        found = self.free_blocks(request.lane)
        fitting: list[int] = found[self.arrays.blocks[found, at.B_SIZE] >= request.rounded_bytes].tolist()
        return fitting

    def unsplit_blocks(self, lane: int) -> npt.NDArray[np.int64]:
        """The free blocks of a lane that are whole ``cudaMalloc`` segments, in their order."""
        out = np.empty(int(self.arrays.counters[at.C_BLOCK_TOP]), np.int64)
        return out[: int(kernel.unsplit_blocks(self.arrays, lane, out))]

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

    def growth_room_bytes(self, block: int) -> int:
        """Size of a block and of the unmapped range after it: what a request looks at where segments can grow."""
        blocks = self.arrays.blocks
        later = int(blocks[block, at.B_NEXT])
        is_growing = later != at.NONE and blocks[later, at.B_STATE] == at.UNMAPPED
        return int(blocks[block, at.B_SIZE]) + (int(blocks[later, at.B_SIZE]) if is_growing else 0)

    def holds_any(self, block: int, addresses: Iterable[int]) -> bool:
        """Whether one of some addresses lies in a block."""
        start = int(self.arrays.blocks[block, at.B_ADDRESS])
        end = start + int(self.arrays.blocks[block, at.B_SIZE])
        return any(start <= address < end for address in addresses)

    def describe_block(self, block: int) -> str:
        """One line about a free block, for a divergence."""
        address, size = self.arrays.blocks[block, at.B_ADDRESS], self.arrays.blocks[block, at.B_SIZE]
        return f"a free block of {format_count(int(size))} bytes at {int(address):#x}"

    def diverged(self, status: int) -> DivergedError:
        """What is wrong with the next event, by the reason for which it was not followed."""
        position, got = self.position, "nothing of the kind"
        if status == kernel.FITS_ELSEWHERE:
            got = self.describe_block(self.free_block_for(self.request_at(position)))
        elif status == kernel.SEGMENT_SIZE_DIFFERS:
            rounded = self.request_at(position + 1).rounded_bytes
            got = f"a segment of {format_count(int(segment_size(rounded, self.config.large_segment_bytes)))} bytes"
        elif status == kernel.ACTIVE_BYTES_DIFFER:
            got = f"{format_count(int(self.arrays.counters[at.C_ACTIVE]))} active bytes"
        elif status == kernel.SIZE_DIFFERS:
            block = int(self.block_of_row[self.recording.row[position]])
            got = f"{format_count(int(self.arrays.blocks[block, at.B_REQUESTED]))} bytes allocated there"
        return DivergedError(position, got, REASONS[status])

    # What changes both.

    def count_call(self, lane: int) -> None:
        """Count a request for garbage collection, once however often it is retried."""
        if not self.is_call_counted:
            kernel.count_call(self.arrays, lane)
        self.is_call_counted = True

    def serve(self, request: Request, block: int) -> None:
        """Give a free block to the allocation of a request: the event is followed, and the request done."""
        requested = int(self.recording.size_bytes[request.position])
        given = kernel.take(self.arrays, block, requested, request.rounded_bytes)
        self.finish(request, int(given))

    def finish(self, request: Request, given: int) -> None:
        """The events up to a request are followed; the block that it was given is in use."""
        self.block_of_row[self.recording.row[request.position]] = given
        self.position = request.position + 1
        self.is_call_counted = False

    def refuse(self, request: Request) -> None:
        """A request failed, and is done."""
        self.arrays.counters[at.C_N_OOMS] += 1
        self.position = request.position + 1
        self.is_call_counted = False
