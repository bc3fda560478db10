"""Configurations: where they are read from, what their keys mean, and what is wrong with those that do not tell."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from memscope.errors import InputFileError, UsageError
from memscope.serving.model_config import ModelConfig, read_model_config
from memscope.serving.shapes import KvShape


def _config(**values: object) -> ModelConfig:
    base = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8}
    return ModelConfig("a test", "a test", {**base, **values})


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
        ({"full_attention_interval": 4}, "by full_attention_interval some layers keep a recurrent state"),
        ({"attn_layer_period": 8, "attn_layer_offset": 4}, "by attn_layer_period"),
        ({"hybrid_override_pattern": "M-M*"}, "by hybrid_override_pattern"),
        ({"layers_block_type": ["mamba", "attention"] * 2}, "by layers_block_type"),
        ({"block_types": ["recurrent", "recurrent", "attention"]}, "by block_types"),
        ({"num_kv_heads": [1]}, "1 counts of key/value heads for 4 layers"),
    ],
)
def test_a_configuration_that_does_not_tell_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KvShape(_config(**values).kv_layers())


def test_keys_of_hybrid_models_that_leave_every_layer_attention_are_taken() -> None:
    plain = KvShape(_config().kv_layers())
    for values in ({"full_attention_interval": 1}, {"attn_layer_period": 1}, {"block_types": ["attention"]}):
        assert KvShape(_config(**values).kv_layers()) == plain


def test_a_configuration_is_read_from_a_file_a_folder_or_a_preset(tmp_path: Path) -> None:
    values = {"hidden_size": 64, "n_layer": 2, "num_attention_heads": 8, "n_positions": 512}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    of_folder = read_model_config(tmp_path)
    assert (of_folder.name, of_folder.n_layers, of_folder.max_length) == (tmp_path.name, 2, 512)
    packed = tmp_path / "tiny.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"text_config": values, "_name_or_path": "tiny"}).encode()))
    of_text = read_model_config(packed)
    assert of_text.is_partial
    assert of_text.kv_layers() == of_folder.kv_layers()
    assert read_model_config("GPT2").source == "config.json of openai-community/gpt2"


def test_what_is_no_configuration_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(InputFileError, match="is not a model's configuration"):
        read_model_config(path)
    with pytest.raises(UsageError, match="no preset of that name"):
        read_model_config("nonsense")
