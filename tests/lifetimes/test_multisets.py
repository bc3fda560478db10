"""What counts of equal sizes say of weights and of copies of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from memscope.lifetimes.multisets import Sizes, count_sizes, find_beside, layered, sum_bytes, times

LAYER = {4_194_304: 4, 11_534_336: 3, 4096: 2}
"""Four matrices, three larger ones and two norms."""
N_LAYERS = 6


def model(n_layers: int = N_LAYERS) -> Sizes:
    """A language model's weights: its layers, a last norm, an embedding and a head of 1,000 vectors."""
    return Counter({size: n * n_layers for size, n in LAYER.items()}) + Counter({4096: 1, 4_096_000: 2})


def beside(
    there: Sizes, trained: Sizes, *, adam: bool = False, sgd: bool = False, whole: bool = True
) -> tuple[int, int]:
    found = find_beside(there, trained, has_adam=adam, has_sgd=sgd, is_whole=whole)
    return found.n_same, found.n_double


def test_sizes_are_counted_and_summed() -> None:
    sizes = count_sizes(np.array([5, 3, 5], np.int64))
    assert sizes == {3: 1, 5: 2}
    assert sum_bytes(sizes) == 13
    assert times(sizes, 2, 10) == {30: 2, 50: 4}
    assert times(sizes, 0) == {}


@pytest.mark.parametrize("n_copies", [0, 1, 2, 3])
def test_copies_of_all_trained_sizes_are_counted(n_copies: int) -> None:
    assert beside(times(model(), 1 + n_copies), model()) == (n_copies, 0)


def test_masters_and_moments_of_half_precision_have_twice_the_sizes() -> None:
    assert beside(model() + times(model(), 3, 2), model()) == (0, 3)


def test_one_missing_block_is_a_copy_less() -> None:
    found = find_beside(times(model(), 3) - Counter([4096]), model(), has_adam=False, has_sgd=False, is_whole=True)
    assert (found.n_same, found.is_exact) == (0, False)


def test_frozen_layers_of_the_same_sizes_are_weights_where_the_optimizer_is_known() -> None:
    trained = model(2)
    there = model() + times(trained, 2)
    found = find_beside(there, trained, has_adam=True, has_sgd=False, is_whole=True)
    assert (found.n_same, found.is_exact) == (2, False)
    assert trained + found.frozen.weights == model()
    assert beside(there, trained) == (0, 0), "two copies and four layers, or three copies and others"
    assert beside(there, trained, adam=True, whole=False) == (0, 0)


def test_one_block_more_of_a_workspace_size_is_said() -> None:
    trained = model() + Counter({1 << 20: 6})
    found = find_beside(times(trained, 3) + Counter([1 << 20]), trained, has_adam=False, has_sgd=False, is_whole=True)
    assert (found.n_same, set(found.with_others), set(found.untold)) == (2, {1 << 20}, set())


def test_a_size_with_others_that_nothing_tells_is_not_told() -> None:
    found = find_beside(times(model(), 3) + Counter({4096: 5}), model(), has_adam=False, has_sgd=False, is_whole=True)
    assert set(found.untold) == {4096}
    assert 4096 not in found.states(model(), 0)


def test_layers_are_found_with_their_tables() -> None:
    found = layered(model() + Counter({1_000_003: 1, 777: 2}))
    assert found.weights == model()
    assert found.reason.startswith("6 layers: 3 sizes")


@pytest.mark.parametrize("n_copies", [2, 3, 4])
def test_copies_of_everything_are_not_called_weights(n_copies: int) -> None:
    assert not layered(times(model(), n_copies)).weights
    if n_copies > 2:
        assert not layered(times(model(), n_copies) + Counter([4096])).weights, "a stray block of a size"


def test_weights_with_masters_are_not_all_called_weights() -> None:
    assert not layered(model() + times(model(), 3, 2)).weights


def test_what_has_no_layers_is_not_told() -> None:
    assert not layered(Counter({4_194_304: 1, 1_000_000: 1, 777: 2})).weights
    assert not layered(Counter()).weights
