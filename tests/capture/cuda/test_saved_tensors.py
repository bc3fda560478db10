"""What autograd saves: seen while it is kept, and no longer."""

from __future__ import annotations

from typing import Any

import pytest

from memscope.capture.cuda._saved_tensors import SavedTensors
from memscope.capture.patches import Patches

torch = pytest.importorskip("torch")


@pytest.fixture
def seen() -> Any:
    running: list[Any] = []
    visits: list[Any] = []
    saved, patches = SavedTensors(running, visits), Patches()
    saved.install(patches)
    yield saved, running, visits
    patches.undo()


def test_an_output_is_seen_with_the_module_that_ran_as_long_as_its_graph_keeps_it(seen: Any) -> None:
    saved, running, visits = seen
    module = torch.nn.ReLU()
    leaf = torch.ones(3, requires_grad=True)
    running.append(module)
    result = leaf.exp()  # saves its own result
    running.pop()
    [(tensor, of)] = saved.take()
    assert (tensor.tolist(), of) == (result.tolist(), module)
    assert list(saved.take()) == []
    result.sum().backward()
    assert [reference() for reference in visits[1::2]] == [module]
    assert leaf.grad.tolist() == tensor.tolist()


def test_what_its_graph_let_go_is_not_seen(seen: Any) -> None:
    saved, _, _ = seen
    result = torch.ones(3, requires_grad=True).exp()
    del result
    assert list(saved.take()) == []


def test_functional_transforms_work_beside_it(seen: Any) -> None:
    saved, _, _ = seen
    assert torch.func.grad(lambda x: x.exp().sum())(torch.zeros(2)).tolist() == [1.0, 1.0]
    kept = torch.ones(2, requires_grad=True).exp()
    assert len(list(saved.take())) == 1
    assert kept.grad_fn is not None
