"""Sweeps: the same results wherever they run, in the order asked for; what cannot run says why."""

import importlib.util

import pytest

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.compiling import compile_kernels
from memscope.replay.strategies import STRATEGIES, ReplayOptions
from memscope.replay.sweep import ReplayJob, Spread, run_sweep
from tests.replay.recordings import Recorder

CONFS = ("", "expandable_segments:True", "max_split_size_mb:64", "roundup_power2_divisions:8")


@pytest.fixture(scope="module")
def jobs():
    recorder = Recorder("", total=80 << 30)
    recorder.workload(3, 800, streams=(0, 7), p_wait=0.1)
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    return [ReplayJob(lifetimes, "caching", ReplayOptions(conf=conf)) for conf in CONFS]


def outcomes(results):
    return [(r.conf, r.peak_reserved_bytes, r.n_device_allocs, r.usage.reserved_bytes.tolist()) for r in results]


@pytest.fixture(scope="module")
def expected(jobs):
    return outcomes(run_sweep(jobs))


def test_results_come_in_the_order_of_the_jobs(expected):
    assert [conf for conf, *_ in expected] == list(CONFS)


def test_local_processes_give_the_same_results(jobs, expected):
    assert outcomes(run_sweep(jobs, Spread(n_jobs=2))) == expected


def test_a_dask_cluster_gives_the_same_results(jobs, expected):
    distributed = pytest.importorskip("distributed", reason="dask is an optional dependency")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        results = run_sweep(jobs, Spread(engine="dask", address=cluster.scheduler_address))
    assert outcomes(results) == expected


def test_a_ray_cluster_gives_the_same_results(jobs, expected):
    pytest.importorskip("ray", reason="ray is an optional dependency and not installed")
    assert outcomes(run_sweep(jobs, Spread(n_jobs=2, engine="ray"))) == expected


def test_progress_counts_every_replay(jobs):
    seen = []
    run_sweep(jobs, on_done=lambda n_done, n_all: seen.append((n_done, n_all)))
    assert seen == [(i + 1, len(jobs)) for i in range(len(jobs))]


def test_cancelling_keeps_what_is_done(jobs, expected):
    done = []
    results = run_sweep(jobs, on_done=lambda n, _: done.append(n), is_cancelled=lambda: len(done) == 2)
    assert outcomes(results) == expected[:2]


def test_a_job_that_cannot_run_raises_in_every_engine(jobs):
    bad = [jobs[0], ReplayJob(jobs[0].lifetimes, "caching", ReplayOptions(conf="nonsense:1"))]
    for spread in (Spread(), Spread(n_jobs=2)):
        with pytest.raises(UsageError, match="nonsense"):
            run_sweep(bad, spread)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"engine": "cloud"}, "choose one of local, dask, ray"),
        ({"address": "tcp://127.0.0.1:1"}, "an address needs a cluster"),
        ({"n_jobs": 0}, "at least one job"),
    ],
)
def test_a_spread_that_makes_no_sense_is_refused(arguments, reason):
    with pytest.raises(UsageError, match=reason):
        Spread(**arguments)


def test_a_scheduler_that_does_not_answer_is_named(jobs):
    pytest.importorskip("distributed", reason="dask is an optional dependency")
    with pytest.raises(UsageError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_sweep(jobs, Spread(engine="dask", address="tcp://127.0.0.1:9"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_an_engine_that_is_not_installed_says_how_to_get_it(jobs):
    with pytest.raises(UsageError, match=r"torch-memscope\[ray\]"):
        run_sweep(jobs, Spread(engine="ray"))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "lower-bound"])
def test_fragmentation_at_the_peak_is_that_of_the_peak(jobs, name):
    result = run_sweep([ReplayJob(jobs[0].lifetimes, name, ReplayOptions(measures_fragmentation=True))])[0]
    assert result.fragmentation is not None
    overall = result.fragmentation.overall
    index = result.usage.index_of(result.fragmentation.event)
    assert overall.reserved_bytes == result.peak_reserved_bytes == result.usage.reserved_bytes[index]
    assert overall.active_bytes == result.usage.active_bytes[index]
    assert overall.free_bytes == result.unused_bytes[index]
    assert 0 <= overall.largest_free_block_bytes <= overall.free_bytes


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_needs_less_than_the_requests(jobs, name):
    lifetimes = jobs[0].lifetimes
    bound = run_sweep([ReplayJob(lifetimes, "lower-bound", ReplayOptions())])[0]
    result = run_sweep([ReplayJob(lifetimes, name, ReplayOptions())])[0]
    assert result.oom is None
    assert result.peak_reserved_bytes >= bound.peak_reserved_bytes
    assert (result.unused_bytes >= 0).all()
    if name == "lower-bound":
        assert result.driver_calls is None
    else:
        assert result.driver_calls.n_calls > 0
        assert result.driver_calls.modelled_cost_ns > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_device_too_small_ends_every_strategy_at_a_request(jobs, name):
    lifetimes = jobs[0].lifetimes
    bound = run_sweep([ReplayJob(lifetimes, "lower-bound", ReplayOptions())])[0].peak_reserved_bytes
    result = run_sweep([ReplayJob(lifetimes, name, ReplayOptions(limits=Limits(bound // 2)))])[0]
    assert result.oom is not None
    assert result.oom.requested_bytes > 0
    assert 0 <= result.oom.free_bytes <= bound // 2
    assert result.peak_reserved_bytes <= bound
    if result.oom.event >= 0:
        assert lifetimes.trace.size_bytes[result.oom.event] == result.oom.requested_bytes
        assert len(result.usage) == result.usage.index_of(result.oom.event) + 1


def test_compiling_ahead_counts_every_strategy_and_the_verification():
    seen = []
    compile_kernels(lambda n_done, n_all: seen.append((n_done, n_all)))
    assert seen == [(i + 1, len(STRATEGIES) + 1) for i in range(len(STRATEGIES) + 1)]
