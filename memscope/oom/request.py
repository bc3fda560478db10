"""The request that failed, and what the allocator could have had at that moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope._kernels.caching_rules import SMALL_BYTES, SMALL_SEGMENT_BYTES, segment_size
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import NONE_ID


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """One ``oom`` event in the allocator's own terms.

    Attributes
    ----------
    event
        Position of the ``oom`` event.
    rounded_bytes
        What the allocator looked for: PyTorch records the request rounded, not as it was asked.
    driver_bytes
        What it then asked of the driver: a segment, or whole handles of an expandable one.
    segment_bytes
        What a cap is checked against: a segment's bytes, with expandable segments too.
    stream_id, stream
        The stream that asked: dense id and raw handle.
    pool_id, pool
        The pool that it was for: dense id and pair, −1 and None where the release did not record it (before 2.12).
    is_large
        Whether it belongs to the large blocks (above 1 MiB).
    """

    event: int
    rounded_bytes: int
    driver_bytes: int
    segment_bytes: int
    stream_id: int
    stream: int
    pool_id: int
    pool: tuple[int, int] | None
    is_large: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """What PyTorch could have reserved at most when the request failed.

    Attributes
    ----------
    low_bytes, high_bytes
        The limit lies between them, both included; equal where it is known to the byte.
    device_free_bytes
        What the driver had left, None where that was not recorded.
    total_bytes
        The device's memory, None where that was not recorded.
    cap_bytes
        The cap of a memory fraction, None where there is none or it is not known in bytes.
    memory_fraction
        The fraction in force as recorded; 1.0 is none.
    refused_by_cap
        Whether the driver had room, so that only a cap can have refused; None where that cannot be told.
    is_cap_recorded
        Whether the fraction was recorded, rather than inferred from what the driver had left.
    """

    low_bytes: int
    high_bytes: int
    device_free_bytes: int | None
    total_bytes: int | None
    cap_bytes: int | None
    memory_fraction: float
    refused_by_cap: bool | None
    is_cap_recorded: bool


DRIVER_SLACK_BYTES = 32 << 20
"""The driver may refuse with this much left: its own tables, 2 MiB pages, memory that came back in between. A cap that
was not recorded is inferred only above it."""


def driver_bytes(rounded_bytes: int, config: CachingAllocatorConfig) -> int:
    """Bytes that a rounded request takes from the driver when no free block serves it."""
    if config.is_expandable:
        handle = handle_bytes(rounded_bytes > SMALL_BYTES, config)
        return -(-rounded_bytes // handle) * handle
    return int(segment_size(rounded_bytes, config.large_segment_bytes))


def handle_bytes(is_large: bool, config: CachingAllocatorConfig) -> int:
    """Unit in which memory can come and go: a handle of an expandable segment, or else 2 MiB of the driver."""
    return config.large_segment_bytes if is_large and config.is_expandable else SMALL_SEGMENT_BYTES


def failed_request(lifetimes: DeviceLifetimes, event: int, config: CachingAllocatorConfig) -> FailedRequest:
    """Read one ``oom`` event."""
    trace = lifetimes.trace
    rounded = int(trace.size_bytes[event])
    pool_id, stream_id = int(trace.pool_id[event]), int(trace.stream_id[event])
    return FailedRequest(
        event=event,
        rounded_bytes=rounded,
        driver_bytes=driver_bytes(rounded, config),
        segment_bytes=int(segment_size(rounded, config.large_segment_bytes)),
        stream_id=stream_id,
        stream=0 if stream_id == NONE_ID else int(trace.stream_handles[stream_id]),
        pool_id=pool_id,
        pool=None if pool_id == NONE_ID else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1])),
        is_large=rounded > SMALL_BYTES,
    )


def device_free_at(lifetimes: DeviceLifetimes, event: int) -> int | None:
    """What the driver had left at an ``oom`` event, None where that was not recorded."""
    samples = lifetimes.trace.samples
    here = (samples.event == event) & (samples.device == lifetimes.device) & (samples.device_free_bytes >= 0)
    rows = np.flatnonzero(here)
    # The event's own sample stands nearest to it: others before the same event were taken earlier.
    return int(samples.device_free_bytes[rows[-1]]) if len(rows) else None


def limit_at(lifetimes: DeviceLifetimes, request: FailedRequest, config: CachingAllocatorConfig) -> Limit:
    """What PyTorch could have reserved at most when a request failed.

    With what the driver had left it is known to the byte. Without it, or under a cap whose bytes are not known, it lies
    between the most that was ever reserved and the least that was refused.

    Raises
    ------
    ValueError
        If the device's reserved bytes are not known.
    """
    usage = lifetimes.usage
    if usage.reserved_bytes is None:
        raise ValueError("reserved bytes are not known")
    reserved = int(usage.reserved_bytes[usage.index_of(request.event)])
    free = device_free_at(lifetimes, request.event)
    total = lifetimes.trace.metadata.device_total_bytes.get(lifetimes.device)
    fraction = config.memory_fraction
    cap = int(fraction * total) if fraction < 1 and total is not None else None
    by_cap = _refused_by_cap(request, reserved, free, cap, fraction)
    if by_cap and cap is not None:
        low = high = cap
    elif by_cap or free is None:
        low, high = _bounds(lifetimes, request, reserved, bool(by_cap), total)
    else:
        low = high = reserved + free if cap is None else min(reserved + free, max(cap, reserved))
    return Limit(low, high, free, total, cap, fraction, by_cap, fraction < 1)


def _refused_by_cap(
    request: FailedRequest, reserved: int, free: int | None, cap: int | None, fraction: float
) -> bool | None:
    if cap is not None and reserved + request.segment_bytes <= cap:
        return False
    if free is None:
        return None if cap is None else True
    if fraction < 1:
        return free >= request.driver_bytes
    return free >= request.driver_bytes + DRIVER_SLACK_BYTES


def _bounds(
    lifetimes: DeviceLifetimes, request: FailedRequest, reserved: int, by_cap: bool, total: int | None
) -> tuple[int, int]:
    """The most ever reserved, and one byte less than what was refused.

    A cap holds for the whole run, the driver's limit only until now.
    """
    series = lifetimes.usage.reserved_bytes
    assert series is not None
    high = reserved + (request.segment_bytes if by_cap else request.driver_bytes) - 1
    if total is not None:
        high = min(high, total)
    until = len(series) if by_cap else lifetimes.usage.index_of(request.event) + 1
    return max(min(int(series[:until].max()), high), min(reserved, high)), high
