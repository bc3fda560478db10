"""Static batches of plain tensors: padded to the longest prompt, and growing until the last sequence is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.serving.simulate import simulate
from tests.properties import examples
from tests.serving.naive_batches import NaiveBatches
from tests.serving.small_tables import COST, TINY, Request, check_timeline, job, table

SAMPLED = st.tuples(st.integers(0, 3000), st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 1, 1, 3]))
UNIT = TINY.bytes_per_token


def _duration(n_padded: int) -> int:
    took = (COST.weight_bytes + n_padded * UNIT) / (COST.bytes_per_s / 1e6)
    return max(1, int(took + COST.overhead_s * 1e6 + 0.5))


@examples(80)
@given(
    requests=st.lists(SAMPLED, min_size=1, max_size=25).map(sorted),
    longest=st.integers(70, 90),
    n_tokens=st.integers(384, 1500),
    max_rows=st.integers(3, 12),
    step_tokens=st.integers(1, 300),
)
def test_every_number_is_the_slow_twins(
    requests: list[Request], longest: int, n_tokens: int, max_rows: int, step_tokens: int
) -> None:
    rows = [(row[0] - requests[0][0], *row[1:]) for row in requests]
    one = job(
        table(rows),
        "max-length",
        n_tokens=n_tokens,
        max_length=longest,
        policy="static",
        max_requests=max_rows,
        max_step_tokens=step_tokens,
    )
    result = simulate(one)
    check_timeline(result)
    # A step has room for one request, however long.
    room = max(step_tokens, max_rows, max(n * (prompt + output - 1) for _, prompt, output, n in rows) + 1)
    twin = NaiveBatches(rows, longest, 128, n_tokens, max_rows, room, _duration).run()
    assert result.makespan_us == twin.now
    assert result.n_pad_tokens == twin.n_pads
    assert result.n_completed == len(rows)
    assert result.n_preemptions == 0
    for name, part in twin.byte_time.items():
        assert getattr(result.waste, name) == part * UNIT, name


def test_pads_are_counted_by_hand() -> None:
    # 3 and 7 tokens in, 5 and 2 out: 4 pads before the first, and 3 steps in which the second is done and still grows.
    result = simulate(job(table([(0, 3, 5), (0, 7, 2)]), "max-length", n_tokens=64, max_length=16, policy="static"))
    assert result.n_pad_tokens == 4 + 3
    assert result.n_computed_tokens == 3 + 4 + 7 + 1
    assert (result.timeline.token_bytes // UNIT).tolist() == [3 + 7, 4 + 8, 5, 6, 7]


def test_a_prompt_too_long_to_be_padded_to_waits_for_the_next_batch() -> None:
    # 4 + 10 − 1 fit into 16; beside a prompt of 12 the first would end at 12 + 9.
    one = {"n_tokens": 64, "max_length": 16, "policy": "static"}
    result = simulate(job(table([(0, 4, 10), (0, 12, 2)]), "max-length", **one))
    assert result.n_steps == 10 + 2
    assert result.n_pad_tokens == 0
    assert simulate(job(table([(0, 4, 10), (0, 7, 2)]), "max-length", **one)).n_steps == 10


@pytest.mark.parametrize("manager", ["oracle-length", "buddy", "paged", "paged-prefix", "virtual", "radix"])
def test_engines_that_place_each_sequence_for_itself_do_not_pad(manager: str) -> None:
    result = simulate(job(table([(0, 3, 5), (0, 7, 2)]), manager, n_tokens=1 << 20, max_length=16, policy="static"))
    assert result.n_pad_tokens == 0
