"""Allocs paired with their frees, and with the final blocks."""

from __future__ import annotations

from memscope.lifetimes._pairing import pair_rows
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, BlockState
from tests.naive_layout import NaiveLayout

MiB = 1 << 20


def test_address_that_is_used_twice_is_two_rows() -> None:
    layout = NaiveLayout()
    for _ in range(2):
        block = layout.malloc(3 * MiB)
        layout.free_request(block)
        layout.free_complete(block)
    rows = pair_rows(layout.trace(), 0)
    # A segment, then alloc, request and completion of each.
    assert rows.pairs.alloc_event.tolist() == [1, 4]
    assert rows.pairs.free_requested_event.tolist() == [2, 5]
    assert rows.pairs.free_event.tolist() == [3, 6]
    assert rows.final_block.tolist() == [NONE_ID, NONE_ID]
    assert rows.problems == ()


def test_final_block_that_no_event_mentions_is_a_row() -> None:
    layout = NaiveLayout()
    layout.malloc(3 * MiB)
    n_before = len(layout.events)
    layout.malloc(4 * MiB)
    trace = layout.trace(n_before)
    rows = pair_rows(trace, 0)
    assert rows.pairs.alloc_event.tolist() == [0, NONE_ID]
    assert rows.pairs.requested_bytes.tolist() == [4 * MiB, 3 * MiB]
    assert trace.blocks.requested_bytes[rows.final_block].tolist() == [4 * MiB, 3 * MiB]


def test_free_request_is_the_whole_free_where_completions_were_not_recorded() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=4 * MiB, size_bytes=512)
    builder.add_event(Action.FREE_REQUESTED, address=4 * MiB, size_bytes=512)
    segment = builder.add_segment(address=4 * MiB, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=4 * MiB, size_bytes=2 * MiB, requested_bytes=0, state=BlockState.INACTIVE)
    rows = pair_rows(builder.build(TraceMetadata(source="synthetic")), 0)
    assert rows.pairs.free_event.tolist() == [1]
    assert rows.problems == ()


def test_alloc_at_an_address_in_use_ends_what_was_there_in_a_recording_without_frees() -> None:
    builder = TraceBuilder()
    for size_bytes in (512, 1024):
        builder.add_event(Action.ALLOC, address=4 * MiB, size_bytes=size_bytes)
    rows = pair_rows(builder.build(TraceMetadata(source="synthetic")), 0)
    assert rows.n_implied_frees + len(rows.problems) >= 1


def test_frees_at_one_address_without_any_alloc_recorded_are_said_and_never_overlap() -> None:
    builder = TraceBuilder()
    for _ in range(2):
        builder.add_event(Action.FREE_COMPLETED, address=4 * MiB, size_bytes=512)
    (problem,) = pair_rows(builder.build(TraceMetadata(source="synthetic")), 0).problems
    assert problem.event == 1
    assert "address 0x400000 is freed again, and no alloc was recorded" in problem.text
