"""A small trace with samples of the device's own count."""

from __future__ import annotations

from typing import Any

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.trace.trace import Trace

MiB = 1 << 20
MS = 1_000_000
_BASE = 0x7F00_0000_0000

FULL = {
    "event": 2,
    "ms": 150,
    "device_used_bytes": 900 * MiB,
    "process_used_bytes": 500 * MiB,
    "others_used_bytes": 390 * MiB,
}
"""A sample with everything measured, between the two segments."""


def sampled_trace(*samples: dict[str, Any], **metadata: Any) -> Trace:
    """Events at 100, 101, 200, 201 and 300 ms: a segment of 2 MiB, one of 20 MiB, and an out-of-memory error."""
    builder = TraceBuilder()
    events = [
        (100, Action.SEGMENT_ALLOC, _BASE, 2 * MiB),
        (101, Action.ALLOC, _BASE, 512),
        (200, Action.SEGMENT_ALLOC, _BASE + 32 * MiB, 20 * MiB),
        (201, Action.ALLOC, _BASE + 32 * MiB, 2 * MiB),
        (300, Action.OOM, -1, 512 * MiB),
    ]
    for ms, action, address, size in events:
        for sample in samples:
            if sample["event"] == builder.n_events:
                _add(builder, sample)
        builder.add_event(action, address=address, size_bytes=size, time_ns=ms * MS)
    for sample in samples:
        if sample["event"] == builder.n_events:
            _add(builder, sample)
    for address, size, used in ((_BASE, 2 * MiB, 512), (_BASE + 32 * MiB, 20 * MiB, 2 * MiB)):
        segment = builder.add_segment(address=address, size_bytes=size, is_large=size > 2 * MiB)
        builder.add_block(
            segment, address=address, size_bytes=used, requested_bytes=used, state=BlockState.ACTIVE_ALLOCATED
        )
        builder.add_block(
            segment, address=address + used, size_bytes=size - used, requested_bytes=0, state=BlockState.INACTIVE
        )
    return builder.build(TraceMetadata(**{"source": "cuda", **metadata}))


def _add(builder: TraceBuilder, sample: dict[str, Any]) -> None:
    values = {name: value for name, value in sample.items() if name not in ("event", "ms")}
    builder.add_sample(time_ns=sample["ms"] * MS, **values)
