"""The request that failed, what the allocator could have had at that moment, and what was held outside PyTorch then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memscope._core import caching
from memscope.attribution.driver_usage import COLLECTIVES, CUDA_CONTEXT, driver_usage_samples
from memscope.device.limits import DRIVER_SLACK_BYTES, Refusals, device_free_at_failures, refused_with_room
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
        Whether a cap refused: one that was recorded, or one that several requests bear witness to; None where that
        cannot be told.
    is_cap_recorded
        Whether the fraction was recorded, rather than inferred.
    refused_with_room
        Whether the driver had clearly more left than was asked of it.
    n_refused_with_room
        How many requests of the recording were refused so, this one included.
    """

    low_bytes: int
    high_bytes: int
    device_free_bytes: int | None
    total_bytes: int | None
    cap_bytes: int | None
    memory_fraction: float
    refused_by_cap: bool | None
    is_cap_recorded: bool
    refused_with_room: bool
    n_refused_with_room: int


def driver_bytes(rounded_bytes: int, config: CachingAllocatorConfig) -> int:
    """Bytes that a rounded request takes from the driver when no free block serves it."""
    if config.is_expandable:
        handle = handle_bytes(rounded_bytes > caching.SMALL_BYTES, config)
        return -(-rounded_bytes // handle) * handle
    return caching.allocation_size(rounded_bytes, config.large_segment_bytes)


def handle_bytes(is_large: bool, config: CachingAllocatorConfig) -> int:
    """Unit in which memory can come and go: a handle of an expandable segment, or else 2 MiB of the driver."""
    return config.large_segment_bytes if is_large and config.is_expandable else caching.SMALL_SEGMENT_BYTES


def failed_request(lifetimes: DeviceLifetimes, event: int, config: CachingAllocatorConfig) -> FailedRequest:
    """Read one ``oom`` event."""
    trace = lifetimes.trace
    rounded = int(trace.size_bytes[event])
    pool_id, stream_id = int(trace.pool_id[event]), int(trace.stream_id[event])
    return FailedRequest(
        event=event,
        rounded_bytes=rounded,
        driver_bytes=driver_bytes(rounded, config),
        segment_bytes=caching.allocation_size(rounded, config.large_segment_bytes),
        stream_id=stream_id,
        stream=0 if stream_id == NONE_ID else int(trace.stream_handles[stream_id]),
        pool_id=pool_id,
        pool=None if pool_id == NONE_ID else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1])),
        is_large=rounded > caching.SMALL_BYTES,
    )


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
    free = device_free_at_failures(lifetimes).get(request.event)
    total = lifetimes.trace.metadata.device_total_bytes.get(lifetimes.device)
    fraction = config.memory_fraction
    cap = int(fraction * total) if fraction < 1 and total is not None else None
    with_room = free is not None and free >= request.driver_bytes + DRIVER_SLACK_BYTES
    refusals = refused_with_room(lifetimes) if with_room else Refusals(0)
    by_cap = _refused_by_cap(request, reserved, free, cap, fraction)
    if by_cap is None and with_room and refusals.bear_witness_to_a_cap:
        by_cap = True
    if by_cap and cap is not None:
        low = high = cap
    elif by_cap or with_room or free is None:
        low, high = _bounds(lifetimes, request, reserved, bool(by_cap), total)
    else:
        low = high = reserved + free if cap is None else min(reserved + free, max(cap, reserved))
    return Limit(low, high, free, total, cap, fraction, by_cap, fraction < 1, with_room, refusals.n_requests)


def _refused_by_cap(
    request: FailedRequest, reserved: int, free: int | None, cap: int | None, fraction: float
) -> bool | None:
    if cap is not None and reserved + request.segment_bytes <= cap:
        return False
    if free is None:
        return None if cap is None else True
    if fraction < 1:
        return free >= request.driver_bytes
    return None if free >= request.driver_bytes + DRIVER_SLACK_BYTES else False


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


NORMAL_CONTEXT_BYTES = 1 << 30
"""What a process holds on a device without anything being wrong: a CUDA context with PyTorch's and its libraries'
kernels loaded takes some hundred MiB, on large devices with many kernels up to about this."""
NORMAL_GROWTH_BYTES = 256 << 20
"""What a context grows by without anything being wrong: kernels are loaded when they are first used, and libraries make
their handles then. Taken on top of what the context, or the first sample, was measured to be."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Bytes on the device that PyTorch had not reserved; None is "not measured".

    Attributes
    ----------
    total_bytes
        Everything outside: the device's memory less what PyTorch had reserved and what the driver had left, all at the
        ``oom`` event.
    own_bytes, others_bytes
        Of this process, and of all others, by the sample nearest to the event.
    first_own_bytes
        Of this process when it was first sampled, None where that was the same sample.
    sample_event
        The event that the sample comes after.
    context_bytes
        What this process may hold for its CUDA context: what was modelled, or measured at first and some growth, but
        not above :data:`NORMAL_CONTEXT_BYTES`; that where nothing was measured.
    is_context_measured
        Whether anything was.
    collectives_bytes
        Taken by collectives (NCCL), where that was told apart.
    """

    total_bytes: int | None
    own_bytes: int | None
    others_bytes: int | None
    first_own_bytes: int | None
    sample_event: int | None
    context_bytes: int
    is_context_measured: bool
    collectives_bytes: int | None

    @property
    def own_beyond_context_bytes(self) -> int | None:
        """Of this process, more than its context explains; None where it was not measured."""
        return None if self.own_bytes is None else max(self.own_bytes - self.context_bytes, 0)

    @property
    def undivided_bytes(self) -> int | None:
        """Held outside beyond a context, by nobody knows whom; None where that is not measured."""
        if self.total_bytes is None:
            return None
        known = (self.own_bytes or 0) + (self.others_bytes or 0)
        rest = self.total_bytes - known
        return max(rest - (self.context_bytes if self.own_bytes is None else 0), 0)

    @property
    def is_divided(self) -> bool:
        """Whether this process and the others were told apart."""
        return self.own_bytes is not None and self.others_bytes is not None


def outside_at(lifetimes: DeviceLifetimes, event: int, reserved_bytes: int, limit: Limit) -> Outside:
    """Measure what lay outside PyTorch's reserved memory at an ``oom`` event. Linear in the events and samples."""
    total = None
    if limit.total_bytes is not None and limit.device_free_bytes is not None:
        total = max(limit.total_bytes - reserved_bytes - limit.device_free_bytes, 0)
    parts = _parts_told_apart(lifetimes, event)
    modelled = lifetimes.trace.metadata.modelled_context_bytes
    own, others, first_own, sample_event = _outside_by_process(lifetimes, event)
    context = _normal_context(parts.get(CUDA_CONTEXT, first_own)) if modelled is None else modelled
    return Outside(
        total_bytes=total,
        own_bytes=total if own is None and modelled is not None else own,
        others_bytes=0 if own is None and modelled is not None and total is not None else others,
        first_own_bytes=first_own,
        sample_event=sample_event,
        context_bytes=NORMAL_CONTEXT_BYTES if context is None else context,
        is_context_measured=context is not None,
        collectives_bytes=parts.get(COLLECTIVES),
    )


def _normal_context(first_bytes: int | None) -> int | None:
    """What a context may have become that was so large at first; None where that was not measured."""
    if first_bytes is None:
        return None
    return min(first_bytes + NORMAL_GROWTH_BYTES, max(NORMAL_CONTEXT_BYTES, first_bytes))


def _outside_by_process(
    lifetimes: DeviceLifetimes, event: int
) -> tuple[int | None, int | None, int | None, int | None]:
    """Bytes of this process and of the others, those of this process at first, and the event of the sample."""
    if lifetimes.trace.metadata.source == "dry-run" or not len(lifetimes.trace.samples):
        return None, None, None, None
    index = lifetimes.usage.index_of(event)
    samples, is_usable = driver_usage_samples(lifetimes)
    # A sample taken at the failed request itself comes after the reclaim: the driver has nothing left to do then.
    is_usable |= (samples.moment == index) & (samples.reserved_bytes >= 0)
    is_usable &= (samples.process_bytes != NONE_ID) & (samples.process_bytes >= samples.reserved_bytes)
    samples = samples.take(is_usable)
    if not len(samples.moment):
        return None, None, None, None
    own = samples.process_bytes - samples.reserved_bytes
    nearest = int(np.argmin(np.abs(samples.moment - index)))
    others = int(samples.others_bytes[nearest])
    first = int(np.argmin(samples.moment))
    return (
        int(own[nearest]),
        None if others == NONE_ID else others,
        int(own[first]) if first != nearest else None,
        lifetimes.usage.event_at(int(samples.moment[nearest])),
    )


def _parts_told_apart(lifetimes: DeviceLifetimes, event: int) -> dict[str, int]:
    """What was told apart at capture by the time of an event, in bytes by name."""
    time_ns = int(lifetimes.trace.time_ns[event])
    recorded: Any = lifetimes.trace.metadata.extra.get("device_parts", {})
    found: dict[str, int] = {}
    for name, since_ns, size in recorded.get(str(lifetimes.device), ()):
        if time_ns == NONE_ID or since_ns <= time_ns:
            found[name] = found.get(name, 0) + size
    return found
