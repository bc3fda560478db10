"""A recording's requests served by an allocator of other settings, in one loop."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching import malloc, release_cached, release_lanes
from memscope._kernels.caching_blocks import complete_free, request_free
from memscope._kernels.compiled import borrowing

OP_NONE = 0
OP_MALLOC = 1
OP_FREE = 2
"""A free whose request, or whose completion, is not among the events: it completes at once."""
OP_FREE_LATER = 3
OP_COMPLETE = 4
OP_EMPTY_CACHE = 5
OP_EMPTY_POOL = 6

U_ALLOCATED = 0
U_ACTIVE = 1
U_REQUESTED = 2
U_RESERVED = 3
N_USAGE = 4

FINISHED = 0


@borrowing
def replay_requests(arrays, op, row, dropped_pool, requested_bytes, pair, block_of_row, sync_of_row, usage, position):
    """Serve requests from a position on.

    Parameters
    ----------
    op, row
        int64 (n,): what the program did at each event, and the allocation (for ``OP_EMPTY_POOL``: the pool).
    dropped_pool
        int64 (n,): pool whose owner is gone after an event, −1 for none.
    requested_bytes, pair
        int64 (rows,): size and (pool, stream) of each allocation.
    block_of_row, sync_of_row
        int64 (rows,): block of each allocation; number of synchronisations when its free began to wait.
    usage
        int64 (4, n + 1): allocated, active, requested and reserved bytes after each event, filled from 1 on.

    Returns
    -------
    position, status
        Where it stopped: at the end, at a request that cannot be served (``STATUS_OOM``), or for want of room
        (``STATUS_GROW``). Each request costs O(log n) in the free blocks.
    """
    counters = arrays.counters
    while position < len(op):
        what, i = op[position], row[position]
        if what != OP_NONE and not at.has_room(arrays):
            return position, at.STATUS_GROW
        if what == OP_MALLOC:
            block = malloc(arrays, pair[i], requested_bytes[i])
            if block < 0:
                write_usage(counters, usage, position)
                return position, block
            block_of_row[i] = block
        elif what == OP_FREE and block_of_row[i] >= 0:
            request_free(arrays, block_of_row[i], False)
        elif what == OP_FREE_LATER and block_of_row[i] >= 0:
            request_free(arrays, block_of_row[i], True)
            sync_of_row[i] = counters[at.C_N_SYNCS]
        elif what == OP_COMPLETE and block_of_row[i] >= 0:
            # A reclaim in between has waited for all streams, so that the free is complete already.
            if sync_of_row[i] == counters[at.C_N_SYNCS]:
                complete_free(arrays, block_of_row[i])
        elif what == OP_EMPTY_CACHE:
            release_cached(arrays)
        elif what == OP_EMPTY_POOL:
            _release_pool(arrays, i)
        if dropped_pool[position] >= 0:
            for lane in range(len(arrays.lanes)):
                if arrays.lanes[lane, at.L_POOL] == dropped_pool[position]:
                    arrays.lanes[lane, at.L_IS_RELEASABLE] = 1
        write_usage(counters, usage, position)
        position += 1
    return position, FINISHED


@borrowing
def write_usage(counters, usage, position):
    """Note the bytes after the event at a position."""
    usage[U_ALLOCATED, position + 1] = counters[at.C_ALLOCATED]
    usage[U_ACTIVE, position + 1] = counters[at.C_ACTIVE]
    usage[U_REQUESTED, position + 1] = counters[at.C_REQUESTED]
    usage[U_RESERVED, position + 1] = counters[at.C_RESERVED]


@borrowing
def _release_pool(arrays, pool):
    lanes = arrays.lanes
    for position in range(len(lanes)):
        if lanes[lanes[position, at.L_RELEASE_ORDER], at.L_POOL] == pool:
            release_lanes(arrays, position, position + 1)
