"""Replaying a request trace under one way to manage key/value memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memscope._core import serving
from memscope.errors import FieldError, InvariantError, UsageError
from memscope.serving._engine import is_padded, make_engine
from memscope.serving.managers import MANAGERS, Kind, ManagerOptions, Memory, manager_named
from memscope.serving.requests import RequestTable
from memscope.serving.result import KvResult, KvWaste, make_timeline
from memscope.serving.scheduler import CostModel, SchedulerOptions
from memscope.serving.shapes import KvShape
from memscope.trace.tables import BoolArray, Int64Array, frozen_array
from memscope.units import format_bytes


def never_fits(memory: Memory, requests: RequestTable, capacity: int) -> BoolArray:
    """Whether requests, each with all its samples, fit not even alone: bool (n,). Capacity is in units."""
    samples = requests.n_samples
    if memory.kind == Kind.REGIONS:
        granules = -(-memory.region // memory.granule)
        blocks = np.left_shift(np.int64(1), np.ceil(np.log2(np.maximum(granules, 1))).astype(np.int64))
        # Cut into powers of two, the largest first, memory holds as many blocks of one of them as divide it.
        return np.asarray(samples > capacity // memory.granule // blocks, np.bool_)
    longest = len(memory.alloc_of) - 1
    final, prompt = (np.minimum(n, longest) for n in (requests.cached_tokens, requests.prompt_tokens))
    most = _most_units(memory)
    if not memory.shares_samples:
        return np.asarray(samples * most[final] > capacity, np.bool_)
    needed = most[final]
    for i in np.flatnonzero(samples > 1):
        apart = _units_apart(memory, int(samples[i]), int(prompt[i]), int(final[i]))
        needed[i] = max(int(most[prompt[i]]), int(apart.max(initial=0)))
    return np.asarray(needed > capacity, np.bool_)


def _units_apart(memory: Memory, n_samples: int, prompt: int, final: int) -> Int64Array:
    """Units that the samples of a request take from the first token on that is not of the prompt to the last one."""
    tokens = np.arange(prompt + 1, final + 1, dtype=np.int64)
    step = memory.private_tokens
    units = n_samples * memory.alloc_of[prompt + 1 : final + 1]
    for window, size in memory.windows:
        first = np.maximum(tokens - window, 0) // step * step if window else 0
        units -= (n_samples - 1) * size * np.maximum(prompt // step * step - first, 0)
    return np.asarray(units, np.int64)


def longest_context(memory: Memory, capacity: int, reserves: bool) -> int:
    """The longest sequence, in tokens, that fits alone, up to the longest that is accepted.

    ``reserves`` says whether every request takes the memory of the longest one.
    """
    if memory.kind == Kind.REGIONS:
        needed, most = -(-memory.tokens_of // memory.granule), _largest_block(memory, capacity)
        if reserves:
            return len(needed) - 1 if needed[-1] <= most else 0
    else:
        needed, most = _most_units(memory), capacity
    return int(np.searchsorted(needed, most, side="right")) - 1


def largest_batch(memory: Memory, capacity: int, final_tokens: int) -> int:
    """How many requests of so many tokens in the end, or of the mean region, fit together."""
    if memory.kind != Kind.REGIONS:
        return int(capacity // _most_units(memory)[final_tokens])
    mean_granules = int(np.ceil(memory.region.mean() / memory.granule))
    block = 1 << max(mean_granules - 1, 0).bit_length()
    return capacity // memory.granule // block


def _largest_block(memory: Memory, capacity: int) -> int:
    granules = capacity // memory.granule
    return 1 << (granules.bit_length() - 1) if granules else 0


def _most_units(memory: Memory) -> Int64Array:
    """The most units on the way to so many tokens: a window gives blocks back, so that may lie before the end."""
    return np.asarray(np.maximum.accumulate(memory.alloc_of), np.int64)


_STEPS_BETWEEN_NEWS = 1 << 12

OnDone = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class KvJob:
    """One replay: what is served, with what memory, how."""

    shape: KvShape
    requests: RequestTable
    kv_bytes: int
    manager: str
    options: ManagerOptions
    scheduler: SchedulerOptions
    cost: CostModel


def simulate(job: KvJob, on_done: OnDone | None = None) -> KvResult:
    """Serve all requests of a trace.

    Parameters
    ----------
    on_done
        Called now and then with the number of requests done and of all.

    Raises
    ------
    UsageError
        If no request fits, or an option does not suit the manager or the trace.
    """
    manager = manager_named(job.manager)
    _check_samples(job)
    final = job.requests.cached_tokens
    is_refused = final > job.options.max_length
    longest = job.options.max_length
    memory = manager.make(job.shape, job.requests, job.options, longest)
    capacity = job.kv_bytes // memory.unit_bytes // memory.quantum * memory.quantum
    is_refused = is_refused | never_fits(memory, job.requests, capacity)
    if is_refused.all():
        raise UsageError(
            f"{job.manager}: none of {len(job.requests):,} requests fits: the longest sequence is "
            f"{job.options.max_length:,} tokens, the memory {format_bytes(capacity * memory.unit_bytes)}"
        )
    engine = make_engine(job.shape, job.requests, memory, capacity, is_refused, job.scheduler, job.cost)
    _run(engine, len(job.requests), on_done)
    waste = engine.memory_over_time()
    _check(engine, waste, len(job.requests), capacity)
    if not engine.counts.n_done:
        raise UsageError(f"{job.manager}: every request runs out of memory, even alone")
    return _result(job, memory, engine, capacity, manager.has_blocks)


def _check_samples(job: KvJob) -> None:
    """All samples of a request run at once: a step must have room for them."""
    most, scheduler = int(job.requests.n_samples.max()), job.scheduler
    room = scheduler.max_requests
    if scheduler.policy == "chunked":
        room = min(room, scheduler.max_step_tokens)
    if most > room:
        raise UsageError(
            f"{job.requests.source}: a request asks for {most:,} samples, which run together: a step of at most "
            f"{scheduler.max_requests:,} sequences and {scheduler.max_step_tokens:,} tokens has no room for them"
        )


def _run(engine: serving.Engine, n_requests: int, on_done: OnDone | None) -> None:
    """Serve everything."""
    status = serving.Status.PAUSED
    while status == serving.Status.PAUSED:
        status = engine.run(_STEPS_BETWEEN_NEWS)
        if on_done is not None:
            on_done(engine.counts.n_done + engine.counts.n_refused, n_requests)
    if status != serving.Status.DONE:
        raise InvariantError("a step of a serving replay had work and did none of it")


def _check(engine: serving.Engine, waste: tuple[int, ...], n_requests: int, capacity: int) -> None:
    """What must hold at the end: everything given back, every request served or refused, and time accounted for."""
    if not engine.is_empty:
        raise InvariantError("a serving replay ends with memory that was not given back")
    if engine.counts.n_done + engine.counts.n_refused != n_requests:
        raise InvariantError("a serving replay lost a request")
    if sum(waste) != capacity * engine.counts.now_us:
        raise InvariantError("the parts of key/value memory do not sum to all of it")


def _result(job: KvJob, memory: Memory, engine: serving.Engine, capacity: int, has_blocks: bool) -> KvResult:
    counts, prefixes, unit = engine.counts, engine.prefix_counts, memory.unit_bytes
    requests, is_served = job.requests, engine.is_refused() == 0
    shares = memory.kind is Kind.PREFIXES and requests.has_prefixes
    mean_final = int(np.rint(requests.cached_tokens[is_served].mean()))
    timeline = make_timeline(engine.steps(), capacity, unit)
    weighted = int(np.dot(timeline.duration_us, timeline.n_running))
    is_tensors = memory.kind is Kind.TENSORS
    return KvResult(
        manager=job.manager,
        block_size=job.options.block_size if has_blocks else None,
        page_bytes=job.options.page_bytes if job.manager == "virtual" else None,
        capacity_bytes=capacity * unit,
        waste=KvWaste(*(total * unit for total in engine.memory_over_time())),
        timeline=timeline,
        n_requests=len(requests),
        n_completed=counts.n_done,
        n_refused=counts.n_refused,
        n_steps=counts.n_steps,
        n_preemptions=counts.n_preemptions,
        n_swaps=counts.n_swaps,
        n_recomputed_tokens=counts.n_recomputed_tokens,
        n_evictions=prefixes.n_evictions,
        n_hit_blocks=prefixes.n_hit_blocks if shares else None,
        n_queried_blocks=prefixes.n_queried_blocks if shares else None,
        hit_tokens=prefixes.n_hit_blocks * memory.node_tokens if shares else None,
        prompt_tokens=int(requests.prompt_tokens[is_served].sum()),
        n_generated_tokens=counts.n_generated_tokens,
        n_block_copies=counts.n_copies,
        n_pad_tokens=counts.n_pad_tokens,
        n_computed_tokens=counts.n_computed_tokens,
        peak_concurrent_requests=counts.peak_running,
        mean_concurrent_requests=weighted / counts.now_us if counts.now_us else 0.0,
        peak_alloc_bytes=counts.peak_taken * unit,
        peak_token_bytes=counts.peak_tokens * unit,
        longest_context_tokens=None if is_tensors else longest_context(memory, capacity, job.manager == "max-length"),
        largest_batch_requests=None if is_tensors else largest_batch(memory, capacity, mean_final),
        mean_final_tokens=mean_final,
        makespan_us=counts.now_us,
        busy_us=counts.busy_us,
        first_token_us=frozen_array((engine.first_token_us() - requests.arrival_us)[is_served], np.int64),
        notes=_notes(job, memory, engine, shares),
    )


def _notes(job: KvJob, memory: Memory, engine: serving.Engine, shares: bool) -> tuple[str, ...]:
    """What is modelled otherwise than one would think, or would not be seen in the numbers."""
    notes = []
    if memory.kind is Kind.TENSORS:
        tensors = engine.tensor_counts
        notes.append(
            f"the allocator reserved {format_bytes(tensors.peak_reserved_bytes)} at its peak, and gave its "
            f"unused memory back {tensors.n_retries:,} times to serve a request"
        )
    notes += memory.notes
    if memory.kind is Kind.PREFIXES and not shares:
        notes.append("the trace does not tell which requests begin alike: nothing is shared between them")
    if memory.kind is Kind.PREFIXES and job.scheduler.preemption == "swap":
        notes.append("preempted requests are computed again, from what is still cached")
    if job.requests.n_samples.max() > 1 and not memory.shares_samples:
        notes.append("every sample of a request keeps its prompt for itself")
    if is_padded(memory, job.scheduler):
        n_pads = engine.counts.n_pad_tokens
        notes.append(f"batches are padded to their longest prompt: {n_pads:,} tokens that hold nothing, internal waste")
    return tuple(notes)


def kv_jobs(template: KvJob, managers: Sequence[str] = (), block_sizes: Sequence[int] = ()) -> list[KvJob]:
    """One replay for each manager, and for each block size where it has blocks.

    Parameters
    ----------
    template
        Everything else; its manager is replaced, and its block size if others are given.
    managers, block_sizes
        All of the registry, and the template's, if not given.

    Raises
    ------
    UsageError
        If a manager is not known, or block sizes are given and none of the managers has blocks.
    """
    names = tuple(dict.fromkeys(managers)) or tuple(MANAGERS)
    chosen = [manager_named(name) for name in names]
    if block_sizes and not any(manager.has_blocks for manager in chosen):
        text = "{managers}: no blocks, so {block_sizes} decides nothing"
        raise FieldError(text, {"block_sizes": "the block size"}, managers=", ".join(names))
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

    yield from Parallel(n_jobs=min(n_jobs, len(jobs)), return_as="generator")(delayed(simulate)(job) for job in jobs)
