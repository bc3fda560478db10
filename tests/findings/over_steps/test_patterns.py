"""Allocations of one size and place, counted step by step."""

from __future__ import annotations

import numpy as np

from memscope.analysis import Analysis
from memscope.findings.over_steps.patterns import find_patterns
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind

MiB = 1 << 20


def test_a_pattern_is_what_one_place_makes_of_one_size_and_lives_on_in_later_steps() -> None:
    builder = TraceBuilder()
    address = 1 << 40
    builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=100 * MiB)
    for step in range(4):
        builder.add_event(Action.ALLOC, address=address + 4 * step * MiB, size_bytes=4 * MiB)
        for action in (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED):
            builder.add_event(action, address=address + 80 * MiB, size_bytes=9 * MiB)
        builder.add_mark(MarkKind.STEP, str(step))
    device = Analysis(builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False))).device()
    assert device.steps is not None
    patterns = find_patterns(device, device.steps)
    kept = patterns.of_row[np.flatnonzero(device.allocations.requested_bytes == 4 * MiB)]
    assert len(set(kept.tolist())) == 1
    live = patterns.live_rows(int(kept[0]), device, int(device.steps.end[-1]) - 1)
    assert device.allocations.requested_bytes[live].tolist() == [4 * MiB] * 4
