"""The address space of a simulated allocator as tables."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from memscope._core import caching
from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import BlockTable, Int32Array, SegmentTable

_STATES = {
    caching.BlockState.FREE: BlockState.INACTIVE,
    caching.BlockState.ALLOCATED: BlockState.ACTIVE_ALLOCATED,
    caching.BlockState.PENDING: BlockState.ACTIVE_PENDING_FREE,
}


class HasBlocks(Protocol):
    """Any allocator of the core."""

    def blocks(self) -> caching.BlockTable:
        """All blocks, those without memory too."""

    def segments(self) -> caching.SegmentTable:
        """All segments."""


def state_of(
    allocator: HasBlocks,
    stream_ids: Int32Array,
    pool_ids: Int32Array,
    *,
    device: int,
    event: int = NONE_ID,
) -> AllocatorState:
    """Segments and blocks now, ascending by address; an expandable segment is one contiguous mapped run.

    Parameters
    ----------
    stream_ids, pool_ids
        int32 (pairs,): what to write for each (pool, stream) pair of the allocator.
    """
    held, made = allocator.blocks(), allocator.segments()
    used = np.flatnonzero(held.state != caching.BlockState.UNMAPPED)
    used = used[np.argsort(held.address[used], kind="stable")]
    address, size, segment = held.address[used], held.size_bytes[used], held.segment[used]
    starts = np.ones(len(used), np.bool_)
    starts[1:] = (segment[1:] != segment[:-1]) | (address[1:] != (address + size)[:-1])
    heads = np.flatnonzero(starts)
    pool = held.pool[used][heads]
    segments = SegmentTable(
        device=np.full(len(heads), device, np.int16),
        address=address[heads],
        size_bytes=np.add.reduceat(size, heads) if len(heads) else np.empty(0, np.int64),
        stream_id=stream_ids[pool // 2],
        pool_id=pool_ids[pool // 2],
        is_large=pool % 2 == 1,
        is_expandable=made.is_expandable[np.searchsorted(made.id, segment[heads])],
        stack_id=np.full(len(heads), NONE_ID, np.int32),
    )
    state = np.full(len(used), BlockState.INACTIVE, np.int8)
    for code, meaning in _STATES.items():
        state[held.state[used] == code] = meaning
    table = BlockTable(
        segment_id=np.cumsum(starts, dtype=np.int32) - np.int32(1),
        address=address,
        size_bytes=size,
        requested_bytes=np.where(state == BlockState.INACTIVE, 0, held.requested_bytes[used]),
        state=state,
        stack_id=np.full(len(used), NONE_ID, np.int32),
    )
    none = np.full(len(used), NONE_ID, np.int64)
    return AllocatorState(event=event, device=device, segments=segments, blocks=table, allocation_ids=none)
