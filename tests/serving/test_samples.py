"""Requests for several samples: what they share, what is copied, and that they stay together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UsageError
from memscope.serving.managers import MANAGERS
from memscope.serving.shapes import KvLayer, KvShape
from memscope.serving.simulate import never_fits, simulate
from tests.properties import examples
from tests.serving.small_tables import check_timeline, job, table

UNSHARED = ("max-length", "oracle-length", "buddy", "virtual")
WINDOWED = KvShape((KvLayer(1, 2, 2), KvLayer(2, 2, 2, window=7)))


def _bytes_by_hand(shape: KvShape, block: int, prompt: int, n_samples: int, n_tokens: int) -> tuple[int, int]:
    """Bytes taken, and bytes of tokens, by writing down every block of every layer, and every token looked at."""
    taken = held = 0
    for layer, size in zip(shape.layers, shape.layer_token_bytes, strict=True):
        blocks, tokens = set(), set()
        n_tables = n_samples if n_tokens > prompt else 1
        first = 0 if layer.window is None else max(n_tokens - layer.window, 0)
        for sample in range(n_tables):
            for place in range(first // block * block, n_tokens):
                is_shared = n_tables > 1 and place // block < prompt // block
                blocks.add((None if is_shared else sample, place // block))
                if place >= first:
                    tokens.add((None if is_shared else sample, place))
        taken += len(blocks) * block * size
        held += len(tokens) * size
    return taken, held


@examples(60)
@given(
    block=st.sampled_from([1, 2, 4, 5]),
    prompt=st.integers(1, 30),
    output=st.integers(1, 30),
    n_samples=st.integers(1, 4),
    step=st.integers(4, 20),
    shape=st.sampled_from([WINDOWED, KvShape((KvLayer(1, 2, 2),))]),
)
def test_every_step_holds_the_blocks_that_are_written_down_by_hand(
    block: int, prompt: int, output: int, n_samples: int, step: int, shape: KvShape
) -> None:
    one = job(
        table([(0, prompt, output, n_samples)]),
        n_tokens=400,
        block_size=block,
        max_length=64,
        shape=shape,
        max_step_tokens=step,
    )
    timeline = simulate(one).timeline
    n_prefill = -(-prompt // step)
    ends = [min(prompt, step * (i + 1)) for i in range(n_prefill)] + list(range(prompt + 1, prompt + output))
    expected = [_bytes_by_hand(shape, block, prompt, n_samples, n) for n in ends]
    assert list(zip(timeline.alloc_bytes.tolist(), timeline.token_bytes.tolist(), strict=True)) == expected


def test_the_last_block_of_a_prompt_is_copied_for_all_samples_but_one() -> None:
    # 6 tokens in blocks of 4: one full block, and 2 tokens that all three samples start from.
    # 6 tokens in 2 blocks; then 1 shared block and one more for each, with 7 and 8 tokens; then 9 tokens: 1 + 3 × 2.
    result = simulate(job(table([(0, 6, 4, 3)]), n_tokens=400))
    assert result.n_block_copies == 2
    assert (result.timeline.alloc_bytes // 24).tolist() == [8, 16, 16, 28]
    assert (result.timeline.token_bytes // 24).tolist() == [6, 4 + 3 * 3, 4 + 3 * 4, 4 + 3 * 5]
    # Without sharing, three tables of 2, 2 and 3 blocks.
    assert (result.timeline.saved_bytes // 24).tolist() == [0, 3 * 8 - 16, 3 * 8 - 16, 3 * 12 - 28]
    assert result.n_computed_tokens == 6 + 3 * 3
    assert result.n_generated_tokens == 3 * 4


def test_a_prompt_of_whole_blocks_is_shared_without_a_copy() -> None:
    result = simulate(job(table([(0, 8, 4, 3)]), n_tokens=400))
    assert result.n_block_copies == 0
    assert (result.timeline.alloc_bytes // 24).tolist() == [8, 8 + 12, 8 + 12, 8 + 12]
    assert result.sharing_saved_frac is not None
    assert result.sharing_saved_frac > 0


def test_samples_that_are_one_token_each_never_go_apart() -> None:
    result = simulate(job(table([(0, 6, 1, 3)]), n_tokens=400))
    assert result.n_block_copies == 0
    assert result.n_computed_tokens == 6
    assert result.sharing_saved_frac == 0


@pytest.mark.parametrize("manager", UNSHARED)
def test_other_managers_hold_the_prompt_for_each_sample(manager: str) -> None:
    one = {"n_tokens": 1 << 22, "max_length": 64}
    alone = simulate(job(table([(0, 6, 4)]), manager, **one))
    three = simulate(job(table([(0, 6, 4, 3)]), manager, **one))
    assert np.array_equal(three.timeline.token_bytes, 3 * alone.timeline.token_bytes)
    assert np.array_equal(three.timeline.alloc_bytes, 3 * alone.timeline.alloc_bytes)
    assert np.array_equal(three.timeline.reservation_bytes, 3 * alone.timeline.reservation_bytes)
    assert three.n_computed_tokens == 3 * alone.n_computed_tokens
    assert three.saved_byte_us == three.n_block_copies == 0


def test_managers_that_share_hold_the_same_tokens_of_samples() -> None:
    rng = np.random.default_rng(3)
    rows = [(50 * i, int(p), int(o), int(n)) for i, (p, o, n) in enumerate(rng.integers(1, 20, (30, 3)))]
    one = {"n_tokens": 1 << 16, "max_length": 64}
    paged, prefix = (simulate(job(table(rows), name, **one)) for name in ("paged", "paged-prefix"))
    assert np.array_equal(paged.timeline.token_bytes, prefix.timeline.token_bytes)
    assert np.array_equal(paged.timeline.alloc_bytes, prefix.timeline.alloc_bytes)
    assert np.array_equal(paged.timeline.saved_bytes, prefix.timeline.saved_bytes)
    assert paged.n_block_copies == prefix.n_block_copies > 0
    by_token = simulate(job(table(rows), "radix", **one))
    assert by_token.n_block_copies == 0
    assert by_token.waste.internal == 0
    unshared = [simulate(job(table(rows), name, **{**one, "n_tokens": 1 << 28})) for name in UNSHARED]
    for result in unshared[1:]:
        assert np.array_equal(result.timeline.token_bytes, unshared[0].timeline.token_bytes)
    assert unshared[0].waste.tokens > paged.waste.tokens


def test_samples_and_common_prefixes_are_shared_together() -> None:
    # Two requests with the same prompt of 10 tokens, in chunks of 4, and two samples each.
    requests = table([(0, 10, 3, 2), (0, 10, 3, 2)], [[0, 1, 2], [0, 1, 3]], 4)
    result = simulate(job(requests, "paged-prefix", n_tokens=400))
    # The second finds two blocks: 2 shared, and a block of its own each; then each sample has its own last block.
    assert result.n_hit_blocks == 2
    assert (result.timeline.alloc_bytes // 24).tolist() == [8 + 2 * 4, 8 + 4 * 4, 8 + 4 * 4]
    assert result.n_block_copies == 2
    # Tables of 3 blocks: two of them before, four after the samples went apart.
    assert (result.timeline.saved_bytes // 24).tolist() == [2 * 12 - 16, 4 * 12 - 24, 4 * 12 - 24]


@pytest.mark.parametrize("swap_bytes", [0, 1 << 20])
def test_samples_are_put_back_together_and_share_again(swap_bytes: int) -> None:
    rows = [(0, 10, 30, 2)] * 3
    options = {"preemption": "swap", "swap_bytes": swap_bytes} if swap_bytes else {}
    result = simulate(job(table(rows), n_tokens=120, **options))
    check_timeline(result)
    assert result.n_preemptions > 0
    assert result.n_completed == 3
    # A request that is computed again parts with its samples again; one that comes back from the host has them.
    again = 0 if swap_bytes else result.n_preemptions
    assert result.n_block_copies == 3 + again
    assert result.n_computed_tokens == 3 * (10 + 2 * 29) + result.n_recomputed_tokens
    assert (result.n_recomputed_tokens == 0) == bool(swap_bytes)


def test_regions_of_all_samples_are_taken_or_none() -> None:
    # Room for four regions of 8: two requests of three samples cannot run at once, one of three and one of one can.
    result = simulate(job(table([(0, 4, 5, 3), (0, 4, 5, 3), (0, 4, 5)]), "oracle-length", n_tokens=32))
    assert result.timeline.n_running.tolist() == [1] * 5 + [2] * 5
    assert result.timeline.alloc_bytes.max() == 4 * 8 * 24


def test_a_step_takes_no_more_sequences_than_it_may() -> None:
    result = simulate(job(table([(0, 4, 6, 3)] * 4), n_tokens=4000, max_requests=7))
    assert result.peak_concurrent_requests == 2


def test_a_step_that_has_no_room_for_all_samples_leaves_them_for_the_next() -> None:
    # Steps of 5: the prompt of 4 and one token of the next; then 3 samples, and 2 more of the other prompt.
    result = simulate(job(table([(0, 4, 2, 3), (0, 4, 2, 3)]), n_tokens=4000, max_step_tokens=5))
    # 4 + 1; 3 + 2; 1 and, of 3 samples, none that fits; 3.
    assert (result.timeline.token_bytes // 24).tolist()[:2] == [4 + 1, 4 + 3 * 1 + 3]
    assert result.n_computed_tokens == 2 * (4 + 3)
    assert result.n_completed == 2


def test_more_samples_than_a_step_holds_are_an_error_of_the_caller() -> None:
    for options in ({"max_requests": 3}, {"max_step_tokens": 3}):
        with pytest.raises(UsageError, match="asks for 4 samples"):
            simulate(job(table([(0, 4, 2, 4)]), n_tokens=4000, **options))


@examples(60)
@given(
    manager=st.sampled_from(sorted(MANAGERS.keys() - {"concat", "virtual"})),
    prompt=st.integers(1, 20),
    output=st.integers(1, 20),
    n_samples=st.integers(1, 4),
    n_tokens=st.integers(4, 200),
    shape=st.sampled_from([WINDOWED, KvShape((KvLayer(1, 2, 2),))]),
)
def test_what_is_accepted_fits_alone_and_what_is_refused_does_not(
    manager: str, prompt: int, output: int, n_samples: int, n_tokens: int, shape: KvShape
) -> None:
    one = job(table([(0, prompt, output, n_samples)]), manager, n_tokens=n_tokens, max_length=40, shape=shape)
    ample = simulate(replace(one, kv_bytes=one.kv_bytes + (1 << 16)))
    needed = ample.peak_alloc_bytes
    memory = MANAGERS[manager].make(shape, one.requests, one.options, 40)
    capacity = one.kv_bytes // memory.unit_bytes // memory.quantum * memory.quantum
    is_refused = bool(never_fits(memory, one.requests, capacity)[0])
    if memory.private_tokens > 1 or manager == "radix" or (shape.groups[0][0] is None and len(shape.groups) == 1):
        assert is_refused == (needed > capacity * memory.unit_bytes)
    if not is_refused:
        assert simulate(one).n_completed == 1


def test_a_trace_can_be_given_samples() -> None:
    requests = table([(0, 4, 2), (5, 4, 2)]).with_samples(3)
    assert requests.n_samples.tolist() == [3, 3]
    assert requests.first(1).n_samples.tolist() == [3]
    assert requests.faster(2).n_samples.tolist() == [3, 3]
    with pytest.raises(UsageError, match="at least one sample"):
        requests.with_samples(0)
