"""The words and column types of a trace: actions, block states, marks, tie rules, and the columns of each table.

Integer values are stored in ``.memscope`` files; they are never renumbered.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

NONE_ID = -1
"""The only value that means "none" in a column of ids, events, times or sizes."""

SCHEMA_VERSION = 4
"""Version of the ``.memscope`` container's content; raised on every change that older readers would misread."""
SCHEMA_VERSION_WITHOUT_BASES = 3
"""What is written where no base was taken off the addresses: the version before has no other difference."""


class Action(IntEnum):
    """What an event did, in torch's own words (``c10/core/CachingDeviceAllocator.h``, read at 2.15)."""

    ALLOC = 0
    FREE_REQUESTED = 1
    FREE_COMPLETED = 2
    SEGMENT_ALLOC = 3
    SEGMENT_FREE = 4
    SEGMENT_MAP = 5
    SEGMENT_UNMAP = 6
    OOM = 7
    SNAPSHOT = 8
    ANNOTATE = 9


ACTION_BY_NAME = {action.name.lower(): action for action in Action}


class BlockState(IntEnum):
    """State of a block; ``active_awaiting_free`` is torch's documentation's word for the second."""

    ACTIVE_ALLOCATED = 0
    ACTIVE_PENDING_FREE = 1
    INACTIVE = 2


BLOCK_STATE_BY_NAME = {
    "active_allocated": BlockState.ACTIVE_ALLOCATED,
    "active_pending_free": BlockState.ACTIVE_PENDING_FREE,
    "active_awaiting_free": BlockState.ACTIVE_PENDING_FREE,
    "inactive": BlockState.INACTIVE,
}


class MarkKind(IntEnum):
    """What a mark says. A mark stands *before* the event whose position it carries."""

    STEP = 0
    """A step ended here; the mark's label is the step's name."""
    PHASE_BEGIN = 1
    PHASE_END = 2


class TieRule(IntEnum):
    """Which of several equally good free blocks PyTorch takes; it changed with 2.12 and 2.13."""

    ADDRESS = 0
    """Lowest address: up to 2.11."""
    BLOCK_AGE = 1
    """Oldest block object: 2.12."""
    SEGMENT_AGE = 2
    """Oldest segment, then address: from 2.13."""


Columns = dict[str, "np.dtype[np.generic]"]


def _columns(**types: type[np.generic]) -> Columns:
    return {name: np.dtype(dtype) for name, dtype in types.items()}


EVENT_COLUMNS = _columns(
    time_ns=np.int64,
    action=np.int8,
    device=np.int16,
    address=np.int64,
    size_bytes=np.int64,
    stream_id=np.int32,
    pool_id=np.int32,
    stack_id=np.int32,
    label_id=np.int32,
)
"""Columns of the events. An event's id is its position; order is position, never time."""

FRAME_COLUMNS = _columns(name_id=np.int32, filename_id=np.int32, line=np.int32)

SEGMENT_COLUMNS = _columns(
    device=np.int16,
    address=np.int64,
    size_bytes=np.int64,
    stream_id=np.int32,
    pool_id=np.int32,
    is_large=np.bool_,
    is_expandable=np.bool_,
    stack_id=np.int32,
)

BLOCK_COLUMNS = _columns(
    segment_id=np.int32,
    address=np.int64,
    size_bytes=np.int64,
    requested_bytes=np.int64,
    state=np.int8,
    stack_id=np.int32,
)

SAMPLE_COLUMNS = _columns(
    event=np.int64,
    time_ns=np.int64,
    device=np.int16,
    device_free_bytes=np.int64,
    device_used_bytes=np.int64,
    process_used_bytes=np.int64,
    others_used_bytes=np.int64,
)
"""What the device itself said, at a position in the events; −1 where it was not measured."""

MARK_COLUMNS = _columns(event=np.int64, time_ns=np.int64, kind=np.int8, label_id=np.int32)

OWNER_COLUMNS = _columns(
    alloc_event=np.int64,
    device=np.int16,
    address=np.int64,
    category=np.int8,
    label_id=np.int32,
    tagged=np.bool_,
    tensor_id=np.int32,
)
"""Who owns an allocation, recorded by identity: one row at most for each alloc event, or for each device and address
where the allocation predates the events (``alloc_event`` −1; ``device`` and ``address`` are −1 otherwise)."""

CACHE_LAYER_COLUMNS = _columns(
    event=np.int64,
    device=np.int16,
    cache_id=np.int32,
    layer=np.int32,
    kind_id=np.int32,
    n_sequences=np.int32,
    key_token_bytes=np.int64,
    value_token_bytes=np.int64,
    capacity_tokens=np.int64,
    window_tokens=np.int64,
)
"""How a layer of a key/value cache keeps its tokens, from a position in the events on."""

CACHE_LENGTH_COLUMNS = _columns(event=np.int64, time_ns=np.int64, device=np.int16, cache_id=np.int32, n_tokens=np.int64)
"""How many tokens of each sequence a key/value cache has taken in, from a position in the events on."""
