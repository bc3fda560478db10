"""Parameters counted from configurations, against published counts and against the models themselves."""

from __future__ import annotations

from typing import Any

import pytest

from memscope.errors import UsageError
from memscope.serving._parameters import count_parameters
from memscope.serving.model_config import ModelConfig, read_model_config
from memscope.serving.presets import PRESETS
from tests.serving.test_cache_bytes import MODELS, SMALL

PUBLISHED = {
    # Totals of the safetensors index beside the weights, or of the paper.
    "deepseek-v2-lite": 15_706_484_224,
    "gemma-2-9b": 9_241_705_984,
    "gpt2": 124_439_808,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_presets_have_the_published_number_of_parameters(name: str) -> None:
    assert count_parameters(read_model_config(name)).n_params == PUBLISHED[name]


def test_every_preset_can_be_counted() -> None:
    for name in PRESETS:
        assert count_parameters(read_model_config(name)).n_params > 1e8


TYPES: dict[str, dict[str, Any]] = {
    **MODELS,
    "deepseek_v3": {**MODELS["deepseek_v3"], "first_k_dense_replace": 1},
    "gemma": {**SMALL, "head_dim": 16},
    "gemma2": {**SMALL, "head_dim": 16},
    "mixtral": {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 96, "vocab_size": 128,
        "max_position_embeddings": 64, "word_embed_proj_dim": 64,
    },
    "phi3": {**SMALL, "pad_token_id": 0},
    "qwen3_moe": {
        **SMALL, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(TYPES))
def test_counts_are_the_models_own(model_type: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    values = TYPES[model_type]
    config = transformers.AutoConfig.for_model(model_type, **values)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    n_own = sum(parameter.numel() for parameter in model.parameters())
    n_own += sum(buffer.numel() for name, buffer in model.named_buffers() if "correction_bias" in name)
    counted = count_parameters(ModelConfig(model_type, "a test", {"model_type": model_type, **values}))
    assert counted.n_params == n_own


def test_a_type_that_is_not_known_asks_for_the_bytes() -> None:
    with pytest.raises(UsageError, match=r"'mamba' are not known: give the weights' size"):
        count_parameters(ModelConfig("x", "x", {"model_type": "mamba"}))


def test_quantised_weights_leave_embeddings_and_norms_alone() -> None:
    parameters = count_parameters(read_model_config("llama-2-7b"))
    plain = 2 * 32_000 * 4096 + 65 * 4096  # embeddings and head, norms
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    rows = 32 * (4 * 4096 + 2 * 11008 + 4096)
    assert parameters.n_params == plain + linear
    assert parameters.bytes_per_gpu("none") == 2 * (plain + linear)
    assert parameters.bytes_per_gpu("int8") == 2 * plain + linear + 4 * rows
    assert parameters.bytes_per_gpu("int4") == 2 * plain + linear // 2 + linear // 128 * 5 // 2


def test_key_and_value_weights_are_copied_beyond_the_heads() -> None:
    parameters = count_parameters(read_model_config("llama-3-8b"))
    eighth, sixteenth = parameters.bytes_per_gpu("none", 8), parameters.bytes_per_gpu("none", 16)
    kv = 2 * 2 * 32 * 4096 * 1024
    norms = 2 * 65 * 4096
    whole = parameters.bytes_per_gpu("none")
    assert eighth == (whole - norms) // 8 + norms
    assert sixteenth == (whole - norms - kv) // 16 + kv // 8 + norms
