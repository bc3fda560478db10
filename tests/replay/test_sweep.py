"""Sweeps: the same results wherever they run, in the order asked for; what cannot run says why."""

import importlib.util

import pytest

from memscope.errors import MissingDependencyError, UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.strategies import ReplayOptions
from memscope.replay.sweep import Refused, ReplayJob, SweepWorkers, attempt, run_sweep
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
    assert outcomes(run_sweep(jobs, SweepWorkers(n_jobs=2))) == expected


def test_a_dask_cluster_gives_the_same_results(jobs, expected):
    distributed = pytest.importorskip("distributed", reason="dask is an optional dependency")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        results = run_sweep(jobs, SweepWorkers(engine="dask", address=cluster.scheduler_address))
    assert outcomes(results) == expected


def test_a_ray_cluster_gives_the_same_results(jobs, expected):
    pytest.importorskip("ray", reason="ray is an optional dependency and not installed")
    assert outcomes(run_sweep(jobs, SweepWorkers(n_jobs=2, engine="ray"))) == expected


def test_progress_counts_every_replay(jobs):
    seen = []
    run_sweep(jobs, on_done=lambda n_done, n_all: seen.append((n_done, n_all)))
    assert seen == [(i + 1, len(jobs)) for i in range(len(jobs))]


def test_a_job_that_cannot_run_raises_in_every_engine(jobs):
    bad = [jobs[0], ReplayJob(jobs[0].lifetimes, "caching", ReplayOptions(conf="nonsense:1"))]
    for spread in (SweepWorkers(), SweepWorkers(n_jobs=2)):
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
        SweepWorkers(**arguments)


def test_a_scheduler_that_does_not_answer_is_named(jobs):
    pytest.importorskip("distributed", reason="dask is an optional dependency")
    with pytest.raises(UsageError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_sweep(jobs, SweepWorkers(engine="dask", address="tcp://127.0.0.1:9"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_an_engine_that_is_not_installed_says_how_to_get_it(jobs):
    with pytest.raises(MissingDependencyError, match=r"^the ray engine needs ray, .* 'torch-memscope\[ray\]'$"):
        run_sweep(jobs, SweepWorkers(engine="ray"))


def test_an_attempt_says_why_a_replay_cannot_be_made(jobs):
    refused = attempt(ReplayJob(jobs[0].lifetimes, "caching", ReplayOptions(conf="nonsense:1")))
    assert isinstance(refused, Refused)
    assert (refused.strategy, refused.conf) == ("caching", "nonsense:1")
    assert "nonsense" in refused.reason
    assert outcomes([attempt(jobs[0])]) == outcomes(run_sweep(jobs[:1]))
