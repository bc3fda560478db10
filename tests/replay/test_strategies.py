"""The registry of strategies: what each may be asked for, and what holds for all of them."""

import dataclasses

import pytest

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.strategies import STRATEGIES, ReplayOptions, replay, strategy_named
from tests.replay.recordings import Recorder

GiB = 1 << 30


@pytest.fixture(scope="module")
def lifetimes():
    recorder = Recorder("", total=80 * GiB)
    recorder.workload(3, 800, streams=(0, 7), p_wait=0.1)
    return DeviceLifetimes(recorder.trace(), 0)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "lower-bound"])
def test_fragmentation_at_the_peak_is_that_of_the_peak(lifetimes, name):
    result = replay(lifetimes, name, ReplayOptions(measures_fragmentation=True))
    assert result.fragmentation is not None
    overall = result.fragmentation.overall
    index = result.usage.index_of(result.fragmentation.event)
    assert overall.reserved_bytes == result.peak_reserved_bytes == result.usage.reserved_bytes[index]
    assert overall.active_bytes == result.usage.active_bytes[index]
    assert overall.free_bytes == result.unused_bytes[index]
    assert 0 <= overall.largest_free_block_bytes <= overall.free_bytes


@pytest.mark.parametrize("capacity_bytes", [None, 1 << 31])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_result_without_its_usage_is_that_with_it_at_its_peak(lifetimes, name, capacity_bytes):
    options = ReplayOptions(limits=Limits(capacity_bytes), measures_fragmentation=True)
    whole = replay(lifetimes, name, options)
    kept = replay(lifetimes, name, dataclasses.replace(options, keeps_usage=False))
    at_peak = whole.at_peak()
    assert (kept.usage.first_event, len(kept.usage)) == (at_peak.usage.first_event, 1)
    for column in ("allocated_bytes", "active_bytes", "requested_bytes", "reserved_bytes"):
        assert getattr(kept.usage, column).tolist() == getattr(at_peak.usage, column).tolist()
    assert dataclasses.replace(kept, usage=None) == dataclasses.replace(whole, usage=None)


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_needs_less_than_the_requests(lifetimes, name):
    bound = replay(lifetimes, "lower-bound")
    result = replay(lifetimes, name)
    assert result.oom is None
    assert result.unused == (result.unused_bytes.max(), int(result.unused_bytes.sum()) // len(result.unused_bytes))
    assert result.peak_reserved_bytes >= bound.peak_reserved_bytes
    assert (result.unused_bytes >= 0).all()
    if name == "lower-bound":
        assert result.driver_calls is None
    else:
        assert result.driver_calls.n_calls > 0
        assert result.driver_calls.modelled_cost_ns > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_device_too_small_ends_every_strategy_at_a_request(lifetimes, name):
    bound = replay(lifetimes, "lower-bound").peak_reserved_bytes
    result = replay(lifetimes, name, ReplayOptions(limits=Limits(bound // 2)))
    assert result.oom is not None
    assert result.oom.requested_bytes > 0
    assert 0 <= result.oom.free_bytes <= bound // 2
    assert result.peak_reserved_bytes <= bound
    if result.oom.event >= 0:
        assert lifetimes.trace.size_bytes[result.oom.event] == result.oom.requested_bytes
        assert len(result.usage) == result.usage.index_of(result.oom.event) + 1


@pytest.mark.parametrize(
    ("strategy", "options", "reason"),
    [
        ("no-such", ReplayOptions(), "there is no replay strategy"),
        ("lower-bound", ReplayOptions(conf=""), "has no allocator settings"),
        ("caching", ReplayOptions(conf="per_process_memory_fraction:0.5"), "total bytes"),
        ("caching", ReplayOptions(conf="backend:cudaMallocAsync"), "async-pool"),
        ("caching", ReplayOptions(limits=Limits(memory_fraction=0.5)), "give a capacity"),
        ("caching", ReplayOptions(limits=Limits(GiB, memory_fraction=1.5)), "not between 0 and 1"),
    ],
)
def test_what_cannot_be_replayed_is_refused(lifetimes, strategy, options, reason):
    with pytest.raises(UsageError, match=reason):
        replay(lifetimes, strategy, options)


def test_a_strategy_is_found_by_its_name():
    assert strategy_named("bfc") is STRATEGIES["bfc"]
    assert not STRATEGIES["bfc"].takes_conf


def test_a_fraction_that_the_program_set_stays_in_force_unless_settings_or_limits_name_another(lifetimes):
    metadata = dataclasses.replace(lifetimes.trace.metadata, memory_fraction={0: 1e-5})
    capped = DeviceLifetimes(dataclasses.replace(lifetimes.trace, metadata=metadata), 0)

    def fits(conf, fraction=None):
        limits = Limits(80 * GiB, memory_fraction=fraction)
        return replay(capped, "caching", ReplayOptions(conf, limits)).oom is None

    assert not fits(None)
    assert not fits("")
    assert fits("per_process_memory_fraction:0.5")
    assert fits("", 0.5)
    assert fits(None, 0.5)
    assert not fits("per_process_memory_fraction:0.5", 1e-5)
    # It is no setting: a line that was copied would change what the program asked for.
    assert replay(capped, "caching", ReplayOptions(None, Limits(80 * GiB))).conf == ""


def test_other_allocators_know_of_no_fraction(lifetimes):
    whole = replay(lifetimes, "bfc", ReplayOptions(limits=Limits(80 * GiB)))
    capped = replay(lifetimes, "bfc", ReplayOptions(limits=Limits(80 * GiB, memory_fraction=1e-6)))
    assert capped.oom is None
    assert capped.peak_reserved_bytes == whole.peak_reserved_bytes
