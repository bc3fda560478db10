"""Lifetimes of one device: against a slow twin, on hand-sized cases, and on what real PyTorch recorded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, BlockState
from tests.naive_layout import NaiveLayout, Snapshot, random_layout
from tests.properties import examples

MiB = 1 << 20
seeds = st.integers(0, 2**32 - 1)


def as_snapshot(state: AllocatorState) -> Snapshot:
    blocks, segments = state.blocks, state.segments
    rows = zip(blocks.address, blocks.size_bytes, blocks.state, blocks.requested_bytes, strict=True)
    return Snapshot(
        tuple((int(a), int(s)) for a, s in zip(segments.address, segments.size_bytes, strict=True)),
        tuple(tuple(int(value) for value in row) for row in rows),
    )


@examples(25)
@given(seed=seeds)
def test_state_at_every_event_equals_the_slow_twin(seed: int) -> None:
    layout = random_layout(seed, 60)
    lifetimes = DeviceLifetimes(layout.trace(), 0)
    for event in range(-1, lifetimes.n_events):
        state = lifetimes.state_at(event)
        state.check()
        assert as_snapshot(state) == layout.states[event + 1]
    assert lifetimes.final_difference() is None
    assert lifetimes.n_misplaced == 0
    assert lifetimes.allocations.is_exact.all()


@examples(25)
@given(seed=seeds, cut=st.floats(0.05, 0.95))
def test_a_recording_that_starts_mid_life_is_undone_to_its_start(seed: int, cut: float) -> None:
    layout = random_layout(seed, 60)
    first = int(cut * len(layout.events))
    lifetimes = DeviceLifetimes(layout.trace(first), 0)
    assert lifetimes.final_difference() is None
    for event in range(-1, lifetimes.n_events):
        state, truth = lifetimes.state_at(event), layout.states[first + event + 1]
        state.check()
        found = as_snapshot(state)
        assert found.segments == truth.segments
        assert {b[0]: b[2:] for b in found.blocks if b[2] != BlockState.INACTIVE} == {
            b[0]: b[2:] for b in truth.blocks if b[2] != BlockState.INACTIVE
        }
        sizes = {b[0]: b[1] for b in truth.blocks}
        for block, row in zip(found.blocks, state.allocation_ids, strict=True):
            if row >= 0 and lifetimes.allocations.is_exact[row]:
                assert block[1] == sizes[block[0]]
            elif row >= 0:
                assert block[1] <= sizes[block[0]]


@examples(25)
@given(seed=seeds)
def test_usage_series_equal_sums_over_the_states(seed: int) -> None:
    layout = random_layout(seed, 40)
    usage = DeviceLifetimes(layout.trace(), 0).usage
    assert usage.reserved_bytes is not None
    for index, state in enumerate(layout.states):
        by_state = {s: sum(b[1] for b in state.blocks if b[2] == s) for s in BlockState}
        assert usage.reserved_bytes[index] == sum(size for _, size in state.segments)
        assert usage.allocated_bytes[index] == by_state[BlockState.ACTIVE_ALLOCATED]
        assert usage.active_bytes[index] == (
            by_state[BlockState.ACTIVE_ALLOCATED] + by_state[BlockState.ACTIVE_PENDING_FREE]
        )
        assert usage.requested_bytes[index] == sum(b[3] for b in state.blocks)


def test_an_unsplit_rest_belongs_to_the_block() -> None:
    layout = NaiveLayout()
    block = layout.malloc(19 * MiB)
    layout.free_request(block)
    layout.free_complete(block)
    # The 20 MiB segment is free in one piece; 19.5 MiB leave 0.5 MiB, too little to split off in the large pool.
    layout.malloc(19 * MiB + MiB // 2)
    table = DeviceLifetimes(layout.trace(), 0).allocations
    assert table.block_bytes.tolist() == [20 * MiB, 20 * MiB]
    assert table.requested_bytes.tolist() == [19 * MiB, 19 * MiB + MiB // 2]


def test_pending_frees_stay_active_and_leave_allocated() -> None:
    layout = NaiveLayout()
    block = layout.malloc(3 * MiB)
    layout.free_request(block)
    lifetimes = DeviceLifetimes(layout.trace(), 0)
    assert lifetimes.usage.allocated_bytes.tolist() == [0, 0, 3 * MiB, 0]
    assert lifetimes.usage.active_bytes.tolist() == [0, 0, 3 * MiB, 3 * MiB]
    assert lifetimes.state_at(2).blocks.state.tolist() == [BlockState.ACTIVE_PENDING_FREE, BlockState.INACTIVE]


def test_a_free_seen_only_completing_was_pending_at_the_start() -> None:
    layout = NaiveLayout()
    block = layout.malloc(3 * MiB)
    other = layout.malloc(4 * MiB)
    layout.free_request(block)
    n_before = len(layout.events)
    layout.free_request(other)
    layout.free_complete(block)
    lifetimes = DeviceLifetimes(layout.trace(n_before), 0)
    pending = lifetimes.allocations.pending_at(-1)
    assert lifetimes.allocations.address[pending].tolist() == [1 << 40]
    assert lifetimes.n_unmatched_frees == 2


def test_peak_event_is_the_first_highest() -> None:
    layout = NaiveLayout()
    first = layout.malloc(MiB)
    layout.free_request(first)
    layout.free_complete(first)
    layout.malloc(MiB)
    usage = DeviceLifetimes(layout.trace(), 0).usage
    assert usage.peak_event == 1
    assert usage.peak_reserved_event == 0


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([(Action.ALLOC, 0, 512), (Action.ALLOC, 0, 512), (Action.FREE_COMPLETED, 0, 512)], "not freed"),
        (
            [(Action.ALLOC, 0, 512), (Action.FREE_COMPLETED, 0, 512), (Action.FREE_COMPLETED, 0, 512)],
            "nothing is allocated",
        ),
        ([(Action.ALLOC, 0, 512), (Action.FREE_COMPLETED, 0, 1024)], "another size"),
        ([(Action.ALLOC, 0, 512)], "no final block"),
    ],
)
def test_contradictions_name_the_event_and_the_address(events: list[tuple[Action, int, int]], text: str) -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=1 << 30, size_bytes=2 * MiB)
    for action, offset, size in events:
        builder.add_event(action, address=(1 << 30) + offset, size_bytes=size)
    segment = builder.add_segment(address=1 << 30, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=1 << 30, size_bytes=2 * MiB, requested_bytes=0, state=BlockState.INACTIVE)
    problems = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0).problems
    assert len(problems) == 1
    assert text in problems[0].text
    assert "0x40000000" in problems[0].text
    assert problems[0].event is not None


def test_expandable_runs_grow_merge_and_unmap() -> None:
    builder = TraceBuilder()
    base = 1 << 40
    settings_ = {"expandable_segments": True}
    # 20 MiB mapped, 3 MiB taken; 45 MiB need 40 MiB more and start in the first page; both freed; 40 MiB unmapped.
    builder.add_event(Action.SEGMENT_MAP, address=base, size_bytes=20 * MiB)
    builder.add_event(Action.ALLOC, address=base, size_bytes=3 * MiB)
    builder.add_event(Action.SEGMENT_MAP, address=base + 20 * MiB, size_bytes=40 * MiB)
    builder.add_event(Action.ALLOC, address=base + 3 * MiB, size_bytes=45 * MiB)
    builder.add_event(Action.ALLOC, address=base + 48 * MiB, size_bytes=2 * MiB)
    for address, size in ((base, 3 * MiB), (base + 3 * MiB, 45 * MiB)):
        builder.add_event(Action.FREE_REQUESTED, address=address, size_bytes=size)
        builder.add_event(Action.FREE_COMPLETED, address=address, size_bytes=size)
    builder.add_event(Action.SEGMENT_UNMAP, address=base, size_bytes=40 * MiB)
    segment = builder.add_segment(address=base + 40 * MiB, size_bytes=20 * MiB, is_large=True, is_expandable=True)
    for offset, size, state in ((40, 8, 2), (48, 2, 0), (50, 10, 2)):
        builder.add_block(
            segment, address=base + offset * MiB, size_bytes=size * MiB, requested_bytes=size * MiB, state=state
        )
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic", allocator_settings=settings_)), 0)
    assert lifetimes.final_difference() is None
    assert lifetimes.n_misplaced == 0
    whole = lifetimes.state_at(8)
    assert whole.segments.size_bytes.tolist() == [60 * MiB]
    assert whole.blocks.size_bytes.tolist() == [48 * MiB, 2 * MiB, 10 * MiB]
    assert lifetimes.usage.reserved_bytes is not None
    assert lifetimes.usage.reserved_bytes[-1] == 20 * MiB


def test_a_device_without_events_has_one_moment() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 30, size_bytes=2 * MiB, is_large=False)
    builder.add_block(
        segment, address=1 << 30, size_bytes=2 * MiB, requested_bytes=9, state=BlockState.ACTIVE_ALLOCATED
    )
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0)
    assert lifetimes.last_event == NONE_ID
    assert lifetimes.usage.allocated_bytes.tolist() == [2 * MiB]
    assert lifetimes.usage.peak_event == NONE_ID
    assert np.array_equal(lifetimes.state_at(NONE_ID).allocation_ids, [0])


def test_segments_freed_while_in_use_are_misplaced_events() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=1 << 30, size_bytes=2 * MiB)
    builder.add_event(Action.ALLOC, address=1 << 30, size_bytes=512)
    builder.add_event(Action.SEGMENT_FREE, address=1 << 30, size_bytes=2 * MiB)
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0)
    assert lifetimes.n_misplaced == 1
    assert lifetimes.first_misplaced == 2
