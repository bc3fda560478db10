"""What-if replays: equal to the allocator itself, and to what real PyTorch did with the same requests."""

import pytest

from memscope.device.limits import Limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching, replay_lower_bound
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.strategies import STRATEGIES, ReplayOptions, replay
from memscope.trace.schema import TieRule
from memscope.trace.snapshot.read import read_snapshot
from memscope.units import MiB
from tests.oracles import ORACLE, needs_shared
from tests.replay.recordings import Recorder


def recorded(conf="", *, total=80 << 30, seed=1, n_steps=1200, **workload):
    recorder = Recorder(conf, total=total)
    recorder.workload(seed, n_steps, **workload)
    stats = recorder.allocator.stats
    return DeviceLifetimes(recorder.trace(), 0), stats


@pytest.mark.parametrize("conf", ["", "expandable_segments:True", "max_split_size_mb:32", "roundup_power2_divisions:4"])
def test_replay_under_the_recorded_settings_repeats_the_recording(conf):
    lifetimes, stats = recorded(conf, streams=(0, 7), p_wait=0.1)
    result = replay_caching(lifetimes)
    assert result.exactness == "exact"
    assert result.oom is None
    assert result.conf == conf
    assert result.peak_reserved_bytes == stats.peak_reserved_bytes
    assert result.peak_active_bytes == stats.peak_active_bytes
    assert result.n_device_allocs == stats.n_device_allocs
    assert result.n_device_frees == stats.n_device_frees
    for name in ("allocated_bytes", "active_bytes", "requested_bytes"):
        assert getattr(result.usage, name).tolist() == getattr(lifetimes.usage, name).tolist()
    assert result.usage.reserved_bytes[-1] == lifetimes.usage.reserved_bytes[-1]


def test_replay_under_other_settings_is_what_those_settings_record():
    # The same workload recorded twice, under both settings, without empty_cache: requests are equal.
    default, _ = recorded("", p_empty=0.0)
    _, expandable = recorded("expandable_segments:True", p_empty=0.0)
    result = replay_caching(default, CachingAllocatorConfig(is_expandable=True))
    assert result.peak_reserved_bytes == expandable.peak_reserved_bytes
    assert result.n_device_allocs == expandable.n_device_allocs


def test_smaller_device_ends_the_replay_at_the_request_that_fails():
    lifetimes, _ = recorded(n_steps=400)
    need = replay_lower_bound(lifetimes).peak_reserved_bytes
    result = replay(lifetimes, "caching", ReplayOptions(limits=Limits(need // 2)))
    assert result.oom is not None
    assert lifetimes.trace.size_bytes[result.oom.event] == result.oom.requested_bytes
    assert result.oom.free_bytes < need // 2
    assert len(result.usage) == result.usage.index_of(result.oom.event) + 1
    assert result.peak_reserved_bytes <= need // 2


def test_memory_reserved_by_others_is_not_available():
    lifetimes, stats = recorded(n_steps=400)
    total = stats.peak_reserved_bytes
    assert replay(lifetimes, options=ReplayOptions(limits=Limits(total))).oom is None
    options = ReplayOptions(limits=Limits(total, total // 2))
    assert replay(lifetimes, options=options).oom is not None


def test_what_stood_before_the_recording_is_allocated_first():
    recorder = Recorder()
    recorder.workload(2, 400)
    recorder.start_recording()
    recorder.workload(3, 400)
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    result = replay_caching(lifetimes)
    assert any("before the recording" in note for note in result.notes)
    assert result.usage.requested_bytes[0] == lifetimes.usage.requested_bytes[0] > 0
    assert result.usage.requested_bytes.tolist() == lifetimes.usage.requested_bytes.tolist()


def test_reclaim_completes_waiting_frees_and_their_recorded_end_is_ignored():
    recorder = Recorder(total=80 << 30)
    allocator = recorder.allocator
    waiting = allocator.malloc(30 * MiB)
    allocator.free(waiting, waits=True)
    allocator.malloc(35 * MiB)
    allocator.complete_free(waiting)
    allocator.malloc(12 * MiB)
    result = replay_caching(DeviceLifetimes(recorder.trace(), 0), limits=Limits(60 * MiB))
    # 30 MiB waiting and 36 MiB more do not fit 60 MiB: the retry waits for the streams and frees the 30 MiB.
    assert result.oom is None
    assert result.n_retries == 1
    assert result.peak_reserved_bytes == 48 * MiB


def test_lower_bound_is_the_requested_bytes_in_use():
    lifetimes, stats = recorded()
    result = replay_lower_bound(lifetimes)
    assert result.exactness == "bound"
    assert result.peak_reserved_bytes == stats.peak_requested_bytes
    assert result.n_device_allocs is None
    assert result.efficiency_frac == 1.0
    limited = replay(lifetimes, "lower-bound", ReplayOptions(limits=Limits(stats.peak_requested_bytes - 1)))
    assert limited.oom is not None
    assert replay(lifetimes, "lower-bound", ReplayOptions(limits=Limits(stats.peak_requested_bytes))).oom is None


def test_no_strategy_beats_the_lower_bound():
    lifetimes, _ = recorded()
    bound = replay_lower_bound(lifetimes).peak_reserved_bytes
    for name in STRATEGIES:
        assert replay(lifetimes, name).peak_reserved_bytes >= bound


def test_efficiency_is_peak_active_over_peak_reserved():
    lifetimes, stats = recorded()
    assert replay(lifetimes).efficiency_frac == stats.peak_active_bytes / stats.peak_reserved_bytes


def test_private_pools_make_the_result_modelled():
    lifetimes, _ = recorded(pools=((0, 0), (0, 1)))
    assert replay(lifetimes).exactness == "modelled"


def test_tie_rule_can_be_chosen():
    lifetimes, _ = recorded(n_steps=2000)
    peaks = {rule: replay_caching(lifetimes, tie_rule=rule).peak_active_bytes for rule in TieRule}
    assert peaks[TieRule.ADDRESS] == peaks[TieRule.SEGMENT_AGE]  # Segments are placed upwards, so both rules agree.


@needs_shared
@pytest.mark.parametrize(
    ("source", "conf", "target"),
    [
        ("mixed_default", "expandable_segments:True", "mixed_exp"),
        ("mixed_default", "max_split_size_mb:128", "mixed_split128"),
        ("mixed_exp", "", "mixed_default"),
        ("mixed_split128", "expandable_segments:True", "mixed_exp"),
        ("mixed_default", "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", "mixed_roundlist"),
    ],
)
def test_what_if_is_what_pytorch_did_under_those_settings(source, conf, target):
    # These snapshots were made by one sequence of requests under different settings.
    folder = ORACLE / "torch-2.15.0"
    lifetimes = DeviceLifetimes(read_snapshot(folder / f"{source}.pickle.gz"), 0)
    expected = DeviceLifetimes(read_snapshot(folder / f"{target}.pickle.gz"), 0).usage
    result = replay(lifetimes, "caching", ReplayOptions(conf=conf, limits=Limits(80 << 30)))
    assert result.peak_reserved_bytes == int(expected.reserved_bytes.max())
    assert result.peak_active_bytes == int(expected.active_bytes.max())
