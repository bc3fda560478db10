"""The memory of the recorded device, as far as the recording tells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.schema import Action


class Capacity(NamedTuple):
    """Memory of a device (None: no limit), the part that is not the allocator's, and how that is known."""

    total_bytes: int | None
    reserved_by_others_bytes: int
    source: str

    def available_bytes(self, memory_fraction: float = 1.0) -> int | None:
        """What the allocator can have at the most, None where that is not known."""
        if self.total_bytes is None:
            return None
        return min(self.total_bytes - self.reserved_by_others_bytes, int(memory_fraction * self.total_bytes))


def recorded_capacity(lifetimes: DeviceLifetimes) -> Capacity:
    """The recorded device's memory, and what of it is known not to be the allocator's.

    Where the total was not recorded but a request failed, what was reserved then and what the driver had left are
    together what the allocator could have.
    """
    metadata = lifetimes.trace.metadata
    total_bytes = metadata.device_total_bytes.get(lifetimes.device)
    if total_bytes is not None:
        others_bytes = metadata.extra.get("context_bytes_modelled")
        return Capacity(total_bytes, others_bytes if isinstance(others_bytes, int) else 0, "recorded")
    samples, usage = lifetimes.trace.samples, lifetimes.usage
    action = lifetimes.trace.action
    is_here = (samples.device == lifetimes.device) & (samples.event >= 0) & (samples.device_free_bytes >= 0)
    for position in np.flatnonzero(is_here).tolist():
        event = int(samples.event[position])
        if action[event] == Action.OOM and usage.reserved_bytes is not None:
            reserved = int(usage.reserved_bytes[usage.index_of(event)])
            return Capacity(reserved + int(samples.device_free_bytes[position]), 0, "inferred from the failed request")
    return Capacity(None, 0, "not known")
