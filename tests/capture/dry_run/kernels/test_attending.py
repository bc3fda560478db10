"""What fused attention takes beside its results, as torch 2.11 asks for it on an emulated A100."""

from __future__ import annotations

from typing import Any

import pytest

from memscope.capture.dry_run.kernels._attending import splits_of_keys
from memscope.trace.schema import Action
from tests.capture.programs import dry_run, requests_of, sizes

torch = pytest.importorskip("torch")


def _gradients(backend: str, batch: int, heads: int, n: int, head: int, dtype: str, **given: Any) -> list[int]:
    """Sizes of what attention and its gradients ask for."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    keys = given.pop("keys", heads)

    def made(n_heads: int) -> Any:
        shape = (batch, n, n_heads, head)
        return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda", requires_grad=True)

    def run() -> None:
        query, key, value = (made(count).transpose(1, 2) for count in (heads, keys, keys))
        with sdpa_kernel(getattr(SDPBackend, backend)):
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, **given)
        torch.autograd.grad(out, (query, key, value), torch.empty_like(out))

    return requests_of(run)


@pytest.mark.parametrize(
    ("head", "n", "dtype", "asked"),
    [
        (64, 1000, "bfloat16", [256_000, 16_793_600]),
        (64, 129, "bfloat16", [8_256, 787_200]),
        (96, 300, "bfloat16", [19_200, 3_146_496]),
        (160, 300, "bfloat16", [3_072_000, 19_200, 15_206_656]),
        (64, 300, "float32", [1_228_800, 19_200, 1_312_000]),
        (160, 300, "float32", [3_072_000, 19_200, 4_720_896]),
        (72, 1000, "float32", [4_608_000, 64_000, 8_392_704]),
    ],
)
def test_memory_efficient_attention_adds_gradients_up_in_blocks(
    head: int, n: int, dtype: str, asked: list[int]
) -> None:
    batch, heads = (4, 16) if n == 1000 and dtype == "bfloat16" else (2, 8)
    found = _gradients("EFFICIENT_ATTENTION", batch, heads, n, head, dtype)
    assert [size for size in asked if size not in found] == []


@pytest.mark.parametrize(
    ("head", "n", "asked"),
    [
        (64, 1000, [262_144, 16_777_216]),
        (96, 300, [38_400, 3_686_400, 24_576, 2_359_296]),
        (128, 300, [38_400, 4_915_200, 24_576, 3_145_728]),
        (40, 300, [38_400, 2_457_600, 24_576, 1_572_864]),
    ],
)
def test_flash_attention_splits_keys_and_adds_gradients_up_in_float32(head: int, n: int, asked: list[int]) -> None:
    batch, heads = (4, 16) if n == 1000 else (2, 8)
    found = _gradients("FLASH_ATTENTION", batch, heads, n, head, "bfloat16", is_causal=True)
    assert [size for size in asked if size not in found] == []


def test_gradients_of_shared_keys_are_made_for_each_head() -> None:
    found = _gradients("FLASH_ATTENTION", 2, 32, 300, 64, "bfloat16", is_causal=True, enable_gqa=True, keys=8)
    assert found.count(2_457_600) == 6  # query, output, their gradients; those of keys and values for each head


def test_keys_are_split_where_queries_do_not_fill_the_device() -> None:
    assert splits_of_keys(n_blocks=64 * 16, n_multiprocessors=216, n_key_blocks=4) == 1
    assert splits_of_keys(n_blocks=16, n_multiprocessors=216, n_key_blocks=3) == 3
    assert splits_of_keys(n_blocks=8, n_multiprocessors=216, n_key_blocks=32) == 16


def test_a_softmax_and_its_gradient_have_temporaries() -> None:
    with dry_run() as rec:
        x = torch.empty(1024, 2048, device="cuda", requires_grad=True)
        torch.autograd.grad(x.softmax(-1), x, torch.empty(1024, 2048, device="cuda"))
    assert sizes(rec.trace, Action.ALLOC).count(8_388_608) == 5


def test_an_output_that_lies_as_its_copy_would_is_not_copied() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def run() -> None:
        joined = torch.empty(2, 700, 3 * 1024, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        query, key, value = (part.view(2, 700, 16, 64).transpose(1, 2) for part in joined.chunk(3, -1))
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        torch.autograd.grad(out, (query, key, value), torch.empty_like(out))

    # The output and what stands for its gradient, and three gradients.
    assert requests_of(run).count(2_867_200) == 5
