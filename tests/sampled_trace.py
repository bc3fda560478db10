"""A small trace with samples of the device's own count."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from memscope.attribution.driver_usage import CUDA_CONTEXT
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.trace.tables import SampleTable
from memscope.trace.trace import Trace
from tests.training_trace import training_trace

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


def counted_training_trace(*, with_process: bool = True, gap_ms: int = 4, **options: Any) -> Trace:
    """A small training run, its device sampled every few ms from 20 ms before the first event to 12 ms after the last.

    The process holds 40 MiB beyond PyTorch, 30 MiB of it its CUDA context; others hold 60 MiB, and from the middle of
    the run 90 MiB; 8 MiB are used by nobody.
    """
    trace = training_trace(4, 6, total_bytes=300 * MiB, **options)
    times = trace.time_ns
    start, end = int(times[0]) - 20 * MS, int(times[-1]) + 12 * MS
    at = np.arange(start, end, gap_ms * MS, dtype=np.int64)
    event = np.searchsorted(times, at, side="right").astype(np.int64)
    reserved = DeviceLifetimes(trace, 0).usage.reserved_bytes
    assert reserved is not None
    process = reserved[event] + 40 * MiB
    others = np.where(event < trace.n_events // 2, 60 * MiB, 90 * MiB)
    not_measured = np.full(len(at), -1, np.int64)
    samples = SampleTable.from_columns(
        {
            "event": event,
            "time_ns": at,
            "device": np.zeros(len(at), np.int16),
            "device_free_bytes": not_measured,
            "device_used_bytes": process + others + 8 * MiB,
            "process_used_bytes": process if with_process else not_measured,
            "others_used_bytes": others if with_process else not_measured,
        }
    )
    parts = {"device_parts": {"0": [[CUDA_CONTEXT, start, 30 * MiB]]}}
    metadata = dataclasses.replace(trace.metadata, source="cuda", extra=parts)
    return dataclasses.replace(trace, samples=samples, metadata=metadata)
