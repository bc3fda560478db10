"""The address space of a simulated allocator as tables."""

from __future__ import annotations

import numpy as np

from memscope.replay.caching.settings import add_pairs, new_allocator
from memscope.replay.caching.state import state_of
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import BlockState
from memscope.units import MiB


def state_after(sizes, *, freed=(), waiting=(), is_expandable=False):
    """Requests of one stream, of which some are freed."""
    allocator = new_allocator(CachingAllocatorConfig(is_expandable=is_expandable))
    add_pairs(allocator, [(0, 7)])
    blocks = [allocator.malloc(0, size) for size in sizes]
    for i in freed:
        allocator.free(blocks[i])
    for i in waiting:
        allocator.free(blocks[i], waits=True)
    return state_of(allocator, np.array([3], np.int32), np.array([5], np.int32), device=2, event=9)


def test_segments_and_blocks_are_in_order_of_address():
    state = state_after([3 * MiB, 1000, 2000], freed=[1], waiting=[2])
    assert (state.event, state.device) == (9, 2)
    segments, blocks = state.segments, state.blocks
    assert segments.size_bytes.tolist() == [20 * MiB, 2 * MiB]
    assert segments.is_large.tolist() == [True, False]
    assert (segments.stream_id.tolist(), segments.pool_id.tolist()) == ([3, 3], [5, 5])
    assert blocks.segment_id.tolist() == [0, 0, 1, 1, 1]
    assert blocks.size_bytes.tolist() == [3 * MiB, 17 * MiB, 1024, 2048, 2 * MiB - 3072]
    assert blocks.requested_bytes.tolist() == [3 * MiB, 0, 0, 2000, 0]
    assert [BlockState(state).name for state in blocks.state] == [
        "ACTIVE_ALLOCATED",
        "INACTIVE",
        "INACTIVE",
        "ACTIVE_PENDING_FREE",
        "INACTIVE",
    ]


def test_reservation_shows_only_what_is_mapped():
    state = state_after([30 * MiB], is_expandable=True)
    assert state.segments.size_bytes.tolist() == [40 * MiB]
    assert state.segments.is_expandable.tolist() == [True]
    assert state.blocks.size_bytes.tolist() == [30 * MiB, 10 * MiB]


def test_state_of_nothing_is_empty():
    state = state_after([])
    assert (len(state.segments), len(state.blocks)) == (0, 0)
