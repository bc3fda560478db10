"""One moment's address space: blocks that tile their segments, and what of it could go back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from memscope.errors import InvariantError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState, releasable_bytes, tile_segments
from memscope.trace.schema import BlockState
from memscope.trace.tables import Int64Array
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder


def final_state(recorder: NaiveRecorder) -> AllocatorState:
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    return lifetimes.state_at(lifetimes.last_event)


def column(*values: int) -> Int64Array:
    return np.array(values, np.int64)


def test_gaps_between_blocks_become_free_blocks() -> None:
    recorder = NaiveRecorder()
    first = recorder.malloc(5 * MiB)
    segments = final_state(recorder).segments
    assert first is not None
    start = column(first + MiB, first + 3 * MiB, first + 400 * MiB)
    size = column(MiB, MiB, MiB)
    state = np.full(3, BlockState.ACTIVE_ALLOCATED, np.int8)
    blocks, ids, unplaced = tile_segments(segments, start, size, size, state, np.full(3, -1, np.int32), column(7, 8, 9))
    assert (blocks.address - first).tolist() == [0, MiB, 2 * MiB, 3 * MiB, 4 * MiB]
    assert blocks.size_bytes.tolist() == [MiB, MiB, MiB, MiB, 16 * MiB]
    assert ids.tolist() == [-1, 7, -1, 8, -1]
    assert unplaced == MiB


def test_bytes_are_those_of_the_blocks_by_state() -> None:
    recorder = NaiveRecorder()
    pending = recorder.malloc(5 * MiB)
    recorder.malloc(3 * MiB)
    recorder.naive.free(pending, waits=True)
    state = final_state(recorder)
    assert (state.reserved_bytes, state.active_bytes, state.allocated_bytes) == (20 * MiB, 8 * MiB, 3 * MiB)


def test_blocks_that_leave_a_gap_are_refused() -> None:
    recorder = NaiveRecorder()
    recorder.malloc(5 * MiB)
    state = final_state(recorder)
    state.check()
    wrong = dataclasses.replace(state.blocks, size_bytes=state.blocks.size_bytes - 512)
    with pytest.raises(InvariantError, match="leave a gap"):
        dataclasses.replace(state, blocks=wrong).check()


def test_whole_segments_and_whole_handles_of_the_default_pool_could_go_back() -> None:
    recorder = NaiveRecorder()
    recorder.naive.free(recorder.malloc(30 * MiB))
    recorder.naive.free(recorder.malloc(24 * MiB, pool=1))
    recorder.malloc(5 * MiB, stream=5)
    state = final_state(recorder)
    assert int(releasable_bytes(state).sum()) == 30 * MiB
    recorder = NaiveRecorder("expandable_segments:True", expandable=True)
    freed = recorder.malloc(70 * MiB)
    recorder.malloc(5 * MiB)
    recorder.naive.free(freed)
    # Of 70 free MiB in handles of 20 three lie wholly inside.
    assert int(releasable_bytes(final_state(recorder)).sum()) == 60 * MiB
