"""Managers side by side, and a sweep over block sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from memscope.errors import UsageError
from memscope.kv.managers import MANAGERS, manager_named
from memscope.kv.result import KvResult
from memscope.kv.simulate import KvJob, simulate

OnDone = Callable[[int, int], None]


def kv_jobs(template: KvJob, managers: Sequence[str] = (), block_sizes: Sequence[int] = ()) -> list[KvJob]:
    """One replay for each manager, and for each block size where it has blocks.

    Parameters
    ----------
    template
        Everything else; its manager is replaced, and its block size if others are given.
    managers, block_sizes
        The registry's default ones (``concat`` replays every tensor, which takes long), and the template's, if not
        given.

    Raises
    ------
    UsageError
        If a manager is not known, or block sizes are given and none of the managers has blocks.
    """
    names = tuple(dict.fromkeys(managers)) or tuple(name for name, manager in MANAGERS.items() if manager.is_default)
    chosen = [manager_named(name) for name in names]
    if block_sizes and not any(manager.has_blocks for manager in chosen):
        raise UsageError(f"{', '.join(names)}: no blocks, so --block-size decides nothing")
    jobs = []
    for manager in chosen:
        sizes = tuple(dict.fromkeys(block_sizes)) if manager.has_blocks else ()
        jobs += [
            replace(template, manager=manager.name, options=replace(template.options, block_size=size))
            for size in sizes or (template.options.block_size,)
        ]
    return jobs


def run_kv_jobs(jobs: Sequence[KvJob], n_jobs: int = 1, on_done: OnDone | None = None) -> list[KvResult]:
    """Run replays, ``n_jobs`` at a time (−1: on all cores), and return their results in the order of the jobs.

    Parameters
    ----------
    on_done
        Called with the number of requests done, over all replays, and of all.

    Raises
    ------
    UsageError
        If a replay cannot be made, or ``n_jobs`` is 0.
    """
    if n_jobs == 0:
        raise UsageError("a sweep needs at least one job at a time")
    n_all = sum(len(job.requests) for job in jobs)
    results: list[KvResult] = []
    n_before = 0

    def tell(n_done: int, _n_of_job: int) -> None:
        if on_done is not None:
            on_done(n_before + n_done, n_all)

    for result in _in_turn(jobs, tell) if n_jobs == 1 or len(jobs) == 1 else _spread(jobs, n_jobs):
        results.append(result)
        n_before += result.n_requests
        tell(0, n_all)
    return results


def _in_turn(jobs: Sequence[KvJob], tell: OnDone) -> Iterator[KvResult]:
    for job in jobs:
        yield simulate(job, tell)


def _spread(jobs: Sequence[KvJob], n_jobs: int) -> Iterator[KvResult]:
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=n_jobs, return_as="generator")(delayed(simulate)(job) for job in jobs)
