"""Prefix sharing on the Mooncake conversation trace."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import cache

import pytest

from memscope.serving.request_files import read_requests
from memscope.serving.requests import RequestTable
from memscope.serving.simulate import KvJob, simulate
from tests.oracles import DATA, needs_shared
from tests.serving.block_counts import BlockCounts
from tests.serving.small_tables import job, naive

pytestmark = needs_shared
TRACE = DATA / "serving" / "mooncake_conversation.jsonl.gz"
BLOCK = 512


@cache
def _requests() -> RequestTable:
    return read_requests(TRACE)


def test_every_request_and_distinct_block_is_read() -> None:
    requests = _requests()
    assert len(requests) == 12_031
    assert requests.n_chunks == 182_790
    assert len(requests.chunk_id) == 288_500


def test_an_unbounded_cache_hits_what_the_hash_ids_say() -> None:
    seen: set[int] = set()
    n_hit = n_queried = 0
    with gzip.open(TRACE, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            # The last token is always computed, so that the next one can come out.
            lookable = row["hash_ids"][: (row["input_length"] - 1) // BLOCK]
            hits = 0
            for one in lookable:
                if one not in seen:
                    break
                hits += 1
            n_hit += hits
            n_queried += len(lookable)
            seen.update(row["hash_ids"][: row["input_length"] // BLOCK])
    one = job(
        _requests(),
        "paged-prefix",
        n_tokens=1 << 32,
        block_size=BLOCK,
        max_length=1 << 18,
        policy="continuous",
        max_requests=20_000,
        max_step_tokens=1 << 31,
    )
    result = simulate(replace(one, cost=replace(one.cost, overhead_s=0.05)))
    assert (result.n_hit_blocks, result.n_queried_blocks) == (n_hit, n_queried)
    assert result.n_evictions == result.n_preemptions == 0
    assert result.prefix_hit_frac == n_hit / n_queried > 0.3


@pytest.mark.parametrize("n_tokens", [130_000, 200_000, 400_000, 800_000, 1_600_000])
def test_a_bounded_cache_evicts_as_the_slow_twin_does(n_tokens: int) -> None:
    one = job(_requests().first(200), "paged-prefix", n_tokens=n_tokens, block_size=BLOCK, max_length=1 << 18)
    result, twin = simulate(one), naive(one)
    assert result.n_evictions == twin.n_evicted
    assert (result.n_hit_blocks, result.n_queried_blocks) == (twin.n_hit, twin.n_queried)
    assert result.n_preemptions == twin.n_preempted
    assert result.makespan_us == twin.now
    assert result.n_evictions > 0


def _counted(one: KvJob) -> BlockCounts:
    """The twin for whole traces, on a replay's input; blocks are the trace's chunks."""
    requests, token_bytes = one.requests, one.shape.bytes_per_token
    starts, ids = requests.chunk_start.tolist(), requests.chunk_id.tolist()
    columns = (requests.arrival_us, requests.prompt_tokens, requests.output_tokens)
    rows = [
        (arrival, prompt, output, ids[starts[i] : starts[i] + prompt // BLOCK])
        for i, (arrival, prompt, output) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]
    fixed, per_token = one.cost.weight_bytes / (one.cost.bytes_per_s / 1e6), token_bytes / (one.cost.bytes_per_s / 1e6)

    def duration(n_held: int) -> int:
        return max(1, int(fixed + n_held * per_token + one.cost.overhead_s * 1e6 + 0.5))

    step_tokens = max(one.scheduler.max_step_tokens, int((requests.prompt_tokens + requests.output_tokens).max()))
    n_blocks = one.kv_bytes // (BLOCK * token_bytes)
    return BlockCounts(rows, n_blocks, BLOCK, one.scheduler.max_requests, step_tokens, duration).run()


@pytest.mark.parametrize("n_tokens", [200_000, 500_000, 1_000_000, 3_000_000, 10_000_000])
def test_the_whole_trace_hits_and_evicts_as_counted_block_by_block(n_tokens: int) -> None:
    one = job(
        _requests(),
        "paged-prefix",
        n_tokens=n_tokens,
        block_size=BLOCK,
        max_length=1 << 18,
        policy="continuous",
        max_requests=256,
        max_step_tokens=1 << 17,
    )
    # Steps of 20 ms and, at most, some more: about as many requests run at once as on a GPU.
    one = replace(one, cost=replace(one.cost, overhead_s=0.02, weight_bytes=0, bytes_per_s=5e8))
    result, twin = simulate(one), _counted(one)
    assert result.n_completed == 12_031
    assert (result.n_hit_blocks, result.n_queried_blocks) == (twin.n_hit, twin.n_queried)
    assert result.n_evictions == twin.n_evicted > 0
    assert result.n_preemptions == twin.n_preempted
    assert result.n_recomputed_tokens == twin.n_recomputed
    assert (result.n_steps, result.makespan_us) == (twin.n_steps, twin.now)
