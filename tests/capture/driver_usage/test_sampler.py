"""Samples of what drivers say is used: kept where it changes, bounded, placed among events."""

from __future__ import annotations

import os
import sys
import time
from itertools import groupby

import numpy as np
import pytest

from memscope.capture.driver_usage._reader import UsageReading
from memscope.capture.driver_usage.sampler import UsageSampler, _Kept
from memscope.errors import UsageError
from memscope.trace.schema import NONE_ID
from tests.capture.driver_usage.fake_nvml import FakeCuda, FakeDevice, install

torch = pytest.importorskip("torch")
OWN = os.getpid()
NOTHING = UsageReading()


def test_the_sampler_samples_at_both_ends_and_at_changes(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice("GPU-aa", used=100, compute={OWN: 90})
    nvml = install(monkeypatch, device)
    sampler = UsageSampler([0], interval_s=0.001).start()
    began = time.perf_counter()
    device.used = 200
    while 200 not in sampler.samples()["device_used_bytes"]:
        assert time.perf_counter() - began < 10, "the change was not sampled"
    device.used = 150
    sampler.stop()
    sampler.stop()
    samples = sampler.samples()
    # The thread may see the last change before the sample at the end does, and repeats what stays for a second.
    assert [used for used, _ in groupby(samples["device_used_bytes"].tolist())] == [100, 200, 150]
    assert set(samples["process_used_bytes"].tolist()) == {90}
    assert np.all(np.diff(samples["time_ns"]) > 0)
    assert nvml.n_open == 0
    cost = sampler.cost
    assert cost.n_reads >= 3
    assert cost.read_ns >= cost.longest_ns > 0
    assert cost.mean_ns == cost.read_ns / cost.n_reads


def test_the_sampler_works_where_nothing_is_measured(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = UsageSampler([0], interval_s=10).start()
    sampler.stop()
    samples = sampler.samples()
    assert samples["device"].tolist() == [0, 0]
    for name in ("device_free_bytes", "device_used_bytes", "process_used_bytes", "others_used_bytes"):
        assert samples[name].tolist() == [NONE_ID, NONE_ID]
    assert sampler.reasons == ("nvidia-ml-py is not installed",)


def test_a_sampler_of_no_device_has_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    sampler = UsageSampler([]).start()
    sampler.stop()
    assert len(sampler.samples()["time_ns"]) == 0
    assert sampler.cost.mean_ns is None


def test_an_interval_or_a_limit_that_cannot_be_used_is_refused() -> None:
    for interval_s in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="interval"):
            UsageSampler([0], interval_s)
    with pytest.raises(UsageError, match="max_samples"):
        UsageSampler([0], max_samples=3)


def test_unchanged_counts_are_kept_once_a_second() -> None:
    kept = _Kept(100)
    for tenth in range(31):
        kept.add(tenth * 100_000_000, UsageReading(1, 2), is_forced=False)
    assert kept.arrays()[0].tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]


def test_the_samples_are_bounded_and_the_highest_is_never_dropped() -> None:
    kept = _Kept(64)
    for i in range(10_000):
        kept.add(i * 1000, UsageReading(0, 99_999 if i == 5001 else i % 7), is_forced=False)
    times, _, used = kept.arrays()[:3]
    assert 16 <= len(times) <= 64
    assert times[int(np.argmax(used))] == 5001 * 1000
    assert np.all(np.diff(times) > 0)
    assert times[-1] > 9_000 * 1000
