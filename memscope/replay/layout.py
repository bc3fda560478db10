"""The address space inside an allocator's arrays, as tables."""

from __future__ import annotations

import numpy as np

from memscope._kernels import caching_layout as at
from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import NONE_ID, BlockState
from memscope.trace.tables import BlockTable, Int32Array, SegmentTable

_STATES = {
    at.FREE: BlockState.INACTIVE,
    at.ALLOCATED: BlockState.ACTIVE_ALLOCATED,
    at.PENDING: BlockState.ACTIVE_PENDING_FREE,
}


def state_of(
    arrays: at.CachingArrays, stream_ids: Int32Array, pool_ids: Int32Array, *, device: int, event: int = NONE_ID
) -> AllocatorState:
    """Segments and blocks now, ascending by address; an expandable segment is one contiguous mapped run.

    Parameters
    ----------
    stream_ids, pool_ids
        int32 (pairs,): what to write for each (pool, stream) pair of the lanes.
    """
    rows = arrays.blocks
    used = np.flatnonzero((rows[:, at.B_STATE] != at.SLOT_EMPTY) & (rows[:, at.B_STATE] != at.UNMAPPED))
    used = used[np.argsort(rows[used, at.B_ADDRESS], kind="stable")]
    blocks = rows[used]
    address, size = blocks[:, at.B_ADDRESS], blocks[:, at.B_SIZE]
    starts = np.ones(len(used), np.bool_)
    starts[1:] = (blocks[1:, at.B_SEGMENT] != blocks[:-1, at.B_SEGMENT]) | (address[1:] != (address + size)[:-1])
    heads = np.flatnonzero(starts)
    lane = blocks[heads, at.B_LANE]
    segments = SegmentTable(
        device=np.full(len(heads), device, np.int16),
        address=address[heads],
        size_bytes=np.add.reduceat(size, heads) if len(heads) else np.empty(0, np.int64),
        stream_id=stream_ids[lane // 2],
        pool_id=pool_ids[lane // 2],
        is_large=lane % 2 == 1,
        is_expandable=arrays.segments[blocks[heads, at.B_SEGMENT], at.S_IS_EXPANDABLE] == 1,
        stack_id=np.full(len(heads), NONE_ID, np.int32),
    )
    state = np.full(len(used), BlockState.INACTIVE, np.int8)
    for code, meaning in _STATES.items():
        state[blocks[:, at.B_STATE] == code] = meaning
    table = BlockTable(
        segment_id=np.cumsum(starts, dtype=np.int32) - np.int32(1),
        address=address,
        size_bytes=size,
        requested_bytes=np.where(state == BlockState.INACTIVE, 0, blocks[:, at.B_REQUESTED]),
        state=state,
        stack_id=np.full(len(used), NONE_ID, np.int32),
    )
    none = np.full(len(used), NONE_ID, np.int64)
    return AllocatorState(event=event, device=device, segments=segments, blocks=table, allocation_ids=none)
