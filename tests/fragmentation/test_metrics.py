"""Fragmentation metrics and pins, against sums worked by hand and over random states."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis
from memscope.fragmentation.metrics import measure_fragmentation
from memscope.fragmentation.pins import find_pins
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import releasable_bytes
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import BlockState
from tests.naive_layout import NaiveLayout, random_layout
from tests.properties import examples

MiB = 1 << 20


@examples(20)
@given(seed=st.integers(0, 2**32 - 1))
def test_groups_sum_to_the_whole(seed: int) -> None:
    layout = random_layout(seed, 50)
    trace = layout.trace()
    lifetimes = DeviceLifetimes(trace, 0)
    state = lifetimes.state_at(lifetimes.last_event)
    found = measure_fragmentation(trace, state)
    names = ("reserved_bytes", "active_bytes", "requested_bytes", "free_bytes", "releasable_bytes", "n_segments")
    for name in names:
        assert getattr(found.overall, name) == sum(getattr(group, name) for group in found.groups)
    whole_free = [s for s in layout.segments if len(s.blocks) == 1 and s.blocks[0].state == BlockState.INACTIVE]
    assert found.overall.releasable_bytes == sum(s.size for s in whole_free)
    free = [b.size for s in layout.segments for b in s.blocks if b.state == BlockState.INACTIVE]
    assert found.overall.largest_free_block_bytes == max(free, default=0)
    assert found.overall.rounding_bytes + found.overall.requested_bytes + found.overall.free_bytes == (
        found.overall.reserved_bytes
    )


@examples(20)
@given(seed=st.integers(0, 2**32 - 1))
def test_each_group_is_what_its_segments_alone_measure(seed: int) -> None:
    layout = random_layout(seed, 60)
    lifetimes = DeviceLifetimes(layout.trace(), 0)
    for group in measure_fragmentation(lifetimes.trace, lifetimes.state_at(lifetimes.last_event)).groups:
        segments = [s for s in layout.segments if s.is_large == (group.size_class == "large")]
        blocks = [block for segment in segments for block in segment.blocks]
        free = [block.size for block in blocks if block.state == BlockState.INACTIVE]
        active = [block for block in blocks if block.state != BlockState.INACTIVE]
        assert (group.n_segments, group.n_free_blocks, group.n_active_blocks) == (len(segments), len(free), len(active))
        assert group.reserved_bytes == sum(segment.size for segment in segments)
        assert group.active_bytes == sum(block.size for block in active)
        assert group.requested_bytes == sum(block.requested for block in active)
        assert group.largest_free_block_bytes == max(free, default=0)


def test_pins_name_the_block_that_holds_a_segment() -> None:
    layout = NaiveLayout()
    first = layout.malloc(8 * MiB)
    pinning = layout.malloc(2 * MiB)
    layout.free_request(first)
    layout.free_complete(first)
    lifetimes = DeviceLifetimes(layout.trace(), 0)
    (pin,) = find_pins(lifetimes.state_at(lifetimes.last_event))
    assert pin.held_bytes == 18 * MiB
    assert pin.pinning_bytes == 2 * MiB
    assert [int(lifetimes.allocations.address[row]) for row in pin.allocation_ids] == [pinning.address]


def test_scatter_is_zero_for_one_free_block_and_none_without_any() -> None:
    layout = NaiveLayout()
    layout.malloc(3 * MiB)
    trace = layout.trace()
    (group,) = measure_fragmentation(trace, DeviceLifetimes(trace, 0).state_at(1)).groups
    assert group.scatter_frac == 0.0
    assert group.utilisation_frac == pytest.approx(3 / 20)
    layout = NaiveLayout()
    layout.malloc(12 * MiB)
    trace = layout.trace()
    (group,) = measure_fragmentation(trace, DeviceLifetimes(trace, 0).state_at(1)).groups
    assert group.scatter_frac is None


def test_expandable_segments_release_whole_handles_only() -> None:
    builder = TraceBuilder()
    base = 1 << 40
    segment = builder.add_segment(address=base, size_bytes=80 * MiB, is_large=True, is_expandable=True)
    # Handles of 20 MiB. Free from 3 to 70: handles 1 and 2 lie inside (20 to 60). Free from 75 to 80: none.
    for start, end, state in ((0, 3, 0), (3, 70, 2), (70, 75, 0), (75, 80, 2)):
        builder.add_block(
            segment, address=base + start * MiB, size_bytes=(end - start) * MiB, requested_bytes=1, state=state
        )
    lifetimes = DeviceLifetimes(builder.build(TraceMetadata(source="synthetic")), 0)
    state = lifetimes.state_at(-1)
    assert releasable_bytes(state).tolist() == [0, 40 * MiB, 0, 0]
    # Handle 0 is kept by 3 MiB and handle 3 by 5 MiB: 17 and 15 MiB of them are free.
    assert [(pin.held_bytes, pin.pinning_bytes) for pin in find_pins(state)] == [
        (17 * MiB, 3 * MiB),
        (15 * MiB, 5 * MiB),
    ]


def test_private_pools_release_nothing() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 40, size_bytes=20 * MiB, is_large=True, pool=(0, 1))
    builder.add_block(segment, address=1 << 40, size_bytes=20 * MiB, requested_bytes=0, state=BlockState.INACTIVE)
    trace = builder.build(TraceMetadata(source="synthetic"))
    found = measure_fragmentation(trace, DeviceLifetimes(trace, 0).state_at(-1))
    assert found.overall.releasable_bytes == 0
    assert found.groups[0].pool == (0, 1)


def test_a_large_segment_size_sets_the_handle_in_metrics_and_ledger_alike() -> None:
    builder = TraceBuilder()
    base = 1 << 40
    segment = builder.add_segment(address=base, size_bytes=120 * MiB, is_large=True, is_expandable=True)
    # Handles of 40 MiB: free from 10 to 110, of which only the one from 40 to 80 is whole.
    for start, end, state in ((0, 10, 0), (10, 110, 2), (110, 120, 0)):
        builder.add_block(
            segment, address=base + start * MiB, size_bytes=(end - start) * MiB, requested_bytes=1, state=state
        )
    analysis = Analysis(builder.build(TraceMetadata(source="synthetic", alloc_conf="large_segment_size_mb:40")))
    moment = analysis.end(0)
    assert moment.fragmentation.overall.releasable_bytes == 40 * MiB
    assert moment.ledger["free_releasable"] == 40 * MiB
    assert moment.ledger["free_pinned"] == 60 * MiB
    assert [pin.held_bytes for pin in moment.pins()] == [30 * MiB, 30 * MiB]
