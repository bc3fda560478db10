"""Small traces by hand for the tests of notes."""

from __future__ import annotations

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.trace.trace import Trace

A, B, C = 4096, 8192, 12288


def trace_of(*events: tuple[str, int]) -> Trace:
    """A trace of (alloc, free, segment) at addresses."""
    builder = TraceBuilder()
    for what, address in events:
        if what == "alloc":
            builder.add_event(Action.ALLOC, address=address, size_bytes=512)
        elif what == "segment":
            builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=2 << 20)
        else:
            builder.add_event(Action.FREE_REQUESTED, address=address, size_bytes=512)
            builder.add_event(Action.FREE_COMPLETED, address=address, size_bytes=512)
    return builder.build(TraceMetadata(source="cuda"))
