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


def peak_of_a_mask(*, compiled: bool) -> int:
    """Bytes above what was there while the blocks of a causal mask of 2 x 4096 x 4096 are found."""
    with dry_run():
        create = torch.compile(flex.create_block_mask) if compiled else flex.create_block_mask
        before = torch.cuda.memory_allocated()
        mask = create(lambda _b, _h, i, j: i >= j, 2, None, 4096, 4096, device="cuda")
        assert mask.shape == (2, 1, 4096, 4096)
        assert mask.kv_indices.shape == mask.full_kv_indices.shape == (2, 1, 32, 32)
        peak: int = torch.cuda.max_memory_allocated() - before
    return peak


def test_only_an_eager_mask_is_in_memory_for_each_pair_of_positions() -> None:
    assert peak_of_a_mask(compiled=False) > 2 * 4096 * 4096
    assert peak_of_a_mask(compiled=True) < 2**20


def test_a_compiled_mask_is_a_real_one_again_after_the_dry_run() -> None:
    with dry_run():
        create = torch.compile(flex.create_block_mask)
    blocks = create(lambda _b, _h, i, j: i >= j, None, None, 256, 256, device="cpu")
    assert blocks.to_dense().tolist() == [[[[1, 0], [1, 1]]]]
