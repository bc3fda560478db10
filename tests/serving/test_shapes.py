"""Bytes a token, against the closed form of each kind of attention."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UsageError
from memscope.serving.model_config import ModelConfig, read_model_config
from memscope.serving.shapes import KvLayer, KvShape


def _shape(name: str, **options: object) -> KvShape:
    return KvShape(read_model_config(name).kv_layers(), **options)  # type: ignore[arg-type]


def _config(**values: object) -> ModelConfig:
    base = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8}
    return ModelConfig("a test", "a test", {**base, **values})


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


def test_one_head_serves_all_queries_in_multi_query_attention() -> None:
    for values in ({"model_type": "falcon", "multi_query": True}, {"model_type": "gpt_bigcode", "multi_query": True}):
        assert KvShape(_config(**values).kv_layers()).bytes_per_token == 4 * 2 * 8 * 2


def test_counts_of_heads_may_differ_by_layer() -> None:
    shape = KvShape(_config(num_kv_heads=[2, 2, 4, 8]).kv_layers())
    assert shape.layer_token_bytes == tuple(2 * n * 8 * 2 for n in (2, 2, 4, 8))
    assert shape.unit_bytes == 2 * 2 * 8 * 2
    blocks = [{"attention": {"n_heads_in_group": n}} for n in (8, 4, None, 8)]
    assert len(_config(block_configs=blocks).kv_layers()) == 3


def test_head_dim_may_be_explicit() -> None:
    assert KvShape(_config(head_dim=32).kv_layers()).bytes_per_token == 4 * 2 * 8 * 32 * 2


def test_qwen_uses_its_window_only_where_it_says_so() -> None:
    values = {"model_type": "qwen2", "sliding_window": 16, "max_window_layers": 2}
    assert all(layer.window is None for layer in _config(**values).kv_layers())
    windows = [layer.window for layer in _config(**values, use_sliding_window=True).kv_layers()]
    assert windows == [None, None, 16, 16]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": "4"}, "num_hidden_layers is '4', not a whole number"),
        ({"num_hidden_layers": 0}, "not a whole number above 0"),
        ({"num_hidden_layers": 1 << 20}, "more than any model has"),
        ({"sliding_window": [4]}, r"sliding_window is \[4\], not a whole number"),
        ({"num_kv_heads": [1, "x", 1, 1]}, "an entry that is not a whole number"),
        ({"block_configs": [None]}, "1 block_configs for 4 layers"),
        ({"block_configs": [{"attention": {"n_heads_in_group": "x"}}] * 4}, "n_heads_in_group is 'x'"),
        ({"hidden_size": 63}, "not a multiple of 8 attention heads"),
        ({"layer_types": ["full_attention"]}, "1 layer_types for 4 layers"),
        ({"layer_types": ["linear_attention"] * 4}, "recurrent state"),
        ({"layer_types": ["odd"] * 4}, "'odd' is not known"),
        ({"layer_types": ["sliding_attention"] * 4}, "the window's size is not given"),
        ({"num_kv_heads": [1]}, "1 counts of key/value heads for 4 layers"),
    ],
)
def test_a_configuration_that_does_not_tell_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KvShape(_config(**values).kv_layers())


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
