"""A recording's requests served by a modelled allocator, in one loop."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_replay import (
    FINISHED,
    OP_COMPLETE,
    OP_EMPTY_CACHE,
    OP_FREE,
    OP_FREE_LATER,
    OP_MALLOC,
    OP_NONE,
    write_usage,
)
from memscope._kernels.compiled import borrowing
from memscope._kernels.policies import malloc, release
from memscope._kernels.policy_blocks import complete_free, request_free


@borrowing
def replay_policy(policy, arrays, op, row, requested_bytes, pair, block_of_row, sync_of_row, usage, position):
    """Serve requests from a position on, as :func:`memscope._kernels.caching_replay.replay_requests` does.

    Private pools are PyTorch's: here their allocations are served like any other, and emptying one is no act.
    """
    counters = arrays.counters
    while position < len(op):
        what, i = op[position], row[position]
        if what != OP_NONE and not at.has_room(arrays):
            return position, at.STATUS_GROW
        if what == OP_MALLOC:
            block = malloc(policy, arrays, pair[i], requested_bytes[i])
            if block < 0:
                write_usage(counters, usage, position)
                return position, block
            block_of_row[i] = block
        elif what == OP_FREE and block_of_row[i] >= 0:
            request_free(policy, arrays, block_of_row[i], False)
        elif what == OP_FREE_LATER and block_of_row[i] >= 0:
            request_free(policy, arrays, block_of_row[i], True)
            sync_of_row[i] = counters[at.C_N_SYNCS]
        elif what == OP_COMPLETE and block_of_row[i] >= 0:
            # A wait for all streams in between has completed the free already.
            if sync_of_row[i] == counters[at.C_N_SYNCS]:
                complete_free(policy, arrays, block_of_row[i])
        elif what == OP_EMPTY_CACHE:
            release(policy, arrays)
        write_usage(counters, usage, position)
        position += 1
    return position, FINISHED
