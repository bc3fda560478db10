"""Configurations of well-known models: the keys of their ``config.json`` that decide about memory.

Source of each: the ``config.json`` beside the published weights, in the repository on huggingface.co that ``source``
names. The counts of parameters that follow from them are checked against the published ones in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """One model: where its numbers are from, and the numbers."""

    source: str
    values: Mapping[str, Any]


def _decoder(
    source: str,
    model_type: str,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int,
    inner: int,
    vocab: int,
    length: int,
    **others: Any,
) -> Preset:
    values = {
        "model_type": model_type,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "max_position_embeddings": length,
        **others,
    }
    return Preset(f"config.json of {source}", values)


_DEEPSEEK_V3 = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
}
_DEEPSEEK_V2_LITE = {
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
}
PRESETS: dict[str, Preset] = {
    "deepseek-v2-lite": _decoder(
        "deepseek-ai/DeepSeek-V2-Lite", "deepseek_v2", 2048, 27, 16, 16, 10944, 102_400, 163_840, **_DEEPSEEK_V2_LITE
    ),
    "deepseek-v3": _decoder(
        "deepseek-ai/DeepSeek-V3", "deepseek_v3", 7168, 61, 128, 128, 18432, 129_280, 163_840, **_DEEPSEEK_V3
    ),
    "gemma-2-9b": _decoder(
        "google/gemma-2-9b", "gemma2", 3584, 42, 16, 8, 14336, 256_000, 8192, head_dim=256, sliding_window=4096
    ),
    "gpt2": Preset(
        "config.json of openai-community/gpt2",
        {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257},
    ),
    "llama-2-7b": _decoder("meta-llama/Llama-2-7b-hf", "llama", 4096, 32, 32, 32, 11008, 32_000, 4096),
    "llama-2-13b": _decoder("meta-llama/Llama-2-13b-hf", "llama", 5120, 40, 40, 40, 13824, 32_000, 4096),
    "llama-2-70b": _decoder("meta-llama/Llama-2-70b-hf", "llama", 8192, 80, 64, 8, 28672, 32_000, 4096),
    "llama-3-8b": _decoder("meta-llama/Meta-Llama-3-8B", "llama", 4096, 32, 32, 8, 14336, 128_256, 8192),
    "llama-3-70b": _decoder("meta-llama/Meta-Llama-3-70B", "llama", 8192, 80, 64, 8, 28672, 128_256, 8192),
    "llama-3.1-8b": _decoder("meta-llama/Llama-3.1-8B", "llama", 4096, 32, 32, 8, 14336, 128_256, 131_072),
    "llama-3.1-70b": _decoder("meta-llama/Llama-3.1-70B", "llama", 8192, 80, 64, 8, 28672, 128_256, 131_072),
    "mistral-7b": _decoder(
        "mistralai/Mistral-7B-v0.1", "mistral", 4096, 32, 32, 8, 14336, 32_000, 32_768, sliding_window=4096
    ),
    "mixtral-8x7b": _decoder(
        "mistralai/Mixtral-8x7B-v0.1",
        "mixtral",
        4096,
        32,
        32,
        8,
        14336,
        32_000,
        32_768,
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "opt-13b": Preset(
        "config.json of facebook/opt-13b",
        {
            "model_type": "opt",
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "ffn_dim": 20480,
            "vocab_size": 50_272,
            "max_position_embeddings": 2048,
        },
    ),
    "qwen2.5-7b": _decoder("Qwen/Qwen2.5-7B", "qwen2", 3584, 28, 28, 4, 18944, 152_064, 131_072),
    "qwen3-8b": _decoder("Qwen/Qwen3-8B", "qwen3", 4096, 36, 32, 8, 12288, 151_936, 40_960, head_dim=128),
}
