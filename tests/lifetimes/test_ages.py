"""Which allocations last, in what order old ones were made, and what replaces which."""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.ages import by_age, follow_replacements, lasting_rows
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState

MIB = 1 << 20
LOW, HIGH = 0x7F00_0000_0000, 0x7F10_0000_0000


def built(builder: TraceBuilder) -> DeviceLifetimes:
    return DeviceLifetimes(builder.build(TraceMetadata(source="synthetic", has_segment_events=True)), 0)


def alloc(builder: TraceBuilder, address: int, size_bytes: int = 512) -> None:
    builder.add_event(Action.ALLOC, address=address, size_bytes=size_bytes)


def free(builder: TraceBuilder, address: int, size_bytes: int = 512) -> None:
    for action in (Action.FREE_REQUESTED, Action.FREE_COMPLETED):
        builder.add_event(action, address=address, size_bytes=size_bytes)


def holding(builder: TraceBuilder, address: int, n_blocks: int) -> None:
    """A final segment with live blocks of 1 MiB + 512 from before the events."""
    segment = builder.add_segment(address=address, size_bytes=n_blocks * 2 * MIB, is_large=True)
    for i in range(n_blocks):
        builder.add_block(
            segment,
            address=address + 2 * MIB * i,
            size_bytes=2 * MIB,
            requested_bytes=2 * MIB,
            state=BlockState.ACTIVE_ALLOCATED,
        )


def test_what_is_freed_after_the_last_allocation_lasts() -> None:
    builder = TraceBuilder()
    alloc(builder, 1 << 30)
    alloc(builder, 2 << 30)
    free(builder, 1 << 30)
    alloc(builder, 3 << 30)
    free(builder, 2 << 30)
    lifetimes = DeviceLifetimes(
        builder.build(TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False)), 0
    )
    assert lasting_rows(lifetimes).tolist() == [False, True, True]


def test_old_blocks_of_one_region_are_older_where_they_lie_lower() -> None:
    builder = TraceBuilder()
    holding(builder, LOW, 2)
    holding(builder, LOW + 8 * MIB, 1)
    (order,) = by_age(built(builder))
    assert len(order) == 3
    assert order.tolist() == np.argsort(built(builder).allocations.address).tolist()


def test_regions_far_apart_are_given_in_both_orders_the_downward_one_first() -> None:
    builder = TraceBuilder()
    holding(builder, LOW, 1)
    holding(builder, HIGH, 2)
    lifetimes = built(builder)
    downwards, upwards = (lifetimes.allocations.address[order].tolist() for order in by_age(lifetimes))
    assert downwards == [HIGH, HIGH + 2 * MIB, LOW]
    assert upwards == [LOW, HIGH, HIGH + 2 * MIB]


def test_new_regions_above_the_others_say_that_later_ones_lie_higher() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=HIGH + (1 << 34), size_bytes=2 * MIB)
    holding(builder, LOW, 1)
    holding(builder, HIGH, 1)
    builder.add_segment(address=HIGH + (1 << 34), size_bytes=2 * MIB, is_large=True)
    lifetimes = built(builder)
    assert lifetimes.allocations.address[by_age(lifetimes)[0]].tolist() == [LOW, HIGH]


def test_low_addresses_have_one_order() -> None:
    builder = TraceBuilder()
    holding(builder, 0xB_0000_0000, 1)
    holding(builder, 0xC_0000_0000, 1)
    assert len(by_age(built(builder))) == 1


def test_the_newest_of_the_same_size_replaces_what_is_dropped() -> None:
    builder = TraceBuilder()
    a, b, c, other, d = (i << 30 for i in range(1, 6))
    alloc(builder, a)
    alloc(builder, other, 1024)
    alloc(builder, b)
    free(builder, a)
    alloc(builder, c)
    alloc(builder, d)
    free(builder, d)
    free(builder, b)
    lifetimes = DeviceLifetimes(
        builder.build(TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False)), 0
    )
    rows = {int(address): row for row, address in enumerate(lifetimes.allocations.address)}
    among = np.arange(len(lifetimes.allocations))
    assert follow_replacements(lifetimes, np.array([rows[a]]), among[1:]) == {rows[a]: rows[b], rows[b]: rows[c]}
