"""What the tests of serving replays share: a tiny model, requests from lists, and both engines on the same input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.kv.managers import ManagerOptions
from memscope.kv.requests import RequestTable
from memscope.kv.scheduler import SchedulerOptions
from memscope.kv.shapes import KvLayer, KvShape
from memscope.kv.simulate import KvJob
from memscope.kv.speeds import CostModel
from tests.kv.naive_serving import NaiveServing

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
Request = tuple[int, int, int]
"""Arrival in microseconds, tokens in, tokens out."""


def table(requests: Sequence[Request], chunks: Sequence[Sequence[int]] = (), chunk_tokens: int = 0) -> RequestTable:
    """A table of requests, with prefixes if their chunks are given."""
    arrival, prompt, output = (np.array(column, np.int64) for column in zip(*requests, strict=True))
    if not chunk_tokens:
        return RequestTable(arrival, prompt, output, "a test")
    start = np.cumsum([0, *map(len, chunks)])
    ids = np.array([i for row in chunks for i in row], np.int64)
    return RequestTable(arrival, prompt, output, "a test", start, ids, chunk_tokens)


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
        (int(a), int(p), int(o), keys(i))
        for i, (a, p, o) in enumerate(
            zip(requests.arrival_us, requests.prompt_tokens, requests.output_tokens, strict=True)
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
