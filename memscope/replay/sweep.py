"""Many replays at once: one after the other, in local processes, or on a dask or ray cluster, through joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

from memscope.errors import MemscopeError, UnknownNameError, UsageError, needed_for
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.result import ReplayResult
from memscope.replay.strategies import ReplayOptions, replay

Engine = Literal["local", "dask", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
MOST_JOBS = 1024
"""Replays at a time, at most; of local processes there are never more than replays."""


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """One replay of a sweep: whose requests, by which strategy, under which options."""

    lifetimes: DeviceLifetimes
    strategy: str
    options: ReplayOptions


@dataclass(frozen=True, slots=True)
class SweepWorkers:
    """Where a sweep runs.

    Attributes
    ----------
    n_jobs
        Replays at a time; 1 runs them in this process, −1 on every core (or on all of the cluster).
    engine
        ``local`` processes, or a ``dask`` or ``ray`` cluster.
    address
        Address of the cluster's scheduler; None for one that this machine starts for itself.

    Raises
    ------
    UsageError
        If the engine is not known, there are too many jobs at a time, or an address is given to local processes.
    """

    n_jobs: int = 1
    engine: Engine = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UnknownNameError(f"there is no engine {self.engine!r}", self.engine, ENGINES)
        if self.engine == "local" and self.address is not None:
            raise UsageError("an address needs a cluster: choose the dask or the ray engine")
        if self.n_jobs == 0:
            raise UsageError("a sweep needs at least one job at a time")
        if not -1 <= self.n_jobs <= MOST_JOBS:
            raise UsageError(f"{self.n_jobs:,} jobs at a time: choose from 1 to {MOST_JOBS}, or -1 for all cores")


def run_sweep(
    jobs: Sequence[ReplayJob],
    spread: SweepWorkers | None = None,
    *,
    on_done: Callable[[int, int], None] | None = None,
) -> list[ReplayResult]:
    """Run replays and return their results in the order of the jobs.

    Parameters
    ----------
    spread
        Where; in this process if not given.
    on_done
        Called after each replay with the number done and the number of all.

    Raises
    ------
    UsageError
        If a strategy or a setting is not known, or the engine is not installed or does not answer.
    """
    results: list[ReplayResult] = []
    for result in _results(jobs, SweepWorkers() if spread is None else spread):
        results.append(result)
        if on_done is not None:
            on_done(len(results), len(jobs))
    return results


@dataclass(frozen=True, slots=True)
class Refused:
    """A replay that cannot be made, and why."""

    strategy: str
    conf: str | None
    reason: str


def attempt(job: ReplayJob) -> ReplayResult | Refused:
    """Run one replay; what the simulator does not cover is said, not raised."""
    try:
        return _run(job)
    except MemscopeError as error:
        return Refused(job.strategy, job.options.conf, str(error))


def _run(job: ReplayJob) -> ReplayResult:
    return replay(job.lifetimes, job.strategy, job.options)


def _results(jobs: Sequence[ReplayJob], spread: SweepWorkers) -> Iterator[ReplayResult]:
    if spread.engine == "local" and (spread.n_jobs == 1 or len(jobs) < 2):
        yield from map(_run, jobs)
        return
    import joblib

    with _cluster(jobs, spread):
        # Each process starts once, so that jobs are handed out one by one.
        options: dict[str, Any] = {"return_as": "generator"} if spread.engine == "local" else {}
        n_jobs = spread.n_jobs if spread.engine == "local" or spread.n_jobs != 1 else -1
        if spread.engine == "local":
            n_jobs = min(n_jobs, len(jobs))
        yield from joblib.Parallel(n_jobs=n_jobs, batch_size=1, **options)(joblib.delayed(_run)(job) for job in jobs)


def _cluster(jobs: Sequence[ReplayJob], spread: SweepWorkers) -> AbstractContextManager[Any]:
    if spread.engine == "dask":
        return _dask(jobs, spread.address)
    if spread.engine == "ray":
        return _ray(spread.address)
    return nullcontext()


@contextmanager
def _dask(jobs: Sequence[ReplayJob], address: str | None) -> Iterator[None]:
    with needed_for("the dask engine", "dask"):
        from distributed import Client
    import joblib

    try:
        client = Client(address, timeout="10s") if address else Client(processes=True, dashboard_address=None)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"no dask scheduler answers at {address}: {error}") from error
    with client:
        traces = list({id(job.lifetimes): job.lifetimes for job in jobs}.values())
        with joblib.parallel_config(backend="dask", scatter=traces):
            yield


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    with needed_for("the ray engine", "ray"):
        import ray
        from ray.util.joblib import register_ray
    import joblib

    was_running = ray.is_initialized()
    if not was_running:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        except (ConnectionError, ValueError) as error:
            raise UsageError(f"no ray cluster answers at {address}: {error}") from error
    register_ray()
    try:
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        if not was_running:
            ray.shutdown()
