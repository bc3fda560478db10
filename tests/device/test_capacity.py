"""What a recording tells of its device's memory."""

from __future__ import annotations

import dataclasses

from memscope.device.capacity import Capacity, recorded_capacity
from memscope.lifetimes.device import DeviceLifetimes
from memscope.units import GiB
from tests.training_trace import training_trace


def test_the_recorded_total_is_the_devices_memory_and_others_hold_what_was_modelled() -> None:
    trace = training_trace(total_bytes=5 * GiB)
    metadata = dataclasses.replace(trace.metadata, extra={"context_bytes_modelled": 512 << 20})
    known = DeviceLifetimes(dataclasses.replace(trace, metadata=metadata), 0)
    assert recorded_capacity(known) == (5 * GiB, 512 << 20, "recorded")
    assert recorded_capacity(DeviceLifetimes(training_trace(total_bytes=None), 0)) == (None, 0, "not known")


def test_what_the_allocator_can_have_is_less_what_others_hold_and_at_most_its_share() -> None:
    capacity = Capacity(10 * GiB, 3 * GiB, "given")
    assert capacity.available_bytes() == 7 * GiB
    assert capacity.available_bytes(0.5) == 5 * GiB
    assert Capacity(None, 0, "not known").available_bytes(0.5) is None
