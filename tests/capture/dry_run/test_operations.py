"""Operations of a dry run: where they run, what they make, what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memscope.trace.categories import Category
from tests.capture.programs import dry_run, requested, small_model

torch = pytest.importorskip("torch")


def test_host_tensors_make_no_events_and_have_their_values() -> None:
    with dry_run() as rec:
        host = torch.arange(6).reshape(2, 3)
        assert host.sum().item() == 15
        assert (host.device.type, host.is_cuda) == ("cpu", False)
        large = torch.randn(2048, 2048)
        assert float(large.mean()) == 1.0  # too large to be real: a fixed answer, which is counted
    assert rec.trace.n_events == 0
    assert rec.trace.metadata.extra["n_fixed_answers"] == 1


def test_mixing_host_and_device_fails_as_on_a_gpu() -> None:
    with dry_run(), pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="cuda") @ torch.ones(3)


def test_gradients_accumulate_in_place() -> None:
    with dry_run() as rec:
        weight = torch.zeros(1 << 20, device="cuda", requires_grad=True)
        for _ in range(2):
            (weight * 2 + weight * 3).sum().backward()
        assert torch.cuda.max_memory_allocated() <= 6 * (4 << 20) + 4096
        assert torch.cuda.memory_allocated() == 2 * (4 << 20)
    assert rec.trace.n_events > 0


def test_convolutions_norms_masks_and_inference_mode_run() -> None:
    nn = torch.nn
    with dry_run() as rec:
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)).cuda()
        network(torch.randn(4, 3, 32, 32, device="cuda")).sum().backward()
        numbers = torch.randint(0, 9, (3, 5), device="cuda")
        assert numbers[numbers > 3].shape == (15,)  # at most
        with torch.inference_mode():
            out = torch.nn.RMSNorm(64).cuda()(small_model().eval()[0](torch.ones(2, 64, device="cuda"))[:, :64])
        assert out.shape == (2, 64)
    assert requested(rec.trace, Category.GRADIENTS)["0.weight.grad"] == 8 * 3 * 9 * 4


def test_shapes_that_depend_on_known_values_are_those_of_the_values() -> None:
    with dry_run():
        kept = torch.tensor([1, 0, 1, 1, 0]).cuda()
        assert kept.nonzero().shape == (3, 1)
        assert torch.arange(10, device="cuda")[torch.tensor([True] * 4 + [False] * 6).cuda()].shape == (4,)
        values, counts = torch.unique(kept, return_counts=True)
        assert (values.tolist(), counts.tolist()) == ([0, 1], [2, 3])
        assert torch.bincount(kept).tolist() == [2, 3]
        assert torch.repeat_interleave(torch.tensor([2, 3]).cuda()).tolist() == [0, 0, 1, 1, 1]


def test_shapes_that_depend_on_unknown_values_are_the_largest_that_there_can_be() -> None:
    with dry_run():
        unknown = torch.randint(0, 9, (4, 8), device="cuda")
        values, inverse, counts = torch.unique(unknown, return_inverse=True, return_counts=True)
        assert (values.shape, inverse.shape, counts.shape) == ((32,), (4, 8), (32,))
        assert torch.unique_consecutive(unknown).shape == (32,)
        assert torch.unique(unknown, dim=1).shape == (4, 8)


def test_a_compiled_module_has_its_original() -> None:
    with dry_run():
        model = torch.nn.Linear(4, 2).cuda()
        compiled = torch.compile(model)
        assert compiled._orig_mod is model
        assert list(compiled.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.gather(-1, torch.zeros(1024, 8, dtype=torch.long, device="cuda")),
        lambda x: x.max(-1).values,
        lambda x: x.topk(8, -1).values,
        lambda x: x.sort(-1).values,
        lambda x: x.median(-1).values,
        lambda x: x.index_select(1, torch.zeros(8, dtype=torch.long, device="cuda")),
        lambda x: x[torch.zeros(8, dtype=torch.long, device="cuda")],
    ],
    ids=["gather", "max", "topk", "sort", "median", "index_select", "index"],
)
def test_a_gradient_that_is_written_into_zeros_is_made_once(function: Callable[[Any], Any]) -> None:
    # As the CUDA build does: one tensor of the input's size is made in the backward pass.
    with dry_run():
        x = torch.randn(1024, 2048, device="cuda", requires_grad=True)
        loss = function(x).sum()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss.backward()
        assert x.nbytes <= torch.cuda.max_memory_allocated() - before < 1.1 * x.nbytes
