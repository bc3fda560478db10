"""Small models' configurations: what is estimated in the tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from memscope.gpus import GpuModel, find_gpu
from memscope.planning.estimate import Estimate, estimate
from memscope.planning.plan import Plan
from memscope.serving.model_config import ModelConfig

GPT2 = {"model_type": "gpt2", "n_embd": 256, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": 2048}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 2048,
}


def config(values: dict[str, Any]) -> ModelConfig:
    return ModelConfig("small", "config.json", values)


def plan(values: dict[str, Any] = LLAMA, **others: Any) -> Plan:
    return Plan(**{"config": config(values), "mode": "train", "n_tokens": 128, "dtype": "fp32", **others})


def card(size: str) -> GpuModel:
    """A card of a size, all of which PyTorch can have."""
    return replace(find_gpu(size), context_bytes=0)


@cache
def trained() -> Estimate:
    return estimate(plan(n_samples=4), [card("1GiB"), card("40MiB")])
