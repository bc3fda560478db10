"""What was held on the device outside PyTorch's reserved memory when a request failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memscope.attribution.driver_usage import COLLECTIVES, CUDA_CONTEXT, driver_usage_samples
from memscope.lifetimes.device import DeviceLifetimes
from memscope.oom.request import Limit
from memscope.trace.schema import NONE_ID

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
    parts = _parts(lifetimes, event)
    modelled = lifetimes.trace.metadata.extra.get("context_bytes_modelled")
    own, others, first_own, sample_event = _split(lifetimes, event)
    context = modelled if isinstance(modelled, int) else _normal_context(parts.get(CUDA_CONTEXT, first_own))
    return Outside(
        total_bytes=total,
        own_bytes=total if own is None and isinstance(modelled, int) else own,
        others_bytes=0 if own is None and isinstance(modelled, int) and total is not None else others,
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


def _split(lifetimes: DeviceLifetimes, event: int) -> tuple[int | None, int | None, int | None, int | None]:
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


def _parts(lifetimes: DeviceLifetimes, event: int) -> dict[str, int]:
    """What was told apart at capture by the time of an event, in bytes by name."""
    time_ns = int(lifetimes.trace.time_ns[event])
    recorded: Any = lifetimes.trace.metadata.extra.get("device_parts", {})
    found: dict[str, int] = {}
    for name, since_ns, size in recorded.get(str(lifetimes.device), ()):
        if time_ns == NONE_ID or since_ns <= time_ns:
            found[name] = found.get(name, 0) + size
    return found
