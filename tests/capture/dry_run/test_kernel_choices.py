"""Kernels as CUDA would choose them: attention, autocast's casts."""

from __future__ import annotations

import pytest

from memscope.trace.categories import Category
from memscope.trace.schema import Action
from tests.capture.programs import dry_run, requested, sizes, small_model

torch = pytest.importorskip("torch")


def test_attention_makes_no_attention_matrix() -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    with dry_run() as rec:
        query = torch.zeros(2, 8, 1024, 64, dtype=torch.bfloat16, device="cuda")
        attend(query, query, query, is_causal=True)
    assert max(sizes(rec.trace, Action.ALLOC)) == 2 * 8 * 1024 * 64 * 2


def test_autocast_and_gradient_scaling_run() -> None:
    with dry_run() as rec:
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cuda")
        with torch.autocast("cuda", dtype=torch.float16):
            out = model(torch.randn(8, 64, device="cuda"))
        assert out.dtype == torch.float16
        scaler.scale(out.float().sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert requested(rec.trace, Category.OPTIMIZER_STATE)["momentum_buffer of 0.weight"] == 64 * 256 * 4
