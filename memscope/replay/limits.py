"""The memory that a replay's device has: what is asked for, or the recorded device's."""

from __future__ import annotations

from memscope.device.capacity import Capacity, recorded_capacity
from memscope.lifetimes.device import DeviceLifetimes


def capacity_for(
    lifetimes: DeviceLifetimes, total_bytes: int | None = None, reserved_by_others_bytes: int | None = None
) -> Capacity:
    """What is given, and the recorded device's where nothing is."""
    capacity = recorded_capacity(lifetimes) if total_bytes is None else Capacity(total_bytes, 0, "given")
    if reserved_by_others_bytes is not None:
        capacity = capacity._replace(reserved_by_others_bytes=reserved_by_others_bytes)
    return capacity
