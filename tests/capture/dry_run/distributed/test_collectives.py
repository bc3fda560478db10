"""Collectives of a dry run: what they allocate, whose that is, and what is known of their results."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.capture.recorder import Recorder
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from tests.capture.programs import requested, sizes

torch = pytest.importorskip("torch")
dist = torch.distributed

all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
"""PyTorch 2.13 has given them other names."""
Start = Callable[[int, int], Recorder]


def test_lists_are_gathered_and_scattered_through_one_buffer_of_all(rank_of: Start) -> None:
    recorder = rank_of(1, 4)
    dist.init_process_group("nccl")
    part = torch.ones(1000, device="cuda")
    parts = list(torch.zeros(4, 1000, device="cuda").unbind())
    dist.all_gather(parts, part)
    dist.reduce_scatter(part, parts)
    assert sizes(recorder.snapshot(), Action.ALLOC) == [4000, 16_000, 16_000, 16_000]
    assert requested(recorder.snapshot(), Category.COMMUNICATION) == {
        "all-gather buffer": 16_000,
        "reduce-scatter buffer": 16_000,
    }


def test_collectives_of_one_tensor_allocate_nothing_and_return_their_work(rank_of: Start) -> None:
    recorder = rank_of(1, 4)
    dist.init_process_group("nccl")
    whole, part = torch.zeros(8, device="cuda"), torch.zeros(2, device="cuda")
    n_events = recorder.snapshot().n_events
    all_gather(whole, part)
    reduce_scatter(part, whole)
    for collective in (dist.all_reduce, lambda t: dist.broadcast(t, 0), lambda t: dist.reduce(t, 2)):
        collective(part)
    dist.send(part, 2)
    dist.recv(part, 0)
    work = dist.all_reduce(part, async_op=True)
    work.wait()
    assert work.is_completed()
    for one in dist.batch_isend_irecv([dist.P2POp(dist.isend, part, 2), dist.P2POp(dist.irecv, part, 0)]):
        one.wait()
    with dist._coalescing_manager():
        dist.all_reduce(part)
    assert recorder.snapshot().n_events == n_events


def test_what_other_ranks_have_counts_as_what_this_one_has(rank_of: Start) -> None:
    rank_of(2, 4)
    dist.init_process_group("nccl")
    n_tokens = torch.tensor(3, device="cuda")
    dist.all_reduce(n_tokens)
    assert n_tokens.item() == 12
    dist.all_reduce(n_tokens, dist.ReduceOp.MAX)
    assert n_tokens.item() == 12
    dist.broadcast(n_tokens, 0)
    counts = [torch.zeros_like(n_tokens) for _ in range(4)]
    dist.all_gather(counts, n_tokens)
    assert [count.item() for count in counts] == [12] * 4
    joined = torch.zeros(4, dtype=torch.int64, device="cuda")
    all_gather(joined, n_tokens.view(1))
    assert joined.tolist() == [12] * 4


def test_a_loss_can_be_reduced_and_read(rank_of: Start) -> None:
    recorder = rank_of(0, 2)
    dist.init_process_group("nccl")
    loss = torch.rand(4, device="cuda").mean()
    dist.all_reduce(loss, dist.ReduceOp.AVG)
    assert loss.item() == 1.0
    assert recorder.snapshot().metadata.extra["n_fixed_answers"] == 1


def test_functional_collectives_make_what_they_return(rank_of: Start) -> None:
    from torch.distributed import _functional_collectives as functional

    recorder = rank_of(1, 4)
    dist.init_process_group("nccl")
    part = torch.zeros(250, device="cuda")
    gather = getattr(functional, "all_gather_single", None) or functional.all_gather_tensor
    whole = gather(part, 0, dist.group.WORLD)
    functional.wait_tensor(whole)
    assert whole.shape == (1000,)
    assert sizes(recorder.snapshot(), Action.ALLOC) == [1000, 4000]
