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


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda x: torch.nn.functional.interpolate(x, scale_factor=2.0), "float32"),
        (lambda x: torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear"), "float32"),
        (lambda x: torch.logsumexp(x, -1), "float32"),
        (lambda x: torch.linalg.vector_norm(x, dim=-1), "float32"),
        (lambda x: torch.nn.functional.huber_loss(x, x, reduction="none"), "float32"),
        (lambda x: torch.nn.functional.normalize(x, dim=-1), "float32"),
        (lambda x: torch.nn.functional.softmin(x, -1), "float32"),
        (lambda x: torch.nn.functional.relu(x), "float16"),
        (lambda x: torch.nn.LSTM(16, 16).cuda()(x[0].float())[0], "float16"),
    ],
    ids=["nearest", "bilinear", "logsumexp", "vector_norm", "huber_loss", "normalize", "softmin", "relu", "lstm"],
)
def test_under_autocast_results_are_of_the_type_that_cuda_gives_them(function, dtype: str) -> None:
    # As the CUDA build of torch 2.11 says.
    with dry_run(), torch.autocast("cuda", dtype=torch.float16):
        x = torch.randn(2, 8, 16, 16, device="cuda", dtype=torch.float16)
        assert function(x).dtype == getattr(torch, dtype)


def test_the_loss_of_half_precision_logits_makes_its_logarithms_in_half_precision() -> None:
    with dry_run() as rec:
        logits = torch.randn(64, 4096, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        target = torch.zeros(64, dtype=torch.long, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(logits, target)
        assert loss.dtype == torch.float32
        loss.backward()
        assert logits.grad.dtype == torch.bfloat16
    half, whole = 2 * 64 * 4096, 4 * 64 * 4096
    made = [size for size in sizes(rec.trace, Action.ALLOC) if size in (half, whole)]
    # Logits, logarithms, their copy; then its gradient, that of the logarithms, and that of the logits.
    assert made == [half, half, whole, whole, half, half]


def test_a_bias_is_added_in_place_to_what_a_transposed_input_gives() -> None:
    with dry_run() as rec:
        layer = torch.nn.Linear(512, 1536, device="cuda")
        layer(torch.empty(8, 256, 512, device="cuda").transpose(0, 1))
    assert sizes(rec.trace, Action.ALLOC).count(12_582_912) == 1
