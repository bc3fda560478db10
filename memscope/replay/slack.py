"""The true ends of blocks from before a recording, where they can be told.

A large block is not split if what is left would be at most 1 MiB, so an allocation may own up to that much more than it
asked for. The recording shows how much only for blocks that are there at the end.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from memscope._kernels.caching_rules import SMALL_BYTES
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.tables import BlockTable, Int64Array


def settle_slack(lifetimes: DeviceLifetimes) -> AllocatorState:
    """The state before the first event, with slack given to the blocks that own it.

    In a ``cudaMalloc`` segment of the large pool every free block is larger than 1 MiB, so a smaller gap after a block
    is its slack. If a gap is larger, an allocation that begins inside its first MiB while the block lives tells where
    the slack ends.
    """
    state = lifetimes.state_at(NONE_ID)
    blocks, segments, table = state.blocks, state.segments, lifetimes.allocations
    if not len(blocks) or not np.any(segments.is_large & ~segments.is_expandable):
        return state
    address, size = blocks.address.copy(), blocks.size_bytes.copy()
    keep = np.ones(len(blocks), np.bool_)
    is_ordinary = (segments.is_large & ~segments.is_expandable)[blocks.segment_id]
    follows = np.zeros(len(blocks), np.bool_)
    follows[1:] = (blocks.segment_id[1:] == blocks.segment_id[:-1]) & (blocks.state[:-1] != BlockState.INACTIVE)
    starts, events = _allocs_by_address(lifetimes)
    for gap in np.flatnonzero(is_ordinary & follows & (blocks.state == BlockState.INACTIVE)).tolist():
        row = int(state.allocation_ids[gap - 1])
        if row < 0 or table.is_exact[row]:
            continue
        slack = int(size[gap]) if size[gap] <= SMALL_BYTES else 0
        if not slack:
            freed = int(table.free_event[row])
            first, last = np.searchsorted(starts, [address[gap] + 1, address[gap] + SMALL_BYTES + 1])
            inside = [i for i in range(int(first), int(last)) if freed < 0 or events[i] < freed]
            slack = int(starts[min(inside, key=lambda i: events[i])] - address[gap]) if inside else 0
        size[gap - 1] += slack
        size[gap] -= slack
        address[gap] += slack
        keep[gap] = size[gap] > 0
    columns = blocks.columns() | {"address": address, "size_bytes": size}
    return dataclasses.replace(
        state, blocks=BlockTable.from_columns(columns).take(keep), allocation_ids=state.allocation_ids[keep]
    )


def _allocs_by_address(lifetimes: DeviceLifetimes) -> tuple[Int64Array, Int64Array]:
    """Addresses of the alloc events, ascending, and their events."""
    trace = lifetimes.trace
    span = slice(lifetimes.first_event, lifetimes.end_event)
    events = np.flatnonzero(trace.action[span] == Action.ALLOC) + lifetimes.first_event
    events = events[np.argsort(trace.address[events], kind="stable")]
    return trace.address[events], events
