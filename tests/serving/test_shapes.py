"""Bytes a token, against the closed form of each kind of attention."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UsageError
from memscope.serving.model_config import read_model_config
from memscope.serving.shapes import KvLayer, KvShape


def _shape(name: str, **options: object) -> KvShape:
    return KvShape(read_model_config(name).kv_layers(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-2-13b", 2 * 40 * 40 * 128 * 2),  # one key and one value, layers, heads, elements, bytes
        ("llama-3-8b", 2 * 32 * 8 * 128 * 2),
        ("llama-3-70b", 2 * 80 * 8 * 128 * 2),
        ("mistral-7b", 2 * 32 * 8 * 128 * 2),
        ("gemma-2-9b", 2 * 42 * 8 * 256 * 2),
        ("qwen2.5-7b", 2 * 28 * 4 * 128 * 2),
        ("gpt2", 2 * 12 * 12 * 64 * 2),
        ("opt-13b", 2 * 40 * 40 * 128 * 2),
        ("deepseek-v3", 61 * (512 + 64) * 2),  # a latent and a rotary key, once
    ],
)
def test_a_token_takes_the_closed_form(name: str, expected: int) -> None:
    assert _shape(name).bytes_per_token == expected


def test_a_window_bounds_what_a_long_sequence_takes() -> None:
    shape = _shape("mistral-7b")
    assert shape.sequence_bytes(1000) == 1000 * shape.bytes_per_token
    assert shape.sequence_bytes(30_000) == 4096 * shape.bytes_per_token


def test_hybrid_layers_keep_a_window_or_everything() -> None:
    shape = _shape("gemma-2-9b")
    layer = 2 * 8 * 256 * 2
    assert shape.groups == ((None, 21 * layer), (4096, 21 * layer))
    assert shape.sequence_bytes(8000) == 21 * layer * (8000 + 4096)
    assert [layer.window for layer in shape.layers[:4]] == [4096, None, 4096, None]


def test_fp8_halves_and_int4_pays_for_scales() -> None:
    assert _shape("llama-3-8b", kv_dtype="fp8").bytes_per_token == 2 * 32 * 8 * 128
    # 64 bytes of elements, and 2 groups of 64 with a scale and a zero of 2 bytes each.
    assert _shape("llama-3-8b", kv_dtype="int4").bytes_per_token == 2 * 32 * 8 * (64 + 2 * 4)


def test_heads_are_spread_and_then_copied_and_a_latent_always_copied() -> None:
    whole = _shape("llama-3-8b").bytes_per_token
    assert _shape("llama-3-8b", tensor_parallel=4).bytes_per_token == whole // 4
    assert _shape("llama-3-8b", tensor_parallel=8).bytes_per_token == whole // 8
    assert _shape("llama-3-8b", tensor_parallel=16).bytes_per_token == whole // 8
    latent = _shape("deepseek-v3")
    assert _shape("deepseek-v3", tensor_parallel=8).bytes_per_token == latent.bytes_per_token
    with pytest.raises(UsageError, match="8 key/value heads cannot be spread over 3 GPUs"):
        _ = _shape("llama-3-8b", tensor_parallel=3).bytes_per_token


@given(
    n_tokens=st.integers(0, 60), block=st.integers(1, 9), window=st.one_of(st.none(), st.integers(1, 20)),
    page=st.sampled_from([64, 100]),
)  # fmt: skip
def test_tables_are_what_counting_blocks_and_pages_gives(
    n_tokens: int, block: int, window: int | None, page: int
) -> None:
    shape = KvShape((KvLayer(1, 3, 2), KvLayer(2, 3, 2, window)))
    sizes = (10, 20)
    oldest = 0 if window is None else max(0, n_tokens - window)
    blocks = [{t // block for t in range(n_tokens)}, {t // block for t in range(oldest, n_tokens)}]
    expected = sum(len(found) * block * size for found, size in zip(blocks, sizes, strict=True))
    assert shape.paged_bytes_table(60, block)[n_tokens] == expected
    pages = sum(len({b // page for b in range(n_tokens * size)}) * page for size in (6, 4, 12, 8))
    assert shape.virtual_bytes_table(60, page)[n_tokens] == pages
    assert shape.sequence_bytes_table(60)[n_tokens] == shape.sequence_bytes(n_tokens)
