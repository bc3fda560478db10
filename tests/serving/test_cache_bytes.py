"""Bytes a token against what a model's own cache holds at the end of ``generate()``, in a dry run."""

from __future__ import annotations

from typing import Any

import pytest

from memscope.serving.model_config import ModelConfig
from memscope.serving.shapes import KvShape
from memscope.trace.categories import Category

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from memscope.analysis import Analysis  # noqa: E402
from tests.capture.programs import dry_run  # noqa: E402

PROMPT, NEW = 24, 3
WINDOW_SIZE_BYTES = 8
"""A layer with a window also keeps the window's size, in a tensor of one integer."""
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 128,
    "max_position_embeddings": 256,
}
LATENT = {
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {**SMALL},
    "mistral": {**SMALL, "sliding_window": 16},
    "qwen2": {**SMALL},
    "qwen3": {**SMALL, "head_dim": 16},
    "gemma3_text": {
        **SMALL,
        "head_dim": 8,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128, "n_positions": 256},
    "deepseek_v3": {**SMALL, "num_key_value_heads": 8, **LATENT},
}


def _generate(model_type: str, batch: int) -> tuple[ModelConfig, int, int]:
    """The configuration, the tokens that the cache holds, and its bytes at the end."""
    values = {**MODELS[model_type], "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(model_type, **values)
    with dry_run() as recorder, torch.no_grad():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval().to("cuda")
        prompt = torch.randint(1, 128, (batch, PROMPT), device="cuda")
        found = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            min_new_tokens=NEW,
            max_new_tokens=NEW,
            do_sample=False,
            return_dict_in_generate=True,
        )
        assert found.past_key_values is not None
    trace = recorder.trace
    end = Analysis(trace).end(0)
    by_category = end.by("category")
    held = int(by_category.loc[Category.KV_CACHE.label, "requested_bytes"])
    del found
    return (
        ModelConfig(model_type, "this test", {"model_type": model_type, **MODELS[model_type]}),
        PROMPT + NEW - 1,
        held,
    )


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("model_type", sorted(MODELS))
def test_the_closed_form_is_what_generate_leaves_in_the_cache(model_type: str, batch: int) -> None:
    config, n_tokens, held = _generate(model_type, batch)
    shape = KvShape(config.kv_layers())
    n_windows = sum(layer.window is not None for layer in shape.layers)
    assert held == batch * shape.sequence_bytes(n_tokens) + n_windows * WINDOW_SIZE_BYTES
