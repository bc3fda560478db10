"""Attention by plain products, as torch 2.11 asks for memory on an emulated A100."""

from __future__ import annotations

import pytest

from tests.capture.programs import dry_run, requests_of

torch = pytest.importorskip("torch")
attend = torch.nn.functional.scaled_dot_product_attention

_WORKSPACES = 2 * 8_519_680 + (1 << 20)
"""Of the products of both ways, and of the bias that comes first."""
_SCORES = 4 * 16 * 1000 * 1000


def _attended(mask: str | None, p: float = 0.0) -> tuple[list[int], int]:
    """What it asks for in bfloat16, and the peak."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def run() -> None:
        query, key, value = (
            torch.empty(4, 1000, 16, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True).transpose(1, 2)
            for _ in range(3)
        )
        given = torch.ones(4, 1, 1000, 1000, dtype=torch.bool, device="cuda") if mask == "bool" else None
        with sdpa_kernel(SDPBackend.MATH):
            out = attend(query, key, value, given, dropout_p=p, is_causal=mask == "causal")
        torch.autograd.grad(out, (query, key, value), torch.empty_like(out))
        peaks.append(torch.cuda.max_memory_allocated())

    peaks: list[int] = []
    return requests_of(run), peaks[0]


def test_the_mask_is_added_in_place_and_dropout_keeps_a_byte_an_element() -> None:
    asked, _ = _attended("causal", 0.1)
    assert asked.count(4 * _SCORES) == 7  # scores, shares, dropped; gradients of all, and a product
    assert asked.count(_SCORES) == 2  # what is hidden, and the dropout's mask


def test_the_peak_is_that_of_the_cuda_build() -> None:
    _, peak = _attended(None)
    assert 0 <= peak - (1_114_112_000 + _WORKSPACES) < 2 << 20  # what blocks have beyond what was asked for


def test_a_boolean_mask_becomes_numbers_of_the_querys_type() -> None:
    asked, _ = _attended("bool")
    assert asked[4:7] == [2, 2, 8_000_000]


def test_values_may_come_in_float32_and_from_fewer_heads() -> None:
    with dry_run():
        query, key = (torch.empty(2, n, 300, 30, device="cuda") for n in (32, 8))
        assert attend(query, key, key, enable_gqa=True, is_causal=True).shape == (2, 32, 300, 30)
        assert attend(query, query, query, scale=-0.5).dtype == torch.float32
