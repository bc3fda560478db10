from dataclasses import replace

import pytest

from memscope.errors import UsageError
from memscope.gpus import find_gpu
from memscope.planning.estimate import estimate
from memscope.planning.solve import _largest, solve_card, solve_number
from tests.planning.models import GPT2, card, plan


@pytest.mark.parametrize("most", [1, 7, 1 << 20])
@pytest.mark.parametrize("cost", [lambda n: 10 * n, lambda n: n * n, lambda n: 100 + 30 * (n // 3), lambda n: 5])
@pytest.mark.parametrize("capacity", [30, 1_000, 123_456])
def test_the_largest_that_fits_is_found_whatever_the_cost(most, cost, capacity):
    tried = []

    def fits(n):
        tried.append(n)
        assert 1 <= n <= most
        return cost(n) <= capacity

    if cost(1) > capacity:
        return
    found = _largest(fits, cost, capacity, most)
    assert cost(found) <= capacity
    assert found == most or cost(found + 1) > capacity
    assert len(tried) <= 32


def test_a_batch_is_confirmed_at_the_border_and_past_it():
    gpu = card("192MiB")
    solved = solve_number("batch", plan(), gpu)
    assert solved.confirmed
    assert isinstance(solved.value, int)
    there, past = (estimate(plan(n_samples=solved.value + i), [gpu]).cards[0].fits for i in (0, 1))
    assert (there, past) == (True, False)
    assert solved.n_runs <= 8


def test_nothing_fits_a_card_that_is_too_small():
    solved = solve_number("batch", plan(), card("8MiB"))
    assert (solved.value, solved.estimate.cards[0].fits) == (None, False)


def test_learnt_positions_bound_a_length():
    solved = solve_number("seq", plan(GPT2, n_tokens=16), card("80GiB"))
    assert (solved.value, solved.note) == (256, "256 is the most that can be asked for")


def test_the_smallest_card_is_chosen_and_none_where_none_fits():
    cards = [card(size) for size in ("80GiB", "40MiB", "1GiB")]
    assert solve_card(plan(), cards).value == "1GiB"
    assert solve_card(plan(), cards[1:2]).value is None
    with pytest.raises(UsageError, match="no card"):
        solve_card(plan(), [])


def test_each_card_up_to_the_smallest_is_judged_by_a_run_of_its_own_kind():
    older = replace(find_gpu("T4-16GB"), total_bytes=120_000_000, context_bytes=0)
    newer = replace(find_gpu("A100-80GB"), total_bytes=120_000_001, context_bytes=0)
    told = []
    solved = solve_card(plan(dtype="bf16", n_samples=8), [find_gpu("H100-80GB"), newer, older], told.append)
    assert (solved.value, solved.confirmed, solved.n_runs, len(told)) == (newer.name, True, 2, 2)
    assert [(card.name, card.fits) for card in solved.estimate.cards] == [(older.name, False), (newer.name, True)]
    assert solved.estimate.card.name == solved.value
    assert solved.estimate.peak_allocated_bytes == int(solved.estimate.device.peak().allocated_bytes)
    assert solved.estimate.peak_reserved_bytes <= newer.usable_bytes
