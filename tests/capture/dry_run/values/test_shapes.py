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


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_gradients_that_are_sparse_stay_and_add_up() -> None:
    # The CUDA build of torch 2.11 on the emulated device: allocated after each, beside the table and the indices.
    def allocated() -> int:
        return torch.cuda.memory_allocated() - before

    with dry_run():
        table = torch.nn.Embedding(5000, 512, sparse=True, device="cuda")
        rows = torch.zeros(1000, dtype=torch.long, device="cuda")
        before = torch.cuda.memory_allocated()
        out = table(rows)
        out.backward(torch.zeros_like(out))
        del out
        assert allocated() == 2_048_000  # the values that came back; the indices are those that were given
        table.weight.grad = None
        table(rows).sum().backward()
        assert allocated() == 2_056_192  # a sum's gradient is spread, and copied
        (table(rows) * 2).sum().backward()
        assert table.weight.grad._nnz() == 2000
        assert 0 <= allocated() - 2 * 2_056_192 < 1 << 20  # what a block has beyond what was asked for


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_tensors_keep_as_many_elements_as_there_may_be() -> None:
    with dry_run():
        indices, values = torch.zeros(1, 100, dtype=torch.long, device="cuda"), torch.zeros(100, 8, device="cuda")
        made = torch.sparse_coo_tensor(indices, values, (5000, 8))
        joined = made.coalesce()
        assert (joined.indices().shape, joined.values().shape) == ((1, 100), (100, 8))
        assert [((made + made)._nnz()), (made * 2)._nnz(), made.clone()._nnz()] == [200, 100, 100]
        assert torch.zeros(5000, 8, device="cuda").sparse_mask(joined)._values().shape == (100, 8)
        assert (torch.zeros(5000, 8, device="cuda") + made).layout == torch.strided


def test_sparse_adam_steps() -> None:
    with dry_run():
        table = torch.nn.Embedding(500, 8, sparse=True, device="cuda")
        optimizer = torch.optim.SparseAdam(table.parameters())
        table(torch.zeros(10, dtype=torch.long, device="cuda")).sum().backward()
        optimizer.step()
        assert {state.shape for state in optimizer.state[table.weight].values() if hasattr(state, "shape")} == {
            (500, 8)
        }
