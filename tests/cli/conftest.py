"""Traces that the tests of several verbs ask about."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.replay.caching.allocator import CachingAllocator
from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import BlockState, TieRule
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout


def simulated_trace() -> Trace:
    """A small recording that the simulator itself made, sizes and order fixed."""
    allocator = CachingAllocator(tie_rule=TieRule.SEGMENT_AGE)
    live = []
    for i in range(60):
        live.append(allocator.malloc((i * 7919 % 30 + 1) * 100_000))
        if i % 3 == 2:
            allocator.free(live.pop(i % len(live)))
    builder = TraceBuilder()
    for event in allocator.drain_events():
        builder.add_event(event.action, address=event.address, size_bytes=event.size_bytes, stream=event.stream)
    state = allocator.state()
    for i in range(len(state.segments)):
        segment = builder.add_segment(
            address=int(state.segments.address[i]),
            size_bytes=int(state.segments.size_bytes[i]),
            is_large=bool(state.segments.is_large[i]),
        )
        for b in (j for j in range(len(state.blocks)) if state.blocks.segment_id[j] == i):
            builder.add_block(
                segment,
                address=int(state.blocks.address[b]),
                size_bytes=int(state.blocks.size_bytes[b]),
                requested_bytes=int(state.blocks.requested_bytes[b]),
                state=BlockState(state.blocks.state[b]),
            )
    return builder.build(
        TraceMetadata(source="synthetic", alloc_conf="", tie_rule=TieRule.SEGMENT_AGE, has_pool_ids=True)
    )


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    """A recording with segments, pins and several streams, of no allocator's making."""
    return write_container(random_layout(7, 80).trace(), tmp_path / "run.memscope")


@pytest.fixture
def simulated_file(tmp_path: Path) -> Path:
    """A recording that a replay follows exactly."""
    return write_container(simulated_trace(), tmp_path / "run.memscope")
