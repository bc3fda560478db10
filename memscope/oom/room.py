"""What was free when a request failed, where it lay, and whether any arrangement of it would have been enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope._core import caching
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState, releasable_bytes
from memscope.oom._request import FailedRequest
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.failures import are_late, completed_before, own_segments, was_delayed
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import BoolArray, Int64Array


@dataclass(frozen=True, slots=True)
class FreeGroup:
    """Free memory of one pool, stream and size class.

    Attributes
    ----------
    pool, stream, size_class
        Pool pair (None: not recorded), raw stream handle (None: not recorded), ``small`` or ``large``.
    reserved_bytes, free_bytes, pending_bytes
        Its segments; their free blocks; blocks whose free waits for another stream.
    releasable_bytes
        Free memory that a reclaim gives back to the driver: after the failed one seldom more than nothing.
    pinned_bytes
        The other free bytes: live blocks keep their segments, or their pool is alive.
    largest_free_bytes
        The largest free block.
    can_serve
        Whether this request may take a block from here: its own pool, stream and size class.
    why_not
        Why it may not; empty where it may.
    """

    pool: tuple[int, int] | None
    stream: int | None
    size_class: str
    reserved_bytes: int
    free_bytes: int
    pending_bytes: int
    releasable_bytes: int
    pinned_bytes: int
    largest_free_bytes: int
    can_serve: bool
    why_not: str


@dataclass(frozen=True, slots=True)
class Room:
    """One state, seen by one request.

    Attributes
    ----------
    state
        Segments and blocks right after the ``oom`` event.
    is_own, is_usable
        bool (segments,): of the request's own pool, stream and class; of its pool or the default pool, whose memory it
        gets by way of the driver.
    fits_block
        Largest free block that the request may take by the allocator's rules, 0 if none.
    packed_bytes
        Reserved bytes that a perfectly packed allocator needs for what is active and the request: each pool, stream and
        class by itself, in pages of 2 MiB, which is what the driver deals in. Other private pools stay as they are.
    packed_without_pending_bytes, packed_with_pools_bytes
        The same if pending frees were complete; if other private pools were packed too.
    releasable_bytes
        What a reclaim would give back now.
    late_rows, pending_rows
        Allocations whose delayed free completed only in this request's reclaim and left a block large enough, and those
        whose free still waits.
    reclaimed_rows
        The late rows, and others whose delayed free may have completed only in the reclaim.
    groups
        Where free memory lies, the most first.
    """

    state: AllocatorState
    is_own: BoolArray
    is_usable: BoolArray
    fits_block: int
    packed_bytes: int
    packed_without_pending_bytes: int
    packed_with_pools_bytes: int
    releasable_bytes: int
    late_rows: Int64Array
    pending_rows: Int64Array
    reclaimed_rows: Int64Array
    groups: tuple[FreeGroup, ...]

    @property
    def free_bytes(self) -> int:
        """Free bytes in all segments."""
        return self.state.reserved_bytes - self.state.active_bytes

    @property
    def usable_free_bytes(self) -> int:
        """Free bytes of the pools whose memory this request could come by."""
        blocks = self.state.blocks
        free = (blocks.state == BlockState.INACTIVE) & self.is_usable[blocks.segment_id]
        return int(blocks.size_bytes[free].sum())

    @property
    def largest_own_free_bytes(self) -> int:
        """The largest free block of the request's own pool, stream and class."""
        return max((group.largest_free_bytes for group in self.groups if group.can_serve), default=0)

    @property
    def pending_bytes(self) -> int:
        """Bytes of blocks whose free still waits."""
        return sum(group.pending_bytes for group in self.groups)


def room_at(lifetimes: DeviceLifetimes, request: FailedRequest, config: CachingAllocatorConfig) -> Room:
    """Measure the state right after an ``oom`` event. Linear in its blocks, times the number of groups."""
    state = lifetimes.state_at(request.event)
    segments = state.segments
    pool_id = np.maximum(segments.pool_id, 0)
    is_own = own_segments(state, request.pool_id, request.stream_id, is_large=request.is_large)
    is_usable = (pool_id == max(request.pool_id, 0)) | (pool_id == 0)
    pending = state.blocks.state == BlockState.ACTIVE_PENDING_FREE
    waiting = state.allocation_ids[pending]
    completed = completed_before(lifetimes, request.event)
    is_late = are_late(lifetimes, completed, state, is_own, request.rounded_bytes)
    return Room(
        state=state,
        is_own=is_own,
        is_usable=is_usable,
        fits_block=_fitting_block(state, is_own, request.rounded_bytes, config),
        packed_bytes=_packed(state, is_usable, request),
        packed_without_pending_bytes=_packed(state, is_usable, request, counts_pending=False),
        packed_with_pools_bytes=_packed(state, np.ones(len(segments), np.bool_), request),
        releasable_bytes=int(releasable_bytes(state, config.large_segment_bytes).sum()),
        late_rows=completed[is_late],
        reclaimed_rows=completed[is_late | was_delayed(lifetimes, completed)],
        pending_rows=waiting[waiting != NONE_ID],
        groups=_groups(lifetimes, state, request, config),
    )


def fitting_free_bytes(sizes: Int64Array, rounded_bytes: int, config: CachingAllocatorConfig) -> BoolArray:
    """Which free blocks of these sizes the allocator would take for a request: bool (n,).

    Source: ``get_free_block`` in ``c10/cuda/CUDACachingAllocator.cpp``, read at 2.11.
    """
    limit = caching.UNLIMITED if config.max_split_bytes is None else config.max_split_bytes
    fits: BoolArray = sizes >= rounded_bytes
    if rounded_bytes < limit:
        return fits & (sizes < limit)
    return fits & (sizes < rounded_bytes + config.max_non_split_rounding_bytes)


def _fitting_block(state: AllocatorState, is_own: BoolArray, rounded: int, config: CachingAllocatorConfig) -> int:
    blocks = state.blocks
    sizes = blocks.size_bytes[(blocks.state == BlockState.INACTIVE) & is_own[blocks.segment_id]]
    if config.max_split_bytes is not None and len(sizes):
        # The allocator looks at the smallest sufficient block only.
        enough = sizes[sizes >= rounded]
        sizes = enough[enough == enough.min()] if len(enough) else enough
        sizes = sizes[fitting_free_bytes(sizes, rounded, config)]
    return int(sizes[sizes >= rounded].max(initial=0))


def free_runs_without(state: AllocatorState, is_gone: BoolArray) -> tuple[Int64Array, Int64Array]:
    """Free extents if some blocks were free too, neighbours merged: segment and bytes of each, int64 (m,)."""
    blocks = state.blocks
    free = (blocks.state == BlockState.INACTIVE) | is_gone
    rows = np.flatnonzero(free)
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    apart = (np.diff(rows) > 1) | (np.diff(blocks.segment_id[rows]) != 0)
    first = np.flatnonzero(np.concatenate([[True], apart]))
    return blocks.segment_id[rows[first]].astype(np.int64), np.add.reduceat(blocks.size_bytes[rows], first)


def _packed(
    state: AllocatorState,
    is_packed: BoolArray,
    request: FailedRequest,
    *,
    counts_pending: bool = True,
) -> int:
    segments, blocks = state.segments, state.blocks
    active = blocks.state != BlockState.INACTIVE
    if not counts_pending:
        active = blocks.state == BlockState.ACTIVE_ALLOCATED
    of_segment = np.zeros(len(segments), np.int64)
    np.add.at(of_segment, blocks.segment_id[active], blocks.size_bytes[active])
    total = int(segments.size_bytes[~is_packed].sum())
    own = (max(request.pool_id, 0), request.stream_id, request.is_large)
    lanes: dict[tuple[int, int, bool], int] = {own: request.rounded_bytes}
    for i in np.flatnonzero(is_packed).tolist():
        lane = (max(int(segments.pool_id[i]), 0), int(segments.stream_id[i]), bool(segments.is_large[i]))
        lanes[lane] = lanes.get(lane, 0) + int(of_segment[i])
    return total + sum(-(-used // caching.ROUND_LARGE_BYTES) * caching.ROUND_LARGE_BYTES for used in lanes.values())


def _groups(
    lifetimes: DeviceLifetimes, state: AllocatorState, request: FailedRequest, config: CachingAllocatorConfig
) -> tuple[FreeGroup, ...]:
    segments, blocks, trace = state.segments, state.blocks, lifetimes.trace
    released = releasable_bytes(state, config.large_segment_bytes)
    keys = np.stack([segments.pool_id, segments.stream_id, segments.is_large], axis=1)
    distinct, of_segment = np.unique(keys, axis=0, return_inverse=True)
    of_block = of_segment.reshape(-1)[blocks.segment_id]
    found = []
    for position, (pool_id, stream_id, is_large) in enumerate(distinct.tolist()):
        inside = of_block == position
        free = inside & (blocks.state == BlockState.INACTIVE)
        free_bytes, releasable = int(blocks.size_bytes[free].sum()), int(released[inside].sum())
        why_not = _why_not(request, pool_id, stream_id, bool(is_large))
        found.append(
            FreeGroup(
                pool=None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1])),
                stream=None if stream_id < 0 else int(trace.stream_handles[stream_id]),
                size_class="large" if is_large else "small",
                reserved_bytes=int(segments.size_bytes[of_segment.reshape(-1) == position].sum()),
                free_bytes=free_bytes,
                pending_bytes=int(blocks.size_bytes[inside & (blocks.state == BlockState.ACTIVE_PENDING_FREE)].sum()),
                releasable_bytes=releasable,
                pinned_bytes=free_bytes - releasable,
                largest_free_bytes=int(blocks.size_bytes[free].max(initial=0)),
                can_serve=not why_not,
                why_not=why_not,
            )
        )
    return tuple(sorted(found, key=lambda group: (-group.free_bytes, -group.reserved_bytes)))


def _why_not(request: FailedRequest, pool_id: int, stream_id: int, is_large: bool) -> str:
    if max(pool_id, 0) != max(request.pool_id, 0):
        return "another pool"
    if stream_id != request.stream_id:
        return "another stream"
    if is_large != request.is_large:
        return "other size class"
    return ""
