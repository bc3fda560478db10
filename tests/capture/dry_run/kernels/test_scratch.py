"""What kernels take, taken and released around their results."""

from __future__ import annotations

import pytest

from memscope.capture.dry_run.kernels.scratch import Call, scratch_of
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from tests.capture.programs import dry_run, live_bytes, owners, requested, sizes

torch = pytest.importorskip("torch")


def test_what_no_table_has_takes_nothing() -> None:
    assert scratch_of("relu", Call(None, ())) is None


def test_what_a_kernel_took_is_released_and_is_temporary() -> None:
    with dry_run() as rec:
        x = torch.empty(4000, 3072, device="cuda")
        total = x.sum(0)
        assert torch.cuda.memory_allocated() == 4000 * 3072 * 4 + 12_288
        assert torch.cuda.max_memory_allocated() > 99_090_432
        del total
    assert requested(rec.trace, Category.TEMPORARIES) == {"inside sum": 99_090_432 + 96}
    assert live_bytes(rec.trace)[-1] == 4000 * 3072 * 4


def test_memory_that_runs_out_inside_a_kernel_is_given_back() -> None:
    with dry_run(gpu="800MiB") as rec:
        x = torch.empty(4000, 3072, device="cuda")
        with pytest.raises(torch.OutOfMemoryError):
            torch.var_mean(x, 0)
        assert torch.cuda.memory_allocated() <= 4000 * 3072 * 4 + 2 * 12_288
    assert 396_361_728 in sizes(rec.trace, Action.OOM)
    assert owners(rec.trace) is not None


def test_what_torch_has_no_rule_of_shapes_for_has_one_here() -> None:
    with dry_run():
        weight = torch.nn.Parameter(torch.empty(16, 16, device="cuda"))
        weight.grad = torch.empty_like(weight)
        torch.optim.SGD([weight], lr=0.1, fused=True).step()
        scores = torch.empty(8, 10, device="cuda", requires_grad=True)
        target = torch.zeros(8, dtype=torch.long, device="cuda")
        torch.nn.functional.multi_margin_loss(scores, target).backward()
        assert scores.grad is not None
        assert scores.grad.shape == (8, 10)
