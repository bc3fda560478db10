"""The state that all decisions share: what is asked, what is free, and what is not known of it."""

import dataclasses

import pytest

from memscope.replay.verify._pinned import follow
from memscope.replay.verify.divergence import DivergedError
from memscope.trace.schema import Action, TieRule
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.verify.exactness import state_before


def followed(recorder):
    state = state_before(recorder.trace())
    assert follow(state) is None
    return state


def test_request_is_rounded_but_for_one_that_failed():
    recorder = NaiveRecorder(total=40 * MiB)
    recorder.malloc(1000)
    assert recorder.malloc(50 * MiB + 100) is None
    state = state_before(recorder.trace())
    positions = [i for i, action in enumerate(state.recording.action) if action in (Action.ALLOC, Action.OOM)]
    assert [state.request_at(position).rounded_bytes for position in positions] == [1024, 50 * MiB + 512]
    assert [state.request_at(position).pool & 1 for position in positions] == [0, 1]
    state.recording.pair[positions[0]] = -1
    with pytest.raises(DivergedError, match="pool of the request is not known"):
        state.request_at(positions[0])


def test_free_blocks_are_in_order_of_size_and_only_some_are_whole_segments():
    recorder = NaiveRecorder()
    whole, part = recorder.malloc(30 * MiB), recorder.malloc(4 * MiB)
    recorder.malloc(5 * MiB)
    recorder.naive.free(whole)
    recorder.naive.free(part)
    state = followed(recorder)
    request, allocator = state.request_at(1), state.allocator
    assert [block.size_bytes for block in allocator.free_blocks(request.pool)] == [4 * MiB, 11 * MiB, 30 * MiB]
    assert [block.size_bytes for block in allocator.unsplit_blocks(request.pool)] == [30 * MiB]
    assert [block.size_bytes for block in state.fitting_blocks(request)] == [30 * MiB]
    larger = dataclasses.replace(request, rounded_bytes=4 * MiB + 512)
    assert [block.size_bytes for block in state.fitting_blocks(larger)] == [11 * MiB, 30 * MiB]
    assert state.holds_any(allocator.free_block_at(part), [part + 4 * MiB - 1])
    assert not state.holds_any(allocator.free_block_at(part), [part - 1, part + 4 * MiB])


@pytest.mark.parametrize("tie_rule", list(TieRule))
def test_ages_from_before_the_recording_are_open(tie_rule):
    recorder = NaiveRecorder(tie_rule=tie_rule)
    old = [recorder.malloc(30 * MiB) for _ in range(2)]
    recorder.start_recording()
    new = recorder.malloc(30 * MiB)
    for address in (*old, new):
        recorder.naive.free(address)
    state = followed(recorder)
    first, second, third = (state.allocator.free_block_at(address) for address in (*old, new))
    assert state.is_open_tie(first, second) == (tie_rule != TieRule.ADDRESS)
    assert not state.is_open_tie(first, third)


def test_room_to_grow_is_the_block_and_the_unmapped_range_behind_it():
    recorder = NaiveRecorder("expandable_segments:True", expandable=True)
    address = recorder.malloc(30 * MiB)
    recorder.naive.free(address)
    state = followed(recorder)
    block = state.allocator.free_block_at(address)
    assert block.size_bytes == 40 * MiB
    assert state.growth_room_bytes(block) == block.segment.size_bytes


def test_request_is_counted_once_however_often_it_is_tried():
    recorder = NaiveRecorder()
    recorder.malloc(30 * MiB)
    state = followed(recorder)
    pool, n_calls = state.request_at(1).pool, state.allocator.gc_calls
    state.count_call(pool)
    state.count_call(pool)
    assert state.allocator.gc_calls == n_calls + 1
    state.refuse(state.request_at(1))
    state.count_call(pool)
    assert state.allocator.gc_calls == n_calls + 2
    assert state.allocator.stats.n_ooms == 1
