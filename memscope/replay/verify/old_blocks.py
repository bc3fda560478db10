"""Blocks from before the recording whose size is known only from below: decisions tell how far they reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import is_expandable_block
from memscope._kernels.caching_rules import MIN_BLOCK_BYTES, SMALL_BYTES, round_size
from memscope._kernels.free_sets import insert, remove
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

if TYPE_CHECKING:
    from memscope.replay.verify.pinned import PinnedReplay

SLACK = "ends of blocks that predate the recording (what was too little to split off is not recorded)"


def widen_old_block(replay: PinnedReplay, free_block: int, rounded: int) -> bool:
    """Let the block before a free one reach into it, so far that a request no longer fits; whether that is possible.

    A large block keeps up to 1 MiB more than its request. Of one that predates the recording, and whose neighbour was
    free before the first event, only the request is known; that the recording passed over the free block tells more.
    """
    arrays = replay.arrays
    blocks = arrays.blocks
    before = int(blocks[free_block, at.B_PREV])
    if before == at.NONE or is_expandable_block(arrays, before) or not _has_open_end(replay, before):
        return False
    slack = int(blocks[free_block, at.B_SIZE]) - rounded + MIN_BLOCK_BYTES
    least = int(round_size(blocks[before, at.B_REQUESTED], arrays.config[at.CFG_DIVISIONS :]))
    if blocks[before, at.B_SIZE] + slack - least > SMALL_BYTES or blocks[free_block, at.B_SIZE] - slack <= SMALL_BYTES:
        return False
    lane = int(blocks[free_block, at.B_LANE])
    remove(arrays, lane, at.L_FREE_ROOT, free_block)
    blocks[free_block, at.B_ADDRESS] += slack
    blocks[free_block, at.B_SIZE] -= slack
    insert(arrays, lane, at.L_FREE_ROOT, free_block)
    blocks[before, at.B_SIZE] += slack
    at.grow_counter(arrays.counters, at.C_ACTIVE, at.C_PEAK_ACTIVE, slack)
    if blocks[before, at.B_STATE] == at.ALLOCATED:
        at.grow_counter(arrays.counters, at.C_ALLOCATED, at.C_PEAK_ALLOCATED, slack)
    replay.inferred[SLACK] += 1
    return True


def old_blocks_may_hold(replay: PinnedReplay, n_bytes: int) -> bool:
    """Whether the blocks in use whose size is a lower bound may be larger by that much together."""
    rows = _open_rows(replay)
    blocks = replay.arrays.blocks
    held = replay.block_of_row[rows]
    in_use = np.isin(blocks[held, at.B_STATE], (at.ALLOCATED, at.PENDING)) & (blocks[held, at.B_IS_OLD] == 1)
    freed = replay.recording.lifetimes.allocations.free_event[rows]
    in_use &= (freed == NONE_ID) | (freed >= replay.recording.first_event + replay.position)
    is_possible = 0 < n_bytes <= SMALL_BYTES * int(np.count_nonzero(in_use))
    replay.inferred[SLACK] += is_possible
    return is_possible


def _open_rows(replay: PinnedReplay) -> Int64Array:
    table = replay.recording.lifetimes.allocations
    is_open = (table.alloc_event == NONE_ID) & ~table.is_exact & (replay.block_of_row >= 0)
    return np.flatnonzero(is_open)


def _has_open_end(replay: PinnedReplay, block: int) -> bool:
    """Whether a block in use predates the recording and its size is a lower bound."""
    in_use = replay.arrays.blocks[block, at.B_STATE] in (at.ALLOCATED, at.PENDING)
    is_old = replay.arrays.blocks[block, at.B_IS_OLD] == 1
    return bool(in_use and is_old and np.any(replay.block_of_row[_open_rows(replay)] == block))
