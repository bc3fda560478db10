"""Tuning: the best of PyTorch's settings for a recording, or that nothing helps."""

import dataclasses

import numpy as np
import pytest

from memscope.advise.tune import confs_in_order, tune
from memscope.analysis import Analysis
from memscope.device.limits import Limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching
from memscope.replay.compare import compare_confs
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import GiB, MiB
from memscope.words.replay import tuning_words, verdict_words
from tests.oom.planted import PLANTS, Program, nearly_full, plant
from tests.replay.recordings import Recorder


def growing_requests(conf="", total=80 << 30, n_rounds=40):
    """Requests that grow a little each time, as sequences of growing length do: no freed segment fits the next."""
    recorder = Recorder(conf, total=total)
    kept = [recorder.allocator.malloc(4096)]
    for i in range(n_rounds):
        addresses = [recorder.allocator.malloc((40 + 3 * i) * MiB) for _ in range(3)]
        kept.append(recorder.allocator.malloc(600))
        for address in addresses:
            recorder.allocator.free(address)
    return DeviceLifetimes(recorder.trace(), 0)


def test_a_fragmented_run_gets_a_line_that_its_own_replay_confirms():
    lifetimes = growing_requests()
    tuning = tune(lifetimes)
    assert tuning.recommended_conf is not None
    assert tuning.line == f"PYTORCH_ALLOC_CONF={tuning.recommended_conf}"
    assert "expandable_segments:True" in tuning.recommended_conf
    again = replay_caching(lifetimes, CachingAllocatorConfig.parse(tuning.recommended_conf))
    assert again.peak_reserved_bytes == tuning.best.peak_reserved_bytes
    assert tuning.gain_bytes == tuning.recorded.peak_reserved_bytes - again.peak_reserved_bytes
    assert tuning.gain_bytes > 0.5 * tuning.recorded.peak_reserved_bytes
    assert tuning.best.peak_reserved_bytes >= tuning.lower_bound.peak_reserved_bytes
    assert tuning_words(tuning).startswith("saves ")


def test_what_is_recommended_is_what_the_other_recording_really_reserved():
    real = growing_requests("expandable_segments:True")
    assert tune(growing_requests()).best.peak_reserved_bytes == int(real.usage.reserved_bytes.max())


def test_the_best_is_the_lowest_of_all_up_to_the_tie_that_simplicity_decides():
    tuning = tune(growing_requests())
    lowest = min(result.peak_reserved_bytes for result in tuning.results)
    assert lowest <= tuning.best.peak_reserved_bytes <= lowest * 1.002


def test_what_is_recommended_is_tried_first_by_others_too(monkeypatch):
    lifetimes = growing_requests()
    tuning = tune(lifetimes)
    confs = confs_in_order(lifetimes)
    assert confs[0] == tuning.recommended_conf
    assert set(confs) == {result.conf for result in tuning.results}
    monkeypatch.setattr("memscope.advise.tune.MAX_SEARCHED_EVENTS", 10)
    single = confs_in_order(lifetimes)
    assert single[:2] == ("", "expandable_segments:True")
    assert all("," not in conf for conf in single)


def test_a_run_that_fits_its_requests_is_told_that_fragmentation_is_not_its_problem():
    recorder = Recorder("", total=80 << 30)
    for _ in range(10):
        recorder.allocator.malloc(100 * MiB)
    tuning = tune(DeviceLifetimes(recorder.trace(), 0))
    assert tuning.recommended_conf is None
    assert tuning.line is None
    assert tuning_words(tuning).startswith("fragmentation is not your problem")


def test_settings_that_avoid_running_out_of_memory_are_recommended_whatever_they_save():
    # Recorded on a large device, asked about a small one: default settings run out there, expandable ones do not.
    lifetimes = growing_requests()
    need = replay_caching(lifetimes, CachingAllocatorConfig(is_expandable=True)).peak_reserved_bytes
    tuning = tune(lifetimes, limits=Limits(need + 40 * MiB))
    assert tuning.best.oom is None
    if tuning.baseline.oom is not None:
        assert "run out of memory" in tuning_words(tuning)
        assert tuning.recommended_conf is not None


def test_a_device_that_nothing_fits_on_is_said_so():
    tuning = tune(growing_requests(), limits=Limits(64 * MiB))
    assert tuning.best is None
    assert tuning.recommended_conf is None
    assert tuning_words(tuning).startswith("no setting avoids running out of memory")


def test_harmful_recorded_settings_are_warned_of():
    tuning = tune(growing_requests("expandable_segments:True,max_split_size_mb:64", n_rounds=5))
    assert any("123548" in text for text in tuning.warnings)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [name for name in PLANTS if name != "no-oom"])
def test_what_is_recommended_after_a_failure_serves_the_request_when_the_program_is_run_again(name, seed):
    program = plant(name, seed)
    analysis = Analysis(program.trace())
    lifetimes = analysis.device(0).lifetimes
    tuning = tune(lifetimes)
    assert tuning.recorded.fatal_event == lifetimes.fatal_oom_event == analysis.oom().event
    if name == "fraction-cap" and not program.knows_fraction:
        # Nobody knows what refused the request: neither verb proposes anything.
        assert not tuning.reproduces
        assert tuning.recommended_conf is None
        assert not analysis.oom().remedies.found
        return
    assert tuning.baseline.oom.event == tuning.recorded.fatal_event
    settings = [change.conf for change in analysis.oom().remedies.found if change.kind == "setting"]
    if tuning.recommended_conf is None:
        assert tuning.best is None
        assert not settings
        assert tuning_words(tuning).startswith("no setting avoids running out of memory")
    else:
        assert program.survives(conf=tuning.recommended_conf)
        assert tuning_words(tuning).startswith("the request that failed in the recording is served with these")


def test_nothing_is_recommended_where_the_replay_serves_what_failed():
    program = plant("external-fragmentation", 0)
    trace = program.trace()
    lost = dataclasses.replace(trace, samples=trace.samples.take(np.zeros(len(trace.samples), np.bool_)))
    without_total = dataclasses.replace(lost, metadata=dataclasses.replace(lost.metadata, device_total_bytes={}))
    tuning = tune(DeviceLifetimes(without_total, 0))
    assert not tuning.reproduces
    assert tuning.recommended_conf is tuning.line is None
    assert "no setting is recommended" in tuning_words(tuning)


def test_no_setting_is_recommended_for_the_last_request_on_a_full_device():
    program = nearly_full()
    program.malloc(14 * MiB)
    lifetimes = DeviceLifetimes(program.trace(), 0)
    tuning = tune(lifetimes)
    assert tuning.best is not None
    assert tuning.baseline.oom.event == tuning.recorded.fatal_event
    assert tuning.recommended_conf is tuning.line is None
    assert tuning_words(tuning).startswith("fragmentation is not your problem: 16.0 MiB (1.6 %) of the 1.0 GiB")


def test_nothing_is_recommended_where_no_allocation_was_recorded():
    program = Program(4 << 30)
    for _ in range(4):
        program.malloc(3 * MiB)  # one in each 20 MiB
        program.malloc(19 * MiB)
    program.forget()
    program.free(program.malloc(MiB // 2))
    with_one = tune(DeviceLifetimes(program.trace(), 0))
    program.forget()
    lifetimes = DeviceLifetimes(program.trace(), 0)
    tuning = tune(lifetimes)
    assert with_one.recorded.has_requests
    assert not tuning.recorded.has_requests
    assert tuning.recommended_conf is None
    words = tuning_words(tuning)
    assert words.startswith("nothing is recommended: no allocation was recorded")
    assert verdict_words(compare_confs(lifetimes).verdict) == words


def test_on_a_larger_device_the_failed_request_is_one_like_the_others():
    lifetimes = Analysis(plant("external-fragmentation", 0).trace()).device(0).lifetimes
    tuning = tune(lifetimes, limits=Limits(80 << 30))
    assert tuning.reproduces
    assert tuning.baseline.oom is None
    assert not tuning.warnings
    assert tuning.recommended_conf is None or tuning.gain_bytes > 0


def cached_before(n_bytes):
    """A recording that begins after a warm-up: so much is cached then, and nothing of it is used again."""
    recorder = Recorder("", total=80 << 30)
    warm = recorder.allocator.malloc(n_bytes)
    small = [recorder.allocator.malloc(2 * MiB) for _ in range(50)]
    recorder.allocator.free(warm)
    recorder.start_recording()
    for address in small:
        recorder.allocator.free(address)
        recorder.allocator.malloc(2 * MiB)
    return DeviceLifetimes(recorder.trace(), 0)


def test_memory_that_was_cached_before_the_recording_is_said_not_judged():
    tuning = tune(cached_before(400 * MiB))
    assert tuning.is_wasted_before
    assert tuning.recommended_conf is None
    assert tuning_words(tuning).startswith("400.0 MiB were cached before the recording began")


def test_a_gain_within_the_replays_own_error_is_none():
    lifetimes = growing_requests()
    tuning = tune(lifetimes)
    assert tuning.error_bytes == 0
    assert tuning.recommended_conf is not None
    recorded = dataclasses.replace(tuning.recorded, peak_reserved_bytes=10 * tuning.recorded.peak_reserved_bytes)
    far_off = dataclasses.replace(tuning, recorded=recorded)
    assert far_off.recommended_conf is None
    assert tuning_words(far_off) == (
        "nothing is recommended: the replay of the recorded settings is 90.0 % off the recorded peak"
    )


def test_what_a_pool_of_the_recording_refuses_is_not_tried():
    lifetimes = growing_requests()
    strings = (*lifetimes.trace.strings, "/usr/lib/vllm/device_allocator/cumem.py")
    pooled = DeviceLifetimes(dataclasses.replace(lifetimes.trace, strings=strings), 0)
    assert any("expandable_segments" in result.conf for result in tune(lifetimes).results)
    tuning = tune(pooled)
    assert not any("expandable_segments" in result.conf for result in tuning.results)
    assert tuning.warnings == ("not tried: expandable_segments, which vLLM's sleep mode (its CuMem pool) refuses",)


def test_a_program_that_goes_on_after_failures_is_told_which_settings_serve_them():
    program = Program(GiB)
    kept = [program.malloc(24 * MiB) for _ in range(38)]
    for _ in range(4):
        program.free(program.malloc(28 * MiB))
        program.malloc(20 * MiB)
    for _ in range(2):
        assert program.malloc(14 * MiB) is None
        program.free(kept.pop())
        kept.append(program.malloc(24 * MiB))
    tuning = tune(DeviceLifetimes(program.trace(), 0))
    n_failed = tuning.recorded.n_ooms
    assert tuning.baseline.n_ooms == n_failed
    assert 0 < tuning.n_more_served == n_failed - tuning.best.n_ooms
    assert tuning.recommended_conf == tuning.best.conf
    served = f"serves {tuning.n_more_served} of {n_failed} requests that fail under the recorded settings"
    assert tuning_words(tuning) == served


def test_where_no_setting_serves_what_failed_fragmentation_is_not_talked_away():
    program = Program(GiB)
    kept = [program.malloc(64 * MiB) for _ in range(16)]
    for _ in range(2):
        assert program.malloc(64 * MiB) is None
        program.free(kept.pop())
        kept.append(program.malloc(64 * MiB))
    tuning = tune(DeviceLifetimes(program.trace(), 0))
    assert tuning.recommended_conf is None
    assert tuning_words(tuning) == "no setting serves more of the 2 requests that failed in the recording"
