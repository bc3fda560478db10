"""Shapes that depend on values that a dry run does not have."""

from __future__ import annotations

from typing import Any

import pytest

from memscope.capture.dry_run.values.shapes import n_numbers
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_bins_that_were_asked_for_are_those_that_there_are() -> None:
    with dry_run():
        chosen = torch.randn(6, 4, device="cuda").argmax(-1)
        assert torch.bincount(chosen, minlength=4).shape == (4,)


def test_sequences_of_known_lengths_are_packed_and_padded() -> None:
    rnn = torch.nn.utils.rnn
    with dry_run():
        batch = torch.randn(3, 5, 8, device="cuda")
        packed = rnn.pack_padded_sequence(batch, torch.tensor([5, 3, 3]), batch_first=True)
        assert packed.data.shape == (11, 8)
        assert packed.batch_sizes.tolist() == [3, 3, 3, 1, 1]
        padded, lengths = rnn.pad_packed_sequence(packed, batch_first=True)
        assert (padded.shape, padded.is_cuda, lengths.tolist()) == ((3, 5, 8), True, [5, 3, 3])


def test_a_ctc_loss_has_its_table_of_paths() -> None:
    with dry_run():
        logarithms = torch.randn(50, 2, 20, device="cuda").log_softmax(2)
        lengths = torch.full((2,), 50, device="cuda"), torch.tensor([4, 6]).cuda()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = torch.nn.functional.ctc_loss(logarithms, torch.randint(1, 20, (2, 10), device="cuda"), *lengths)
        assert loss.shape == ()
        assert torch.cuda.max_memory_allocated() - before >= 2 * 50 * (2 * 6 + 1) * 4


def test_samples_without_a_rule_of_pytorch_have_the_shape_of_their_parameters() -> None:
    with dry_run():
        x = torch.randn(4, 8, device="cuda").exp()
        assert torch.distributions.Beta(x, x).sample().shape == (4, 8)
        assert torch.distributions.Dirichlet(x).sample().shape == (4, 8)


@pytest.mark.parametrize(
    ("kind", "args", "n"),
    [
        ("zeros", ([3, 4],), 12),
        ("full", ((2, 5), 1.0), 10),
        ("randint", (0, 9, (7,)), 7),
        ("arange", (0, 10), 10),
        ("arange", (10,), 10),
        ("linspace", (0.0, 1.0, 50), 50),
        ("eye", (4,), 16),
        ("eye", (4, 3), 12),
        ("empty", ([],), 1),
    ],
)
def test_a_factory_makes_as_many_numbers_as_it_is_asked_for(kind: str, args: tuple[Any, ...], n: int) -> None:
    assert n_numbers(kind, args) == n
