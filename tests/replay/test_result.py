"""What an allocator made of requests, and what is kept of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from memscope.lifetimes.tables import UsageSeries
from memscope.units import GiB
from tests.replay.comparisons import result_of


def test_efficiency_is_peak_active_over_peak_reserved_and_whole_where_nothing_was_reserved() -> None:
    assert result_of("", 10 * GiB).efficiency_frac == 0.5
    assert result_of("", 0).efficiency_frac == 1.0


def test_a_result_cut_down_to_its_peak_keeps_the_moment_of_the_peak() -> None:
    active, reserved = np.array([0, 3, 2, 2]), np.array([0, 4, 9, 9])
    result = dataclasses.replace(result_of("", 9), usage=UsageSeries(20, active, active, active, reserved))
    assert result.unused_bytes.tolist() == [0, 1, 7, 7]
    # Moment 0 is before event 20, so the first moment of the peak is after event 21.
    kept = result.at_peak()
    assert (len(kept.usage), kept.unused_bytes.tolist()) == (1, [7])
    assert kept.usage.first_event == 22
    assert kept.peak_reserved_bytes == result.peak_reserved_bytes
