"""Gradients of embeddings, as torch 2.11 asks for memory on an emulated A100."""

from __future__ import annotations

import pytest

from tests.capture.programs import on_device, requests_of

torch = pytest.importorskip("torch")


def _gradient(n_tokens: int, width: int, dtype: str = "float32", n_rows: int = 32_000, **given: object) -> list[int]:
    def run(weight: torch.Tensor, tokens: torch.Tensor) -> None:
        out = torch.nn.functional.embedding(tokens, weight, **given)
        torch.autograd.grad(out, weight, torch.empty_like(out))

    tokens = on_device(n_tokens, dtype="int64")
    return requests_of(run, on_device(n_rows, width, dtype=dtype, grad=True), tokens)[2:]


def test_tokens_are_sorted_and_what_falls_on_one_row_added_up_in_parts() -> None:
    assert _gradient(4096, 512) == [
        *(32_768, 32_768, 32_768, 84_479, 65_536_000, 32_768, 8, 32_768, 1_279, 32_768, 32_768, 1_279, 8),
        *(36_040, 9_226_240),
    ]


@pytest.mark.parametrize(
    ("n_tokens", "width", "dtype", "parts"),
    [(4096, 4096, "float32", 73_809_920), (32_768, 768, "bfloat16", 108_367_872), (3073, 512, "float32", 6_922_240)],
)
def test_parts_are_added_up_in_float32(n_tokens: int, width: int, dtype: str, parts: int) -> None:
    assert _gradient(n_tokens, width, dtype)[-1] == parts


def test_few_tokens_are_added_directly() -> None:
    assert _gradient(3072, 512) == [65_536_000]
    assert 288_768 in _gradient(1280, 64, n_rows=1000, scale_grad_by_freq=True)


def test_a_bag_is_sorted_however_small() -> None:
    def run(weight: torch.Tensor, tokens: torch.Tensor) -> None:
        offsets = torch.arange(0, 5120, 20, device="cuda")
        out = torch.nn.functional.embedding_bag(tokens, weight, offsets, mode="sum")
        torch.autograd.grad(out, weight, torch.empty_like(out))

    asked = requests_of(run, on_device(1000, 128, grad=True), on_device(5120, dtype="int64"))
    assert asked[1:4] == [2_048, 40_960, 131_072]
    assert 774_144 in asked


def test_sparse_gradients_have_indices_and_values() -> None:
    def run(weight: torch.Tensor, tokens: torch.Tensor) -> None:
        torch.nn.functional.embedding(tokens, weight, sparse=True).sum().backward()
        assert weight.grad is not None
        assert weight.grad.is_sparse

    asked = requests_of(run, on_device(1000, 64, grad=True), on_device(4096, dtype="int64"))
    assert 1_048_576 in asked
    assert 256_000 not in asked
