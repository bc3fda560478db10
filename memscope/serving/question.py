"""One question about serving, "how many requests can I serve?", and everything that is worked out before a replay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from memscope.errors import FieldError, UsageError
from memscope.serving._parameters import WEIGHTS_FIELD, Parameters, count_parameters
from memscope.serving.budget import Budget, BudgetInputs, make_budget
from memscope.serving.managers import ManagerOptions
from memscope.serving.model_config import ModelConfig
from memscope.serving.requests import RequestTable
from memscope.serving.scheduler import CostModel, SchedulerOptions, make_cost_model, peaks_of
from memscope.serving.shapes import KvShape
from memscope.serving.simulate import KvJob, kv_jobs
from memscope.units import MiB

DEFAULT_MAX_LENGTH = 4096
"""The longest sequence where neither the question nor the model's configuration names one."""
DEFAULT_BLOCK_SIZE = 16
CONTEXT_ESTIMATE = "estimate: the CUDA context and kernels"
"""Source of a context's bytes that the catalogue of GPUs models."""


@dataclass(frozen=True, slots=True)
class ServingQuestion:
    """What is to be served, by which device, and how its key/value memory is managed.

    Attributes
    ----------
    config
        The model.
    gpu_name
        The device's name; its speed is looked up by it where ``tflops`` and ``bandwidth_bytes_per_s`` are not given.
    memory
        The device's memory and what of it is not for keys and values. Its step limits are the scheduler's.
    kv_dtype, tensor_parallel
        How a token is kept, and the GPUs that share the model.
    max_length
        The longest sequence in tokens; None for the model's own.
    managers
        Names in the registry; the default ones if empty.
    block_sizes
        Tokens of a block, one replay for each where a manager has blocks; one of 16 if empty.
    page_bytes
        Bytes of a physical page, for managers that map pages.
    requests
        None asks for the budget alone.
    """

    config: ModelConfig
    gpu_name: str
    memory: BudgetInputs
    kv_dtype: str = "bf16"
    tensor_parallel: int = 1
    max_length: int | None = None
    managers: tuple[str, ...] = ()
    block_sizes: tuple[int, ...] = ()
    page_bytes: int = 2 * MiB
    scheduler: SchedulerOptions = field(default_factory=SchedulerOptions)
    requests: RequestTable | None = None
    tflops: float | None = None
    bandwidth_bytes_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """A question worked out up to its replays.

    Attributes
    ----------
    shape
        The cache of a token, layer by layer.
    parameters
        None where they are not known, and the weights' bytes are given.
    max_length, block_size
        In tokens; of several block sizes the first.
    cost
        None without requests.
    jobs
        The replays that answer the question, none without requests.
    """

    question: ServingQuestion
    shape: KvShape
    parameters: Parameters | None
    budget: Budget
    max_length: int
    block_size: int
    cost: CostModel | None
    jobs: tuple[KvJob, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that the cache holds while every window still holds them."""
        return self.budget.kv_bytes // self.shape.bytes_per_token

    @property
    def n_blocks(self) -> int:
        """Whole blocks in the cache."""
        return self.n_tokens // self.block_size

    @property
    def longest_missing_bytes(self) -> int:
        """What the cache lacks for one sequence of the longest length, in blocks; 0 where it fits."""
        needed = self.shape.paged_bytes_table(self.max_length, self.block_size)
        return max(int(needed.max()) - self.budget.kv_bytes, 0)

    @property
    def longest_fitting(self) -> int:
        """Tokens of the longest sequence, of those accepted, that fits alone, in blocks."""
        is_more = self.shape.paged_bytes_table(self.max_length, self.block_size) > self.budget.kv_bytes
        return int(np.argmax(is_more)) - 1 if np.any(is_more) else self.max_length


def plan_serving(question: ServingQuestion) -> ServingPlan:
    """Share out the device's memory and name the replays that answer a question.

    Raises
    ------
    UsageError
        If nothing is left for keys and values, a manager is not known, an option is out of its range, or something that
        is needed is neither known nor given.
    """
    config, scheduler = question.config, question.scheduler
    shape = KvShape(config.kv_layers(), question.kv_dtype, question.tensor_parallel)
    parameters = _parameters(config, is_needed=question.memory.weight_bytes is None)
    memory = replace(question.memory, n_step_tokens=scheduler.max_step_tokens, n_step_requests=scheduler.max_requests)
    budget = make_budget(config, shape, parameters, memory)
    max_length = question.max_length or config.max_length or DEFAULT_MAX_LENGTH
    options = ManagerOptions((question.block_sizes or (DEFAULT_BLOCK_SIZE,))[0], question.page_bytes, max_length)
    cost: CostModel | None = None
    jobs: tuple[KvJob, ...] = ()
    if question.requests is not None:
        peaks = peaks_of(question.gpu_name, question.tflops, question.bandwidth_bytes_per_s)
        weight_bytes = _weight_bytes(question, budget, parameters)
        cost = make_cost_model(config, parameters, weight_bytes, peaks, shape.tensor_parallel)
        template = KvJob(shape, question.requests, budget.kv_bytes, "paged", options, scheduler, cost)
        jobs = tuple(kv_jobs(template, question.managers, question.block_sizes))
    return ServingPlan(question, shape, parameters, budget, max_length, options.block_size, cost, jobs)


def _parameters(config: ModelConfig, *, is_needed: bool) -> Parameters | None:
    """The model's parameters; None where they are not known and not needed."""
    try:
        return count_parameters(config)
    except UsageError:
        if is_needed:
            raise
        return None


def _weight_bytes(question: ServingQuestion, budget: Budget, parameters: Parameters | None) -> int:
    """The weights on one GPU: the budget's line, or as given or counted where the budget has none."""
    line = next((row.bytes for row in budget.rows if row.name == "weights"), None)
    known = line if line is not None else question.memory.weight_bytes
    if known is not None:
        return known
    if parameters is None:
        raise FieldError("the weights' bytes are not known: give {weight_bytes}", WEIGHTS_FIELD)
    return parameters.bytes_per_gpu(question.memory.weight_format, question.tensor_parallel)
