"""Flex attention, as it runs eagerly and as it is compiled."""

from __future__ import annotations

import pytest

from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
flex = pytest.importorskip("torch.nn.attention.flex_attention")


def peak_over_inputs(*, compiled: bool) -> int:
    """Bytes above what was there, over a forward and a backward pass of 2 x 8 x 1024 x 64 in half precision."""
    with dry_run():
        attend = torch.compile(flex.flex_attention) if compiled else flex.flex_attention
        shape = (2, 8, 1024, 64)
        inputs = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        mask = flex.create_block_mask(lambda _b, _h, i, j: i >= j, None, None, 1024, 1024, device="cuda")
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = attend(*inputs, block_mask=mask, score_mod=lambda score, _b, _h, i, j: score + (i - j))
        assert out.shape == shape
        out.sum().backward()
        assert all(tensor.grad.shape == shape for tensor in inputs)
        peak: int = torch.cuda.max_memory_allocated() - before
    return peak


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_eager_operator_has_its_matrix_of_scores_in_memory() -> None:
    # The CUDA build of torch 2.11 on the emulated device: 457,314 KiB.
    assert peak_over_inputs(compiled=False) / 1024 == pytest.approx(457_314, rel=0.01)


def test_the_compiled_operator_keeps_two_numbers_a_row() -> None:
    tensor, rows = 2 * 8 * 1024 * 64 * 2, 2 * 8 * 1024 * 4
    assert peak_over_inputs(compiled=True) <= 5 * tensor + 3 * rows + 4096


def test_heads_may_share_keys() -> None:
    with dry_run():
        query, key = torch.randn(1, 8, 64, 64, device="cuda"), torch.randn(1, 2, 64, 64, device="cuda")
        attend = torch.compile(flex.flex_attention)
        assert attend(query, key, key, enable_gqa=True).shape == query.shape
