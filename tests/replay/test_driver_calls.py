"""Driver calls: counted by kind, their cost the sum of the table."""

import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.driver_calls import CALL_COSTS, DriverCalls
from memscope.units import MiB
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
