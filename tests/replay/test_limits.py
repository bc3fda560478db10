"""What a recording tells of its device's memory."""

from __future__ import annotations

import dataclasses

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.limits import Capacity, capacity_for, recorded_capacity
from memscope.units import GiB
from tests.training_trace import training_trace


def test_the_device_of_the_recording_limits_its_replays() -> None:
    trace = training_trace(total_bytes=5 * GiB)
    metadata = dataclasses.replace(trace.metadata, extra={"context_bytes_modelled": 512 << 20})
    known = DeviceLifetimes(dataclasses.replace(trace, metadata=metadata), 0)
    assert recorded_capacity(known) == (5 * GiB, 512 << 20, "recorded")
    assert capacity_for(known, 8 * GiB) == (8 * GiB, 0, "given")
    assert capacity_for(known, None, GiB) == (5 * GiB, GiB, "recorded")
    assert recorded_capacity(DeviceLifetimes(training_trace(total_bytes=None), 0)) == (None, 0, "not known")


def test_what_the_allocator_can_have_is_less_what_others_hold_and_at_most_its_share() -> None:
    capacity = Capacity(10 * GiB, 3 * GiB, "given")
    assert capacity.available_bytes() == 7 * GiB
    assert capacity.available_bytes(0.5) == 5 * GiB
    assert Capacity(None, 0, "not known").available_bytes(0.5) is None
