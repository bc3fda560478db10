"""How the caching allocator's state lies in arrays, and the slots for its rows.

Rows are wide and few arrays hold them all, because handing an array to a compiled function costs far more than
reading another column of it. Rows of blocks and segments are reused; a free row is linked through its first column.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memscope._kernels.compiled import borrowing

NONE = -1

# Columns of ``blocks``.
B_ADDRESS = 0
B_SIZE = 1
B_REQUESTED = 2
B_STATE = 3
B_PREV = 4
B_NEXT = 5
B_LANE = 6
B_SEGMENT = 7
B_TIE = 8
"""What decides between equal sizes before the address: 0, the object's age or the segment's age."""
B_LEFT = 9
B_RIGHT = 10
B_PRIORITY = 11
B_GC_BASE = 12
B_PENDING_PREV = 13
B_PENDING_NEXT = 14
B_IS_OLD = 15
"""1 where the age of the block is not known: it stood before the first event."""
N_BLOCK_COLUMNS = 16

# Values of ``B_STATE``.
SLOT_EMPTY = 0
FREE = 1
ALLOCATED = 2
PENDING = 3
UNMAPPED = 4

# Columns of ``segments``. An expandable segment is the whole address reservation.
S_ADDRESS = 0
S_SIZE = 1
S_IS_LIVE = 2
S_IS_EXPANDABLE = 3
S_LANE = 4
S_SERIAL = 5
S_HEAD = 6
S_IS_OLD = 7
N_SEGMENT_COLUMNS = 8

# Columns of ``lanes``. A lane is one (pool, stream, size class): free memory never crosses lanes. Lane 2k is the small
# one and 2k + 1 the large one of the same pool and stream.
L_POOL = 0
L_FREE_ROOT = 1
L_UNMAPPED_ROOT = 2
L_CAN_SPLIT = 3
L_IS_RELEASABLE = 4
L_RELEASE_ORDER = 5
"""Entry i names the lane whose free segments go back i-th in a reclaim, −1 after the last."""
L_ADDRESS_ROOT = 6
"""Free blocks by address, for the models that choose by it: see :mod:`memscope._kernels.address_sets`."""
N_LANE_COLUMNS = 7

# Columns of ``log``.
E_ACTION = 0
E_ADDRESS = 1
E_SIZE = 2
E_LANE = 3
N_LOG_COLUMNS = 4

# Entries of ``counters``.
C_BLOCK_TOP = 0
C_BLOCK_SLOT = 1
C_N_BLOCKS = 2
C_SEGMENT_TOP = 3
C_SEGMENT_SLOT = 4
C_N_SEGMENTS = 5
C_BLOCK_SERIAL = 6
C_SEGMENT_SERIAL = 7
C_RESERVED = 8
C_ACTIVE = 9
C_ALLOCATED = 10
C_REQUESTED = 11
C_PEAK_RESERVED = 12
C_PEAK_ACTIVE = 13
C_PEAK_ALLOCATED = 14
C_PEAK_REQUESTED = 15
C_DEVICE_USED = 16
C_N_DEVICE_ALLOCS = 17
C_N_DEVICE_FREES = 18
C_N_RETRIES = 19
C_N_OOMS = 20
C_NEXT_ADDRESS = 21
C_LOG = 22
C_PENDING_HEAD = 23
C_PENDING_TAIL = 24
C_GC_CALLS = 25
C_N_REJECTIONS = 26
C_N_SYNCS = 27
C_N_RESERVATIONS = 28
C_N_RESERVATIONS_DROPPED = 29
C_N_MAPPED_HANDLES = 30
C_N_UNMAPPED_HANDLES = 31
C_N_MAP_CALLS = 32
C_N_UNMAP_CALLS = 33
C_N_ASYNC_ALLOCS = 34
C_N_ASYNC_FREES = 35
C_N_STREAM_SYNCS = 36
N_COUNTERS = 37

# Entries of ``config``.
CFG_TIE_RULE = 0
CFG_MAX_SPLIT = 1
CFG_NON_SPLIT_ROUNDING = 2
CFG_LARGE_SEGMENT = 3
CFG_IS_EXPANDABLE = 4
CFG_CAPACITY = 5
"""Bytes that the driver can give out, −1 for no limit."""
CFG_LIMIT = 6
"""Bytes that the memory fraction allows, −1 for no limit."""
CFG_GC_BYTES = 7
"""Reserved bytes from which garbage is collected, −1 for never."""
CFG_RESERVATION = 8
"""Bytes of address space for one expandable segment, before rounding to its handle size."""
CFG_IS_LOGGED = 9
CFG_GAP = 10
CFG_RESERVATION_ALIGNMENT = 11
CFG_RESERVATION_GAP = 12
CFG_REJECT_ABOVE = 13
"""Reserved bytes above which ``throw_on_cudamalloc_oom`` rejects at once, −1 where it is off."""
CFG_DIVISIONS = 14
N_CONFIG = CFG_DIVISIONS + 16

# What a kernel answers where a block is expected.
STATUS_OOM = -2
STATUS_GROW = -3

# Tie rules and actions, by the numbers of memscope.trace.schema.
TIE_ADDRESS = 0
TIE_BLOCK_AGE = 1
TIE_SEGMENT_AGE = 2
ACTION_ALLOC = 0
ACTION_FREE_REQUESTED = 1
ACTION_FREE_COMPLETED = 2
ACTION_SEGMENT_ALLOC = 3
ACTION_SEGMENT_FREE = 4
ACTION_SEGMENT_MAP = 5
ACTION_SEGMENT_UNMAP = 6
ACTION_OOM = 7

DRIVER_GRANULE_BYTES = 2 << 20

ROWS_PER_REQUEST = 64
"""Blocks that a request may add: two, but a buddy allocator halves a block once for each power of two."""

Int64Matrix = npt.NDArray[np.int64]


class CachingArrays(NamedTuple):
    """State of one device's allocator: int64 arrays of rows, by the columns named in this module."""

    blocks: Int64Matrix
    segments: Int64Matrix
    lanes: Int64Matrix
    log: Int64Matrix
    counters: Int64Matrix
    config: Int64Matrix


@borrowing
def has_room(arrays):
    """Whether every array has room for the most that a single request can add."""
    n_blocks, n_segments, n_logged = rows_needed(arrays)
    return n_blocks <= len(arrays.blocks) and n_segments <= len(arrays.segments) and n_logged <= len(arrays.log)


@borrowing
def rows_needed(arrays):
    """Rows of blocks, segments and log that may be in use after one more request.

    Without expandable segments a request adds two blocks at most; with them, a reclaim may leave two pieces of every
    free block, and a request may map every unmapped range. A reclaim logs at most three events for each block.
    """
    counters = arrays.counters
    n_blocks = counters[C_N_BLOCKS]
    factor = 4 if arrays.config[CFG_IS_EXPANDABLE] else 1
    n_logged = counters[C_LOG] + 3 * n_blocks + 8 if arrays.config[CFG_IS_LOGGED] else 0
    return factor * n_blocks + ROWS_PER_REQUEST, counters[C_N_SEGMENTS] + 2, n_logged


@borrowing
def log_event(arrays, action, address, size, lane):
    """Append to the log, if it is kept."""
    if arrays.config[CFG_IS_LOGGED]:
        position = arrays.counters[C_LOG]
        arrays.log[position, E_ACTION] = action
        arrays.log[position, E_ADDRESS] = address
        arrays.log[position, E_SIZE] = size
        arrays.log[position, E_LANE] = lane
        arrays.counters[C_LOG] = position + 1


@borrowing
def _priority(slot):
    """A fixed, well-spread number for a slot: the shape of the free sets depends on nothing else."""
    mixed = ((slot + 1) * 1640531527) & 0x7FFFFFFF
    mixed ^= mixed >> 15
    return (mixed * 1103515245) & 0x7FFFFFFF


@borrowing
def new_block(arrays, segment, address, size, state):
    """Take a row for a block of a segment; its neighbours are the caller's to set. O(1)."""
    counters, blocks = arrays.counters, arrays.blocks
    block = counters[C_BLOCK_SLOT]
    if block == NONE:
        block = counters[C_BLOCK_TOP]
        counters[C_BLOCK_TOP] = block + 1
    else:
        counters[C_BLOCK_SLOT] = blocks[block, 0]
    counters[C_N_BLOCKS] += 1
    counters[C_BLOCK_SERIAL] += 1
    blocks[block, B_ADDRESS] = address
    blocks[block, B_SIZE] = size
    blocks[block, B_REQUESTED] = 0
    blocks[block, B_STATE] = state
    blocks[block, B_PREV] = NONE
    blocks[block, B_NEXT] = NONE
    blocks[block, B_LANE] = arrays.segments[segment, S_LANE]
    blocks[block, B_SEGMENT] = segment
    tie_rule = arrays.config[CFG_TIE_RULE]
    if tie_rule == TIE_ADDRESS:
        blocks[block, B_TIE] = 0
    elif tie_rule == TIE_BLOCK_AGE:
        blocks[block, B_TIE] = counters[C_BLOCK_SERIAL]
    else:
        blocks[block, B_TIE] = arrays.segments[segment, S_SERIAL]
    blocks[block, B_LEFT] = NONE
    blocks[block, B_RIGHT] = NONE
    blocks[block, B_PRIORITY] = _priority(block)
    blocks[block, B_GC_BASE] = 0
    blocks[block, B_PENDING_PREV] = NONE
    blocks[block, B_PENDING_NEXT] = NONE
    blocks[block, B_IS_OLD] = 0
    return block


@borrowing
def drop_block(arrays, block):
    """Give a block's row back."""
    arrays.blocks[block, B_STATE] = SLOT_EMPTY
    arrays.blocks[block, 0] = arrays.counters[C_BLOCK_SLOT]
    arrays.counters[C_BLOCK_SLOT] = block
    arrays.counters[C_N_BLOCKS] -= 1


@borrowing
def new_segment(arrays, lane, address, size, is_expandable, state):
    """Take a row for a segment and one for the single block that covers it; returns the block. O(1)."""
    counters, segments = arrays.counters, arrays.segments
    segment = counters[C_SEGMENT_SLOT]
    if segment == NONE:
        segment = counters[C_SEGMENT_TOP]
        counters[C_SEGMENT_TOP] = segment + 1
    else:
        counters[C_SEGMENT_SLOT] = segments[segment, 0]
    counters[C_N_SEGMENTS] += 1
    counters[C_SEGMENT_SERIAL] += 1
    segments[segment, S_ADDRESS] = address
    segments[segment, S_SIZE] = size
    segments[segment, S_IS_LIVE] = 1
    segments[segment, S_IS_EXPANDABLE] = is_expandable
    segments[segment, S_LANE] = lane
    segments[segment, S_SERIAL] = counters[C_SEGMENT_SERIAL]
    segments[segment, S_IS_OLD] = 0
    block = new_block(arrays, segment, address, size, state)
    segments[segment, S_HEAD] = block
    return block


@borrowing
def drop_segment(arrays, segment):
    """Give a segment's row back."""
    arrays.segments[segment, S_IS_LIVE] = 0
    arrays.segments[segment, 0] = arrays.counters[C_SEGMENT_SLOT]
    arrays.counters[C_SEGMENT_SLOT] = segment
    arrays.counters[C_N_SEGMENTS] -= 1


@borrowing
def grow_counter(counters, current, peak, n_bytes):
    """Add to a counter of bytes and keep its peak."""
    counters[current] += n_bytes
    counters[peak] = max(counters[peak], counters[current])
