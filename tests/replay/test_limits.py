"""The memory that a replay's device has."""

from __future__ import annotations

import dataclasses

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.limits import capacity_for
from memscope.units import GiB
from tests.training_trace import training_trace


def test_what_is_given_goes_before_what_was_recorded() -> None:
    trace = training_trace(total_bytes=5 * GiB)
    metadata = dataclasses.replace(trace.metadata, extra={"context_bytes_modelled": 512 << 20})
    known = DeviceLifetimes(dataclasses.replace(trace, metadata=metadata), 0)
    assert capacity_for(known, 8 * GiB) == (8 * GiB, 0, "given")
    assert capacity_for(known, None, GiB) == (5 * GiB, GiB, "recorded")
