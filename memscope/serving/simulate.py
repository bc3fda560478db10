"""Replaying a request trace under one way to manage key/value memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from memscope._kernels import kv_layout as at
from memscope._kernels import kv_serving as kernel
from memscope._kernels.kv_tensors import NoTensors, Tensors
from memscope.errors import FieldError, InvariantError, UsageError
from memscope.serving.managers import (
    MANAGERS,
    ManagerOptions,
    Memory,
    make_tensors,
    manager_named,
    n_retries,
    peak_reserved_bytes,
)
from memscope.serving.requests import RequestTable
from memscope.serving.result import KvResult, KvWaste, make_timeline
from memscope.serving.scheduler import CostModel, SchedulerOptions
from memscope.serving.shapes import KvShape
from memscope.trace.tables import BoolArray, Int64Array, frozen_array
from memscope.units import format_bytes


def never_fits(memory: Memory, requests: RequestTable, capacity: int) -> BoolArray:
    """Whether requests, each with all its samples, fit not even alone: bool (n,). Capacity is in units."""
    samples = requests.n_samples
    if memory.kind == at.KIND_CONTIGUOUS:
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


def n_regions(memory: Memory, capacity: int) -> int:
    """How many of the largest region fit at once (contiguous kinds)."""
    granules = -(-int(memory.region.max()) // memory.granule)
    return capacity // memory.granule // (1 << max(granules - 1, 0).bit_length())


def longest_context(memory: Memory, capacity: int, reserves: bool) -> int:
    """The longest sequence, in tokens, that fits alone, up to the longest that is accepted.

    ``reserves`` says whether every request takes the memory of the longest one.
    """
    if memory.kind == at.KIND_CONTIGUOUS:
        needed, most = -(-memory.tokens_of // memory.granule), _largest_block(memory, capacity)
        if reserves:
            return len(needed) - 1 if needed[-1] <= most else 0
    else:
        needed, most = _most_units(memory), capacity
    return int(np.searchsorted(needed, most, side="right")) - 1


def largest_batch(memory: Memory, capacity: int, final_tokens: int) -> int:
    """How many requests of so many tokens in the end, or of the mean region, fit together."""
    if memory.kind != at.KIND_CONTIGUOUS:
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


_N_ROWS = 1 << 12
"""Steps between two looks at the integrals: 80 GiB in units of 2 KiB over 4,096 steps of a minute sum to less than 2⁶³.
What does not sum up exactly is noticed at the end."""

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
    serving = _serving(job, memory, capacity, is_refused)
    kernel.prepare(serving)
    totals, timeline = _run(serving, on_done)
    _check(serving, totals, capacity)
    if not serving.counters[at.C_N_DONE]:
        raise UsageError(f"{job.manager}: every request runs out of memory, even alone")
    return _result(job, memory, serving, totals, timeline, manager.has_blocks)


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


def _serving(job: KvJob, memory: Memory, capacity: int, is_refused: BoolArray) -> at.Serving:
    requests, scheduler = job.requests, job.scheduler
    shares = memory.kind == at.KIND_PREFIX and requests.has_prefixes
    is_contiguous = memory.kind == at.KIND_CONTIGUOUS
    n_free_blocks = scheduler.max_requests + at.MAX_ORDERS if is_contiguous else 0
    return at.Serving(
        params=_params(job, memory, capacity, is_refused),
        costs=_costs(job.cost, memory.unit_bytes),
        counters=np.zeros(at.N_COUNTERS, np.int64),
        integrals=np.zeros(at.N_INTEGRALS, np.int64),
        requests=_request_rows(requests, memory, is_refused),
        lists=np.zeros((at.N_LISTS, scheduler.max_requests), np.int64),
        sizes=np.stack((memory.alloc_of, memory.tokens_of)),
        free_blocks=np.zeros((at.MAX_ORDERS, 1 + n_free_blocks), np.int64),
        addresses=np.zeros(int(requests.n_samples.sum()) if is_contiguous else 0, np.int64),
        windows=np.array(memory.windows, np.int64).reshape(-1, at.N_WINDOW_COLUMNS),
        chunk_id=requests.chunk_id if shares else frozen_array(np.empty(0, np.int64), np.int64),
        nodes=_no_nodes(requests.n_chunks * max(1, requests.chunk_tokens // memory.node_tokens) if shares else 0),
        timeline=np.zeros((_N_ROWS, at.N_TIMELINE), np.int64),
        store=make_tensors(job.shape, len(requests), scheduler.max_requests, capacity * memory.unit_bytes)
        if memory.kind == at.KIND_TENSORS
        else NoTensors(),
    )


def _params(job: KvJob, memory: Memory, capacity: int, is_refused: BoolArray) -> Int64Array:
    """The rules of the manager and the scheduler, as the kernel reads them."""
    requests, scheduler = job.requests, job.scheduler
    is_prefix, is_chunked = memory.kind == at.KIND_PREFIX, scheduler.policy == "chunked"
    params = np.zeros(at.N_PARAMS, np.int64)
    params[at.P_KIND] = memory.kind
    params[at.P_CAPACITY] = capacity
    params[at.P_MAX_RUNNING] = scheduler.max_requests
    params[at.P_STEP_TOKENS] = scheduler.max_step_tokens if is_chunked else _whole_step(job, is_refused)
    params[at.P_IS_CHUNKED] = int(is_chunked)
    params[at.P_IS_STATIC] = int(scheduler.policy == "static")
    params[at.P_NODE_TOKENS] = memory.node_tokens
    params[at.P_PRIVATE_TOKENS] = memory.private_tokens
    params[at.P_CHUNK_TOKENS] = requests.chunk_tokens if is_prefix else 0
    params[at.P_GRANULE] = memory.granule
    params[at.P_SWAP_CAPACITY] = (
        0 if is_prefix or memory.kind == at.KIND_TENSORS else scheduler.swap_bytes // memory.unit_bytes
    )
    params[at.P_TENSOR_UNITS] = memory.tensor_units
    params[at.P_SHARES_SAMPLES] = int(memory.shares_samples)
    params[at.P_IS_PADDED] = int(memory.pads and scheduler.policy == "static")
    params[at.P_LONGEST] = len(memory.tokens_of) - 1
    params[at.P_REGIONS] = n_regions(memory, capacity) if memory.kind == at.KIND_CONTIGUOUS else 0
    return params


def _costs(cost: CostModel, unit_bytes: int) -> npt.NDArray[np.float64]:
    """What a step costs, a microsecond or a unit at a time."""
    costs = np.zeros(at.N_COSTS, np.float64)
    costs[at.F_FLOPS_PER_US] = cost.flops_per_s / 1e6
    costs[at.F_BYTES_PER_US] = cost.bytes_per_s / 1e6
    costs[at.F_FLOPS_PER_TOKEN] = cost.flops_per_token
    costs[at.F_FLOPS_PER_PAIR] = cost.flops_per_token_pair
    costs[at.F_WEIGHT_BYTES] = cost.weight_bytes
    costs[at.F_OVERHEAD_US] = cost.overhead_s * 1e6
    costs[at.F_SWAP_BYTES_PER_US] = cost.swap_bytes_per_s / 1e6
    costs[at.F_UNIT_BYTES] = unit_bytes
    return costs


def _whole_step(job: KvJob, is_refused: BoolArray) -> int:
    """Tokens of a step where prompts are not spread: room for the longest sequences of a request at once."""
    requests = job.requests
    served = (requests.n_samples * requests.cached_tokens)[~is_refused]
    return max(job.scheduler.max_step_tokens, job.scheduler.max_requests, int(served.max()) + 1)


def _request_rows(requests: RequestTable, memory: Memory, is_refused: BoolArray) -> Int64Array:
    """A row for each request, as the kernel keeps it."""
    rows = np.zeros((len(requests), at.N_REQUEST_COLUMNS), np.int64)
    rows[:, at.R_ARRIVAL] = requests.arrival_us
    rows[:, at.R_PROMPT] = requests.prompt_tokens
    rows[:, at.R_OUTPUT] = requests.output_tokens
    rows[:, at.R_IS_REFUSED] = is_refused
    rows[:, [at.R_FIRST_TOKEN_US, at.R_FINISH_US]] = at.NONE
    rows[:, at.R_SAMPLES] = requests.n_samples
    rows[:, at.R_FIRST_ADDRESS] = np.cumsum(requests.n_samples) - requests.n_samples
    if len(memory.region):
        rows[:, at.R_REGION] = memory.region
    if requests.has_prefixes:
        rows[:, at.R_CHUNK_START] = requests.chunk_start[:-1]
    return rows


def _no_nodes(n_keys: int) -> npt.NDArray[np.int32]:
    """Shared blocks of which none is cached: the ring holds its end alone."""
    nodes = np.full((at.N_NODE_ROWS, n_keys + 1), n_keys, np.int32)
    nodes[at.K_READERS] = at.NONE
    return nodes


def _run(serving: at.Serving, on_done: OnDone | None) -> tuple[list[int], Int64Array]:
    """Serve everything: the integrals in whole Python numbers, and the timeline (n_steps, N_TIMELINE)."""
    totals, parts = [0] * at.N_INTEGRALS, []
    status, n_all = at.STATUS_PAUSE, len(serving.requests)
    while status == at.STATUS_PAUSE:
        status, n_rows = kernel.serve(serving)
        totals = [total + int(part) for total, part in zip(totals, serving.integrals, strict=True)]
        serving.integrals[:] = 0
        parts.append(serving.timeline[:n_rows].copy())
        if on_done is not None:
            on_done(int(serving.counters[at.C_N_DONE] + serving.counters[at.C_N_REFUSED]), n_all)
    if status != at.STATUS_DONE:
        raise InvariantError("a step of a serving replay had work and did none of it")
    return totals, np.concatenate(parts)


def _check(serving: at.Serving, totals: list[int], capacity: int) -> None:
    """What must hold at the end: everything given back, every request served or refused, and time accounted for."""
    counters = serving.counters
    held = ("C_ALLOC", "C_TOKENS", "C_FUTURE", "C_SLACK", "C_SWAPPED", "C_LOGICAL", "C_SAVED")
    for name in (*held, "C_N_RUNNING", "C_N_SEQUENCES"):
        if counters[getattr(at, name)]:
            raise InvariantError(f"a serving replay ends with {name} {counters[getattr(at, name)]}")
    if counters[at.C_N_DONE] + counters[at.C_N_REFUSED] != len(serving.requests):
        raise InvariantError("a serving replay lost a request")
    if sum(totals) != capacity * int(counters[at.C_NOW]):
        raise InvariantError("the parts of key/value memory do not sum to all of it")


def _result(
    job: KvJob, memory: Memory, serving: at.Serving, totals: list[int], rows: Int64Array, has_blocks: bool
) -> KvResult:
    counters, unit = [int(n) for n in serving.counters], memory.unit_bytes
    capacity = int(serving.params[at.P_CAPACITY])
    served = serving.requests[serving.requests[:, at.R_IS_REFUSED] == 0]
    shares = memory.kind == at.KIND_PREFIX and job.requests.has_prefixes
    mean_final = int(np.rint((served[:, at.R_PROMPT] + served[:, at.R_OUTPUT] - 1).mean()))
    weighted = int(np.dot(rows[:, at.T_TIME] - rows[:, at.T_START], rows[:, at.T_RUNNING]))
    is_tensors = memory.kind == at.KIND_TENSORS
    return KvResult(
        manager=job.manager,
        block_size=job.options.block_size if has_blocks else None,
        page_bytes=job.options.page_bytes if job.manager == "virtual" else None,
        capacity_bytes=capacity * unit,
        waste=KvWaste(*(total * unit for total in totals)),
        timeline=make_timeline(rows, capacity, unit),
        n_requests=len(job.requests),
        n_completed=counters[at.C_N_DONE],
        n_refused=counters[at.C_N_REFUSED],
        n_steps=counters[at.C_N_STEPS],
        n_preemptions=counters[at.C_N_PREEMPTIONS],
        n_swaps=counters[at.C_N_SWAPS],
        n_recomputed_tokens=counters[at.C_N_RECOMPUTED],
        n_evictions=counters[at.C_N_EVICTIONS],
        n_hit_blocks=counters[at.C_N_HIT] if shares else None,
        n_queried_blocks=counters[at.C_N_QUERIED] if shares else None,
        hit_tokens=counters[at.C_N_HIT] * memory.node_tokens if shares else None,
        prompt_tokens=int(served[:, at.R_PROMPT].sum()),
        n_generated_tokens=counters[at.C_N_GENERATED],
        n_block_copies=counters[at.C_N_COPIES],
        n_pad_tokens=counters[at.C_N_PADS],
        n_computed_tokens=counters[at.C_N_COMPUTED],
        peak_concurrent_requests=counters[at.C_PEAK_RUNNING],
        mean_concurrent_requests=weighted / counters[at.C_NOW] if counters[at.C_NOW] else 0.0,
        peak_alloc_bytes=counters[at.C_PEAK_ALLOC] * unit,
        peak_token_bytes=counters[at.C_PEAK_TOKENS] * unit,
        longest_context_tokens=None if is_tensors else longest_context(memory, capacity, job.manager == "max-length"),
        largest_batch_requests=None if is_tensors else largest_batch(memory, capacity, mean_final),
        mean_final_tokens=mean_final,
        makespan_us=counters[at.C_NOW],
        busy_us=counters[at.C_BUSY_US],
        first_token_us=frozen_array(served[:, at.R_FIRST_TOKEN_US] - served[:, at.R_ARRIVAL], np.int64),
        notes=_notes(job, memory, serving, shares),
    )


def _notes(job: KvJob, memory: Memory, serving: at.Serving, shares: bool) -> tuple[str, ...]:
    """What is modelled otherwise than one would think, or would not be seen in the numbers."""
    notes = []
    if isinstance(serving.store, Tensors):
        notes.append(
            f"the allocator reserved {format_bytes(peak_reserved_bytes(serving.store))} at its peak, and gave its "
            f"unused memory back {n_retries(serving.store):,} times to serve a request"
        )
    notes += memory.notes
    if memory.kind == at.KIND_PREFIX and not shares:
        notes.append("the trace does not tell which requests begin alike: nothing is shared between them")
    if memory.kind == at.KIND_PREFIX and job.scheduler.preemption == "swap":
        notes.append("preempted requests are computed again, from what is still cached")
    if job.requests.n_samples.max() > 1 and not memory.shares_samples:
        notes.append("every sample of a request keeps its prompt for itself")
    if serving.params[at.P_IS_PADDED]:
        n_pads = int(serving.counters[at.C_N_PADS])
        notes.append(f"batches are padded to their longest prompt: {n_pads:,} tokens that hold nothing, internal waste")
    return tuple(notes)


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

    yield from Parallel(n_jobs=n_jobs, return_as="generator")(delayed(simulate)(job) for job in jobs)
