"""What the tests of serving replays share: a tiny model, requests from lists, and both engines on the same input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.serving.managers import ManagerOptions
from memscope.serving.requests import RequestTable
from memscope.serving.result import KvResult
from memscope.serving.scheduler import CostModel, SchedulerOptions
from memscope.serving.shapes import KvLayer, KvShape
from memscope.serving.simulate import KvJob
from tests.serving.naive_serving import NaiveServing

TINY = KvShape((KvLayer(1, 2, 2),) * 3)
"""Three layers of 8 bytes a token each: 24 bytes a token."""
COST = CostModel(
    flops_per_s=1e9,
    bytes_per_s=1e9,
    flops_per_token=0.0,
    flops_per_token_pair=0.0,
    weight_bytes=50_000,
    overhead_s=20e-6,
    swap_bytes_per_s=1e9,
)
"""Only traffic counts: a step takes (50,000 + bytes held) / 1,000 + 20 microseconds."""
Request = tuple[int, int, int] | tuple[int, int, int, int]
"""Arrival in microseconds, tokens in, tokens out, and samples where they are more than one."""


def table(requests: Sequence[Request], chunks: Sequence[Sequence[int]] = (), chunk_tokens: int = 0) -> RequestTable:
    """A table of requests, with prefixes if their chunks are given, and samples if they say how many."""
    rows = [row if len(row) == 4 else (*row, 1) for row in requests]
    arrival, prompt, output, samples = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    if not chunk_tokens:
        return RequestTable(arrival, prompt, output, "a test", n_samples=samples)
    start = np.cumsum([0, *map(len, chunks)])
    ids = np.array([i for row in chunks for i in row], np.int64)
    return RequestTable(arrival, prompt, output, "a test", start, ids, chunk_tokens, samples)


def job(
    requests: RequestTable,
    manager: str = "paged",
    *,
    n_tokens: int,
    block_size: int = 4,
    max_length: int = 1 << 17,
    shape: KvShape = TINY,
    **scheduler: object,
) -> KvJob:
    """A replay with memory for so many tokens."""
    options = ManagerOptions(block_size=block_size, max_length=max_length)
    how = SchedulerOptions(**scheduler)  # type: ignore[arg-type]
    return KvJob(shape, requests, n_tokens * shape.bytes_per_token, manager, options, how, COST)


def naive(one: KvJob) -> NaiveServing:
    """The slow twin on a replay's input; it is for shapes without windows."""
    size, token_bytes = one.options.block_size, one.shape.bytes_per_token
    requests, shares = one.requests, one.manager == "paged-prefix" and one.requests.has_prefixes

    def keys(i: int) -> list[object]:
        if not shares:
            return []
        chunks = requests.chunk_id[requests.chunk_start[i] : requests.chunk_start[i + 1]].tolist()
        n_blocks, chunk = int(requests.prompt_tokens[i]) // size, requests.chunk_tokens
        if size > chunk:
            return [chunks[((b + 1) * size - 1) // chunk] for b in range(n_blocks)]
        return [(chunks[b * size // chunk], b * size % chunk) for b in range(n_blocks)]

    def duration(_n_tokens: int, n_logical: int) -> int:
        took = (one.cost.weight_bytes + n_logical * token_bytes) / (one.cost.bytes_per_s / 1e6)
        return max(1, int(took + one.cost.overhead_s * 1e6 + 0.5))

    rows = [
        (int(a), int(p), int(o), keys(i), int(n))
        for i, (a, p, o, n) in enumerate(
            zip(requests.arrival_us, requests.prompt_tokens, requests.output_tokens, requests.n_samples, strict=True)
        )
    ]
    engine = NaiveServing(
        rows,
        one.kv_bytes // (size * token_bytes),
        size,
        one.scheduler.max_requests,
        one.scheduler.max_step_tokens,
        duration,
        shares=shares,
    )
    return engine.run()


def check_timeline(result: KvResult) -> None:
    """In each step the parts are all of the memory, and over the steps they are those of the waste, byte for byte."""
    timeline, waste = result.timeline, result.waste
    parts = {
        "tokens": timeline.token_bytes,
        "reservation": timeline.reservation_bytes,
        "internal": timeline.internal_bytes,
        "external": timeline.external_bytes,
        "unclaimed": timeline.unclaimed_bytes,
    }
    assert np.all(sum(parts.values()) == result.capacity_bytes)
    assert min(int(column.min()) for column in parts.values()) >= 0
    duration = timeline.duration_us.astype(object)
    assert np.all(timeline.start_us[1:] >= timeline.end_us[:-1])
    idle = result.makespan_us - result.busy_us
    assert duration.sum() == result.busy_us
    for name, column in parts.items():
        between = idle * result.capacity_bytes if name == "unclaimed" else 0
        assert (duration * column).sum() + between == getattr(waste, name)
    assert timeline.n_preemptions[-1] == result.n_preemptions
