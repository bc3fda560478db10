"""A trace of many lines of code that each hold little beside one that holds much."""

from __future__ import annotations

from memscope.analysis import Analysis
from memscope.device.device import Moment
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action


def wide(n: int, stacks: bool = True) -> Moment:
    """One large allocation and n small ones from lines of their own."""
    builder = TraceBuilder()
    main = builder.stacks.frame("main", "/home/me/run.py", 3)
    address = 1 << 40
    for i in range(n + 1):
        frame = builder.stacks.frame("fill", "/home/me/run.py", 10 + i)
        stack_id = builder.stacks.stack([frame, main]) if stacks else NONE_ID
        size = 512 if i else 1 << 20
        builder.add_event(Action.ALLOC, address=address, size_bytes=size, stack_id=stack_id)
        address += 2 << 20
    metadata = TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False)
    return Analysis(builder.build(metadata)).end(0)
