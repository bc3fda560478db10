"""An engine of the compiled core, made for one replay."""

from __future__ import annotations

import numpy as np

from memscope._core import serving
from memscope.serving.managers import Kind, Memory, tensor_token_bytes
from memscope.serving.requests import RequestTable
from memscope.serving.scheduler import CostModel, SchedulerOptions
from memscope.serving.shapes import KvShape
from memscope.trace.tables import BoolArray


def n_regions(memory: Memory, capacity: int) -> int:
    """How many of the largest region fit at once (:attr:`Kind.REGIONS`)."""
    granules = -(-int(memory.region.max()) // memory.granule)
    return capacity // memory.granule // (1 << max(granules - 1, 0).bit_length())


def is_padded(memory: Memory, scheduler: SchedulerOptions) -> bool:
    """Whether batches are padded to their longest prompt."""
    return memory.pads and scheduler.policy == "static"


def make_engine(
    shape: KvShape,
    requests: RequestTable,
    memory: Memory,
    capacity: int,
    is_refused: BoolArray,
    scheduler: SchedulerOptions,
    cost: CostModel,
) -> serving.Engine:
    """An engine that has not made a step; capacity is in units."""
    setting = serving.Setting(
        arrival_us=requests.arrival_us,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        n_samples=requests.n_samples,
        is_refused=is_refused,
        taken=memory.alloc_of,
        held=memory.tokens_of,
        capacity=capacity,
        scheduler=_scheduler(requests, memory, is_refused, scheduler),
        costs=_costs(cost, memory.unit_bytes),
    )
    if memory.shares_samples:
        window_tokens, window_units = np.array(memory.windows, np.int64).reshape(-1, 2).T
        setting.share_samples(
            window_tokens=window_tokens, window_units=window_units, private_tokens=memory.private_tokens
        )
    if memory.kind is Kind.REGIONS:
        return serving.regions(
            setting,
            region_units=memory.region,
            granule_units=memory.granule,
            n_largest=n_regions(memory, capacity),
        )
    if memory.kind is Kind.PREFIXES:
        return serving.prefixes(
            setting,
            block_tokens=memory.node_tokens,
            chunk_start=requests.chunk_start,
            chunk_id=requests.chunk_id,
            n_chunks=requests.n_chunks,
            chunk_tokens=requests.chunk_tokens,
        )
    if memory.kind is Kind.TENSORS:
        token_bytes, window = np.array(tensor_token_bytes(shape), np.int64).T
        return serving.tensors(setting, token_bytes=token_bytes, window=window, unit_bytes=memory.unit_bytes)
    return serving.on_demand(setting)


def _scheduler(
    requests: RequestTable, memory: Memory, is_refused: BoolArray, scheduler: SchedulerOptions
) -> serving.Scheduler:
    is_chunked = scheduler.policy == "chunked"
    can_swap = memory.kind in (Kind.ON_DEMAND, Kind.REGIONS)
    return serving.Scheduler(
        max_running=scheduler.max_requests,
        step_tokens=scheduler.max_step_tokens if is_chunked else _whole_step(requests, is_refused, scheduler),
        is_chunked=is_chunked,
        is_static=scheduler.policy == "static",
        is_padded=is_padded(memory, scheduler),
        longest=len(memory.tokens_of) - 1,
        swap_units=scheduler.swap_bytes // memory.unit_bytes if can_swap else 0,
    )


def _whole_step(requests: RequestTable, is_refused: BoolArray, scheduler: SchedulerOptions) -> int:
    """Tokens of a step where prompts are not spread: room for the longest sequences of a request at once."""
    served = (requests.n_samples * requests.cached_tokens)[~is_refused]
    return max(scheduler.max_step_tokens, scheduler.max_requests, int(served.max()) + 1)


def _costs(cost: CostModel, unit_bytes: int) -> serving.StepCosts:
    """What a step costs, a microsecond or a unit at a time."""
    return serving.StepCosts(
        flops_per_us=cost.flops_per_s / 1e6,
        bytes_per_us=cost.bytes_per_s / 1e6,
        flops_per_token=cost.flops_per_token,
        flops_per_pair=cost.flops_per_token_pair,
        weight_bytes=cost.weight_bytes,
        overhead_us=cost.overhead_s * 1e6,
        swap_bytes_per_us=cost.swap_bytes_per_s / 1e6,
        unit_bytes=unit_bytes,
    )
