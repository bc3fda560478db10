"""Serving replays: against the slow twin, by hand, and by what must hold whatever comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UsageError
from memscope.serving.managers import MANAGERS
from memscope.serving.result import KvResult
from memscope.serving.shapes import KvLayer, KvShape
from memscope.serving.simulate import KvJob, simulate
from tests.properties import examples
from tests.serving.small_tables import Request, check_timeline, job, naive, table

SCALABLE = sorted(MANAGERS.keys() - {"concat"})
"""Those that a few kilobytes are enough for: the caching allocator takes two mebibytes at once."""

CHUNK = 4
LENGTHS = st.tuples(st.integers(0, 400), st.integers(1, 40), st.integers(1, 30))
SAMPLED = st.tuples(st.integers(0, 400), st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 1, 2, 5]))


def _from_zero(requests: list[Request]) -> list[Request]:
    return [(row[0] - requests[0][0], *row[1:]) for row in requests]


def _chunks(requests: list[Request], seed: int) -> list[list[int]]:
    """Chunk ids of prompts that are cut out of three texts at random places, each position its own id."""
    rng = np.random.default_rng(seed)
    rows, fresh = [], 1000
    for _, prompt, *_ in requests:
        n, text = -(-prompt // CHUNK), int(rng.integers(3))
        n_common = int(rng.integers(n + 1))
        rows.append([100 * text + i for i in range(n_common)] + list(range(fresh, fresh + n - n_common)))
        fresh += n
    ids = {one: i for i, one in enumerate(sorted({i for row in rows for i in row}))}
    return [[ids[i] for i in row] for row in rows]


def _agree(result: KvResult, one: KvJob) -> None:
    twin, unit = naive(one), one.shape.bytes_per_token
    assert result.makespan_us == twin.now
    assert result.n_preemptions == twin.n_preempted
    assert result.n_recomputed_tokens == twin.n_recomputed
    assert result.n_computed_tokens == twin.n_computed
    assert result.n_block_copies == twin.n_copied
    assert result.saved_byte_us == twin.byte_time["saved"] * unit
    assert result.n_evictions == twin.n_evicted
    assert result.peak_concurrent_requests == twin.peak_running
    assert result.n_generated_tokens == twin.n_generated
    assert (result.waste.tokens, result.waste.internal) == (
        twin.byte_time["tokens"] * unit,
        twin.byte_time["internal"] * unit,
    )
    assert result.waste.external == twin.byte_time["external"] * unit
    assert result.waste.unclaimed == twin.byte_time["unclaimed"] * unit
    if one.requests.has_prefixes and one.manager == "paged-prefix":
        assert (result.n_hit_blocks, result.n_queried_blocks) == (twin.n_hit, twin.n_queried)


@examples(60)
@given(
    requests=st.lists(SAMPLED, min_size=1, max_size=25).map(sorted),
    block_size=st.sampled_from([1, 2, 4, 8]),
    n_blocks=st.integers(0, 30),
    max_running=st.integers(5, 12),
    step_tokens=st.integers(5, 60),
    seed=st.integers(0, 1000),
    manager=st.sampled_from(["paged", "paged-prefix"]),
)
def test_every_number_is_the_slow_twins(
    requests: list[Request], block_size: int, n_blocks: int, max_running: int, step_tokens: int, seed: int, manager: str
) -> None:
    requests = _from_zero(requests)
    one = job(
        table(requests, _chunks(requests, seed), CHUNK),
        manager,
        # The largest request is 40 tokens shared and 5 times 36 at most that are not.
        n_tokens=40 + 5 * 40 + n_blocks * block_size,
        block_size=block_size,
        max_requests=max_running,
        max_step_tokens=step_tokens,
    )
    _agree(simulate(one), one)


@examples(60)
@given(
    requests=st.lists(SAMPLED, min_size=1, max_size=25).map(sorted),
    manager=st.sampled_from(SCALABLE),
    policy=st.sampled_from(["static", "continuous", "chunked"]),
    swap=st.sampled_from([0, 500, 5000]),
    window=st.sampled_from([None, 3, 17]),
    n_tokens=st.integers(640, 900),
    seed=st.integers(0, 1000),
)
def test_memory_is_accounted_for_and_no_request_is_lost(
    requests: list[Request], manager: str, policy: str, swap: int, window: int | None, n_tokens: int, seed: int
) -> None:
    requests = _from_zero(requests)
    shape = KvShape((KvLayer(1, 1 << 13, 1 << 13), KvLayer(2, 1 << 13, 1 << 13, window)))
    one = job(
        table(requests, _chunks(requests, seed), CHUNK),
        manager,
        # Pages of 2 MiB are 128 and 64 tokens here.
        n_tokens=n_tokens * (4 if manager == "virtual" else 1),
        max_length=80,
        shape=shape,
        policy=policy,
        max_step_tokens=16,
        preemption="swap" if swap else "recompute",
        swap_bytes=swap * shape.bytes_per_token,
    )
    result = simulate(one)
    prompts, outputs, samples = (
        getattr(one.requests, name).tolist() for name in ("prompt_tokens", "output_tokens", "n_samples")
    )
    waste, timeline = result.waste, result.timeline
    whole = waste.tokens + waste.reservation + waste.internal + waste.external + waste.unclaimed
    assert whole == result.capacity_bytes * result.makespan_us
    assert min(waste.tokens, waste.reservation, waste.internal, waste.external, waste.unclaimed) >= 0
    assert result.n_completed == len(requests)
    assert result.n_refused == 0
    assert result.n_generated_tokens == sum(int(o) * int(n) for o, n in zip(outputs, samples, strict=True))
    assert np.all(timeline.token_bytes <= timeline.alloc_bytes)
    assert np.all(timeline.alloc_bytes <= result.capacity_bytes)
    assert result.peak_alloc_bytes == timeline.alloc_bytes.max()
    assert np.all(result.first_token_us > 0)
    check_timeline(result)
    if MANAGERS[manager].name not in ("paged-prefix", "radix"):
        # Every token but the last one is computed once, and again for each preemption that lost it.
        once = sum(
            (prompt if manager == "paged" else n * prompt) + n * (output - 1)
            for prompt, output, n in zip(prompts, outputs, samples, strict=True)
        )
        assert result.n_computed_tokens == once + result.n_recomputed_tokens
    if manager in ("max-length", "oracle-length", "buddy", "virtual", "radix"):
        assert result.n_block_copies == 0
    if manager != "max-length" or policy != "static":
        assert result.n_pad_tokens == 0
    assert timeline.saved_bytes.min() >= 0


@examples(25)
@given(requests=st.lists(LENGTHS, min_size=1, max_size=20).map(sorted), step_tokens=st.integers(5, 80))
def test_managers_agree_on_the_tokens_held_where_memory_is_ample(requests: list[Request], step_tokens: int) -> None:
    requests = _from_zero(requests)
    results = [
        simulate(job(table(requests), name, n_tokens=1 << 26, max_length=128, max_step_tokens=step_tokens))
        for name in sorted(MANAGERS)
    ]
    for result in results[1:]:
        assert np.array_equal(result.timeline.token_bytes, results[0].timeline.token_bytes)
        assert result.waste.tokens == results[0].waste.tokens
        assert result.makespan_us == results[0].makespan_us


def test_one_request_is_counted_by_hand() -> None:
    # 6 tokens in, 3 out, blocks of 4: steps hold 6, 7 and 8 tokens in 2 blocks; the last token is never kept.
    # A step takes (50,000 + 24 × tokens) / 1,000 + 20 = 70.144, 70.168, 70.192: 70 µs each.
    result = simulate(job(table([(0, 6, 3)]), n_tokens=12))
    assert result.n_steps == 3
    assert result.makespan_us == 210
    assert result.waste.tokens == (6 + 7 + 8) * 70 * 24
    assert result.waste.internal == (2 + 1 + 0) * 70 * 24
    assert result.waste.unclaimed == 4 * 210 * 24
    assert result.kv_token_share_frac == 21 / 24
    assert result.longest_context_tokens == 12
    assert result.first_token_us.tolist() == [70]


def test_a_region_is_reserved_to_the_longest_length_and_the_tail_never_filled() -> None:
    # 16 tokens of room: a region of 8 for 3 + 2 − 1 = 4 tokens, of which 3 and then 4 are there.
    result = simulate(job(table([(0, 3, 2)]), "max-length", n_tokens=16, max_length=8))
    assert result.waste.tokens == (3 + 4) * 70 * 24
    assert result.waste.reservation == (1 + 0) * 70 * 24
    assert result.waste.internal == (4 + 4) * 70 * 24
    assert result.waste.external == 0
    assert result.largest_batch_requests == 2


def test_a_power_of_two_is_external_waste_and_so_is_what_a_waiting_request_cannot_use() -> None:
    # Room for 24: trees of 16 and 8. Regions of 5 take 8 each: three fit, and a fourth waits though 24 − 15 are unused.
    result = simulate(job(table([(0, 5, 1)] * 4), "oracle-length", n_tokens=24))
    assert result.peak_concurrent_requests == 3
    assert result.n_steps == 2
    first, second = (70, 70)
    assert result.waste.tokens == (15 * first + 5 * second) * 24
    assert result.waste.external == (9 * first + 3 * second) * 24
    assert result.waste.unclaimed == 16 * second * 24


def test_the_buddy_manager_rounds_the_output_up() -> None:
    result = simulate(job(table([(0, 4, 5)]), "buddy", n_tokens=16))
    # 4 + 8 tokens reserved, of which 4 + 5 − 1 are used in the end: 4 never are; 12 lie in a block of 16.
    assert result.waste.internal == 4 * result.makespan_us * 24
    assert result.waste.external == 4 * result.makespan_us * 24


def test_pages_are_mapped_for_keys_and_values_of_each_layer() -> None:
    shape = KvShape((KvLayer(1, 1 << 16, 1 << 16),) * 2)
    # 128 KiB a token in each of four ranges: 16 tokens a page of 2 MiB.
    one = job(table([(0, 17, 1)]), "virtual", n_tokens=64, shape=shape)
    result = simulate(one)
    assert result.peak_alloc_bytes == 4 * 2 * (2 << 20)
    assert result.peak_token_bytes == 17 * 4 * (128 << 10)


def test_a_window_gives_blocks_back() -> None:
    shape = KvShape((KvLayer(1, 2, 2, window=8),))
    result = simulate(job(table([(0, 30, 20)]), n_tokens=64, shape=shape, max_step_tokens=4))
    assert result.peak_token_bytes == 8 * 8
    assert result.peak_alloc_bytes <= (8 + 4) * 8


def test_a_static_batch_holds_the_memory_of_those_that_are_done() -> None:
    requests = table([(0, 4, 1), (0, 4, 9), (0, 4, 1)])
    options = {"n_tokens": 16, "max_requests": 2}
    static = simulate(job(requests, policy="static", **options))
    continuous = simulate(job(requests, policy="continuous", **options))
    assert static.n_steps == 9 + 1
    assert continuous.n_steps == 9
    assert static.waste.internal > continuous.waste.internal


def test_swapped_requests_are_not_computed_again() -> None:
    requests = table([(0, 8, 40), (0, 8, 40), (0, 8, 40)])
    recompute = simulate(job(requests, n_tokens=64))
    swap = simulate(job(requests, n_tokens=64, preemption="swap", swap_bytes=1 << 20))
    assert recompute.n_preemptions > 0
    assert recompute.n_recomputed_tokens > 0
    assert swap.n_swaps == swap.n_preemptions > 0
    assert swap.n_recomputed_tokens == 0
    assert swap.n_computed_tokens == 3 * 47


def test_swap_space_that_is_full_falls_back_to_computing_again() -> None:
    requests = table([(0, 8, 40)] * 6)
    result = simulate(job(requests, n_tokens=64, preemption="swap", swap_bytes=20 * 24))
    assert 0 < result.n_swaps < result.n_preemptions
    assert result.n_recomputed_tokens > 0


def test_a_request_that_can_never_fit_is_refused_and_the_others_served() -> None:
    result = simulate(job(table([(0, 100, 1), (5, 4, 4)]), n_tokens=40))
    assert (result.n_refused, result.n_completed) == (1, 1)


def test_nothing_that_fits_is_an_error_of_the_caller() -> None:
    with pytest.raises(UsageError, match="none of 1 requests fits"):
        simulate(job(table([(0, 100, 1)]), n_tokens=40))


def test_shared_blocks_must_match_the_chunks_of_the_trace() -> None:
    requests = table([(0, 8, 1)], [[0, 1]], 4)
    with pytest.raises(UsageError, match="3 is neither"):
        simulate(job(requests, "paged-prefix", n_tokens=40, block_size=3))


def test_unknown_prefixes_are_not_a_hit_rate_of_zero() -> None:
    result = simulate(job(table([(0, 8, 2)]), "paged-prefix", n_tokens=40))
    assert result.prefix_hit_frac is None
    assert any("does not tell" in note for note in result.notes)


def test_requests_over_time_keep_the_peak_and_the_mean() -> None:
    rng = np.random.default_rng(0)
    requests = [
        (int(a), int(p), 5) for a, p in zip(np.sort(rng.integers(0, 9000, 80)), rng.integers(1, 30, 80), strict=True)
    ]
    requests = [(a - requests[0][0], p, o) for a, p, o in requests]
    result = simulate(job(table(requests), n_tokens=120))
    points = result.concurrency(10)
    assert len(points) <= 10
    assert max(point["peak_running"] for point in points) == result.peak_concurrent_requests
    assert points[-1]["end_s"] == result.makespan_us / 1e6
