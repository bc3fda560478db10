"""What an allocator made of a recording's requests, and the calls of the CUDA driver that it took."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.caching.engine import replay_caching
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.result import CALL_COSTS, DriverCalls
from memscope.units import GiB, MiB
from tests.replay.comparisons import result_of
from tests.replay.recordings import Recorder


def test_cost_is_the_sum_over_the_table():
    calls = DriverCalls({"cudaMalloc": 3, "cuMemMap": 2, "cudaFree": 0})
    assert calls.counts == {"cudaMalloc": 3, "cuMemMap": 2}
    assert calls.n_calls == 5
    assert calls.modelled_cost_ns == 3 * CALL_COSTS["cudaMalloc"].per_call_ns + 2 * CALL_COSTS["cuMemMap"].per_call_ns


def test_a_call_without_a_cost_is_an_error():
    with pytest.raises(KeyError, match="cudaTeleport"):
        DriverCalls({"cudaTeleport": 1})


def test_every_cost_names_its_source():
    assert all(cost.source and cost.per_call_ns > 0 for cost in CALL_COSTS.values())


def test_the_caching_allocators_calls_are_those_of_its_segments():
    recorder = Recorder("", total=80 << 30)
    recorder.workload(5, 600, p_empty=0.02)
    stats = recorder.allocator.stats
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    assert replay_caching(lifetimes).driver_calls.counts == {
        "cudaMalloc": stats.n_device_allocs,
        "cudaFree": stats.n_device_frees,
    }


def test_expandable_segments_map_handle_by_handle_and_set_access_once_a_call():
    recorder = Recorder("", total=80 << 30)
    recorder.allocator.malloc(3 * MiB)
    recorder.allocator.malloc(45 * MiB)
    config = CachingAllocatorConfig(is_expandable=True)
    calls = replay_caching(DeviceLifetimes(recorder.trace(), 0), config).driver_calls
    # 3 MiB map one handle of 20 MiB; 45 MiB start inside it and map two more.
    assert calls.counts == {"cuMemAddressReserve": 1, "cuMemCreate": 3, "cuMemMap": 3, "cuMemSetAccess": 2}


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
