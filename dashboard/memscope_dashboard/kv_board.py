"""What the simulation's controls ask for, and what was simulated for all pages: each replay once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Any, TypeVar

from memscope.errors import MemscopeError, UsageError
from memscope.figures.serving_curves import ServingCurve, serving_curve, without_timeline
from memscope.gpus import DEFAULT_GPU, find_gpu
from memscope.recently_used import RecentlyUsed
from memscope.serving.budget import DEFAULT_UTILISATION, BudgetInputs
from memscope.serving.managers import MANAGERS, MAX_LENGTH, PAGE_SIZES
from memscope.serving.model_config import ModelConfig, read_model_config
from memscope.serving.presets import PRESETS
from memscope.serving.question import CONTEXT_ESTIMATE, ServingPlan, ServingQuestion, plan_serving
from memscope.serving.requests import LENGTHS, GeneratorOptions, RequestTable, generate_requests
from memscope.serving.result import KvResult
from memscope.serving.scheduler import SchedulerOptions
from memscope.serving.simulate import KvJob, simulate
from memscope.units import MiB, parse_bytes
from memscope_dashboard.jobs import Job, Jobs, Progress, Report
from memscope_dashboard.kv_uploads import UPLOAD_PREFIX, Uploads

_IDLE = Progress("done")
_N_PLANS = 8
_N_OUTCOMES = 96
MAX_REQUESTS = 100_000
"""Requests of one simulation that a page can ask for; more are for the command line."""

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class RequestsAsked:
    """The requests to serve: made with a seed, or the first ``n`` of a file that was sent, ``speed_up`` times as fast.

    Attributes
    ----------
    upload
        Id of the file, None to make requests.
    n_first
        None for all of the file.
    """

    made: GeneratorOptions = field(default_factory=GeneratorOptions)
    seed: int = 0
    upload: str | None = None
    n_first: int | None = None
    speed_up: float = 1.0


@dataclass(frozen=True, slots=True)
class ServingAsked:
    """What the controls ask for.

    Attributes
    ----------
    model
        A preset's name, or the id of a configuration that was sent.
    capacity_bytes, weight_bytes, max_length
        None for the GPU's, the counted and the model's.
    managers
        Names in the registry; the default ones if empty.
    """

    model: str
    gpu: str = DEFAULT_GPU
    capacity_bytes: int | None = None
    utilisation_frac: float = DEFAULT_UTILISATION
    weight_format: str = "none"
    weight_bytes: int | None = None
    kv_dtype: str = "bf16"
    tensor_parallel: int = 1
    max_length: int | None = None
    managers: tuple[str, ...] = ()
    block_sizes: tuple[int, ...] = ()
    page_bytes: int = 2 * MiB
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    requests: RequestsAsked = field(default_factory=RequestsAsked)


@dataclass(frozen=True, slots=True)
class ServingOutcome:
    """What came of one replay.

    Attributes
    ----------
    manager, block_size
        Which; the block size is None where the manager has no blocks.
    result
        Without its timeline, of which ``curve`` keeps what can be drawn; None if there is a ``problem``.
    """

    manager: str
    block_size: int | None
    result: KvResult | None
    curve: ServingCurve | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class KvState:
    """The board at a moment, for what was asked.

    Attributes
    ----------
    outcomes
        Of the plan's jobs, in their order; None for those that are not done.
    running
        How far the work on this question is, in requests over all replays that were missing.
    at
        The manager that is replayed now, empty if none is.
    """

    plan: ServingPlan
    outcomes: tuple[ServingOutcome | None, ...]
    running: Progress
    at: str = ""

    @property
    def n_done(self) -> int:
        """Replays that are done."""
        return sum(outcome is not None for outcome in self.outcomes)

    @property
    def done(self) -> tuple[ServingOutcome, ...]:
        """The replays that are done, in order."""
        return tuple(outcome for outcome in self.outcomes if outcome is not None)

    @property
    def results(self) -> tuple[KvResult, ...]:
        """What those found that could be made."""
        return tuple(outcome.result for outcome in self.done if outcome.result is not None)


class KvBoard:
    """The simulations of serving, made in the background one after the other.

    Parameters
    ----------
    jobs
        Where its work is started.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.uploads = Uploads()
        self._jobs = jobs
        self._turn = Lock()
        self._guard = RLock()
        self._plans: RecentlyUsed[ServingAsked, ServingPlan] = RecentlyUsed(_N_PLANS)
        self._requests: RecentlyUsed[RequestsAsked, RequestTable] = RecentlyUsed(_N_PLANS)
        self._outcomes: RecentlyUsed[Hashable, ServingOutcome] = RecentlyUsed(_N_OUTCOMES)
        self._names: RecentlyUsed[str, ServingAsked] = RecentlyUsed(_N_PLANS)
        self._job: Job | None = None
        self._asked: ServingAsked | None = None
        self._at = ""

    def plan(self, asked: ServingAsked) -> ServingPlan:
        """Work a question out up to its replays; the last few are kept.

        Raises
        ------
        MemscopeError
            If it cannot be answered.
        """
        return self._kept(self._plans, asked, lambda: plan_serving(self._question(asked)))

    def run(self, asked: ServingAsked) -> None:
        """See to it that a question is answered; the work on another one is dropped."""
        plan = self.plan(asked)
        with self._guard:
            is_on_its_way = asked == self._asked and self._job is not None and self._job.progress.is_active
            if is_on_its_way:
                return
            if self._job is not None:
                self._job.cancel()
            self._asked, self._job, self._at = asked, None, ""
            missing = [job for job in plan.jobs if _key(asked, job) not in self._outcomes]
            if missing:
                self._job = self._jobs.start(lambda report: self._serve(asked, missing, report), self._turn)

    def cancel(self) -> None:
        """Drop the replays that are still to come, and the one that runs."""
        with self._guard:
            if self._job is not None:
                self._job.cancel()

    def state(self, asked: ServingAsked) -> KvState:
        """What is known of what was asked for.

        Raises
        ------
        MemscopeError
            If it cannot be answered.
        """
        plan = self.plan(asked)
        with self._guard:
            is_this = self._job is not None and asked == self._asked
            running = self._job.progress if is_this and self._job is not None else _IDLE
            outcomes = tuple(self._outcomes.get(_key(asked, job)) for job in plan.jobs)
            return KvState(plan, outcomes, running, self._at if running.is_active else "")

    def name(self, asked: ServingAsked) -> str:
        """A short text by which a page remembers a question."""
        text = f"{hash(asked) & (1 << 64) - 1:016x}"
        with self._guard:
            self._names.put(text, asked)
        return text

    def named(self, text: str | None) -> ServingAsked | None:
        """The question of that name; None if it is not known any longer."""
        with self._guard:
            return None if text is None else self._names.get(text)

    def _question(self, asked: ServingAsked) -> ServingQuestion:
        gpu = find_gpu(asked.gpu)
        memory = BudgetInputs(
            total_bytes=asked.capacity_bytes or gpu.total_bytes,
            utilisation_frac=asked.utilisation_frac,
            context_bytes=gpu.context_bytes,
            context_source=CONTEXT_ESTIMATE,
            weight_format=asked.weight_format,
            weight_bytes=asked.weight_bytes,
        )
        return ServingQuestion(
            self._config(asked.model),
            gpu.name,
            memory,
            kv_dtype=asked.kv_dtype,
            tensor_parallel=asked.tensor_parallel,
            max_length=asked.max_length,
            managers=asked.managers,
            block_sizes=asked.block_sizes,
            page_bytes=asked.page_bytes,
            scheduler=asked.scheduler,
            requests=self._kept(self._requests, asked.requests, lambda: self._table(asked.requests)),
        )

    def _config(self, model: str) -> ModelConfig:
        if model.startswith(UPLOAD_PREFIX):
            return self.uploads.config(model)
        if model not in PRESETS:  # a path never comes from the browser
            raise UsageError(f"there is no model {model!r}: choose one, or send its config.json")
        return read_model_config(model)

    def _table(self, asked: RequestsAsked) -> RequestTable:
        if asked.upload is None:
            return generate_requests(asked.made, asked.seed)
        requests = self.uploads.requests(asked.upload)
        if asked.n_first is not None:
            requests = requests.first(asked.n_first)
        if len(requests) > MAX_REQUESTS:
            raise UsageError(
                f"{requests.source} has {len(requests):,} requests: name how many of the first to serve, at most "
                f"{MAX_REQUESTS:,}, or use memscope serving"
            )
        return requests.faster(asked.speed_up) if asked.speed_up != 1 else requests

    def _kept(self, kept: RecentlyUsed[Key, Kept], key: Key, make: Callable[[], Kept]) -> Kept:
        with self._guard:
            return kept.get_or_make(key, make)

    def _serve(self, asked: ServingAsked, jobs: Sequence[KvJob], report: Report) -> None:
        n_all, n_before = sum(len(job.requests) for job in jobs), 0
        for job in jobs:
            with self._guard:
                self._at = job.manager
            start = n_before

            # A replay tells its end too: the work is not done before the outcome is kept.
            def tell(n_done: int, _n: int, start: int = start) -> None:
                report(min(start + n_done, n_all - 1), n_all)

            outcome = _outcome(job, tell)
            n_before += len(job.requests)
            with self._guard:
                self._outcomes.put(_key(asked, job), outcome)
            report(n_before, n_all)


def _key(asked: ServingAsked, job: KvJob) -> Hashable:
    """Everything that a replay depends on."""
    has_blocks, options = MANAGERS[job.manager].has_blocks, job.options
    block_size = options.block_size if has_blocks else None
    page_bytes = options.page_bytes if job.manager == "virtual" else None
    sizes = (block_size, page_bytes, options.max_length)
    return (job.manager, sizes, job.shape, job.kv_bytes, job.scheduler, job.cost, asked.requests)


def _outcome(job: KvJob, on_done: Callable[[int, int], None]) -> ServingOutcome:
    block_size = job.options.block_size if MANAGERS[job.manager].has_blocks else None
    try:
        result = simulate(job, on_done)
    except MemscopeError as error:
        return ServingOutcome(job.manager, block_size, None, None, problem=str(error))
    return ServingOutcome(job.manager, block_size, without_timeline(result), serving_curve(result))


FROM_FILE = "file"
"""Value of the choice of requests that stands for a file that was sent."""
DEFAULT_N_REQUESTS = 1000
DEFAULT_RATE = 40
"""So many a second are more than a whole region for each request can take in, and less than blocks on demand can."""
_MAX_PROMPT_TOKENS = 50_000_000
"""Of one simulation: each chunk of 16 of them is told apart, which takes memory."""
_MAX_COUNT = 1 << 20
_MAX_SEED = (1 << 31) - 1
_MAX_BLOCK_SIZES = 8

Errors = dict[str, str]


class _Reader:
    """Reads values one by one, and keeps what is wrong with them by name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.errors: Errors = {}

    def text(self, name: str, default: str) -> str:
        return str(self._values.get(name) or default)

    def list(self, name: str) -> list[str]:
        return [str(item) for item in self._values.get(name) or ()]

    def size(self, name: str) -> int | None:
        text = self._values.get(name)
        try:
            found = parse_bytes(str(text)) if text and str(text).strip() else None
        except UsageError as error:
            self.errors[name] = str(error)
            return None
        if found == 0:
            self.errors[name] = "more than 0 is needed"
        return found

    def number(self, name: str, default: float | None, least: float, most: float) -> float | None:
        """A number from ``least`` to ``most``; the default where the control is empty."""
        value = self._values.get(name)
        if value is None or value == "":
            return default
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        if not least <= found <= most:
            self.errors[name] = f"a number from {least:g} to {most:,.0f}"
            return default
        return found

    def whole(self, name: str, default: int | None, least: int = 1, most: int = _MAX_COUNT) -> int | None:
        """A whole number, like :meth:`number`."""
        found = self.number(name, default, least, most)
        if found is not None and found != int(found):
            self.errors[name] = "a whole number"
            return default
        return None if found is None else int(found)


def asked_of(values: Mapping[str, Any]) -> tuple[ServingAsked | None, Errors]:
    """What the controls ask for, None if something is wrong, and what that is by the control's name."""
    read = _Reader(values)
    managers = tuple(name for name in MANAGERS if name in read.list("managers"))
    has_blocks = any(MANAGERS[name].has_blocks for name in managers or MANAGERS)
    block_sizes = _block_sizes(read)
    scheduler = _scheduler(read)
    requests = _requests(read)
    asked = ServingAsked(
        model=read.text("model", ""),
        gpu=read.text("gpu", DEFAULT_GPU),
        capacity_bytes=read.size("capacity"),
        utilisation_frac=(read.number("utilisation", 90, 1, 100) or 0) / 100,
        weight_format=read.text("weights", "none"),
        weight_bytes=read.size("weight-size"),
        kv_dtype=read.text("kv-dtype", "bf16"),
        tensor_parallel=read.whole("tensor-parallel", 1, 1, 1024) or 1,
        max_length=read.whole("max-length", None, 1, MAX_LENGTH),
        managers=managers,
        block_sizes=block_sizes if has_blocks else (),
        page_bytes=_page_bytes(read),
        scheduler=scheduler or SchedulerOptions(),
        requests=requests or RequestsAsked(),
    )
    is_complete = not read.errors and scheduler is not None and requests is not None
    return (asked if is_complete else None), read.errors


def _page_bytes(read: _Reader) -> int:
    known = {str(size): size for size in PAGE_SIZES}
    return known.get(read.text("page", ""), PAGE_SIZES[-1])


def _block_sizes(read: _Reader) -> tuple[int, ...]:
    sizes = []
    for text in read.list("block-sizes"):
        number = text.strip().replace(",", "")
        if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MAX_LENGTH:
            read.errors["block-sizes"] = f"{text!r} is not a number of tokens"
            return ()
        sizes.append(int(number))
    if len(set(sizes)) > _MAX_BLOCK_SIZES:
        read.errors["block-sizes"] = f"at most {_MAX_BLOCK_SIZES} at a time"
    return tuple(sorted(set(sizes)))


def _scheduler(read: _Reader) -> SchedulerOptions | None:
    is_swap = read.text("preemption", "recompute") == "swap"
    swap_bytes = read.size("swap")
    if is_swap and swap_bytes is None:
        read.errors.setdefault("swap", "swapping needs some")
        return None
    return SchedulerOptions(
        policy=read.text("scheduler", "chunked"),
        max_requests=read.whole("max-requests", 256) or 1,
        max_step_tokens=read.whole("step-tokens", 8192) or 1,
        preemption="swap" if is_swap else "recompute",
        swap_bytes=swap_bytes or 0 if is_swap else 0,
    )


def _requests(read: _Reader) -> RequestsAsked | None:
    lengths = read.text("lengths", "sharegpt")
    if lengths == FROM_FILE:
        upload = read.text("requests-file", "")
        first = read.whole("first", None, 1, MAX_REQUESTS)
        speed_up = read.number("speed-up", 1, 0.001, 1e6) or 1.0
        return RequestsAsked(upload=upload, n_first=first, speed_up=speed_up) if upload else None
    shared_frac = (read.number("shared", 0, 0, 100) or 0) / 100
    made = GeneratorOptions(
        n_requests=read.whole("n", DEFAULT_N_REQUESTS, 1, _most_requests(lengths, shared_frac)) or 1,
        rate_per_s=read.number("rate", DEFAULT_RATE, 0.001, 1e6) or 1.0,
        lengths=lengths,
        burstiness=read.number("burstiness", 1, 0.01, 1e4) or 1.0,
        shared_prefix_frac=shared_frac,
    )
    return RequestsAsked(made, read.whole("seed", 0, 0, _MAX_SEED) or 0)


def _most_requests(lengths: str, shared_frac: float) -> int:
    """How many requests of such lengths can be made at once."""
    if lengths not in LENGTHS:
        return MAX_REQUESTS
    each = LENGTHS[lengths][0].mean + shared_frac * GeneratorOptions().prefix_tokens
    return min(MAX_REQUESTS, int(_MAX_PROMPT_TOKENS / each))
