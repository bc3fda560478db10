"""Small generations with each kind of transformers' caches.

They run in dry runs and on the emulated device alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers
from transformers import cache_utils

from tests.capture.cache_rows import BATCH, HEAD_SIZE, N_HEADS, NEW_TOKENS, PROMPT, WINDOW

_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": N_HEADS,
    "head_dim": HEAD_SIZE,
    "vocab_size": 128,
}


def _ready(model: Any) -> Any:
    return model.to(torch.bfloat16).eval().to("cuda")


def llama() -> Any:
    """Every layer attends to all."""
    return _ready(transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SHAPE)))


def mistral() -> Any:
    """Every layer has a window."""
    return _ready(transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=WINDOW, **_SHAPE)))


def gemma() -> Any:
    """The first layer has a window, the second attends to all."""
    config = transformers.Gemma2Config(
        sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"], **_SHAPE
    )
    return _ready(transformers.Gemma2ForCausalLM(config))


def t5() -> Any:
    """An encoder and a decoder."""
    config = transformers.T5Config(
        d_model=64, d_ff=128, d_kv=HEAD_SIZE, num_layers=2, num_heads=N_HEADS, vocab_size=128, decoder_start_token_id=0
    )
    return _ready(transformers.T5ForConditionalGeneration(config))


def lfm() -> Any:
    """The first layer is a convolution with a state, the second attends to all."""
    config = transformers.Lfm2Config(layer_types=["conv", "full_attention"], conv_L_cache=3, **_SHAPE)
    return _ready(transformers.Lfm2ForCausalLM(config))


def prompt() -> torch.Tensor:
    """Tokens for the models."""
    return torch.randint(3, 128, (BATCH, PROMPT)).cuda()


def generate(model: Any, **options: Any) -> Any:
    """The cache that a generation ends with."""
    settings = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    tokens = prompt()
    ended = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), return_dict_in_generate=True, **{**settings, **options}
    )
    return ended.past_key_values


def quantised(backend: str, **settings: Any) -> Any:
    """A generation into a quantised cache; of the groups of tokens one is left unquantised."""
    return generate(llama(), cache_implementation="quantized", cache_config={"backend": backend, **settings})


def _whole_graph() -> Any:
    """A compilation that fails where anything breaks its graph."""
    return transformers.CompileConfig(backend="eager", mode="default", fullgraph=True)


def _used_again() -> Any:
    """A static cache that is emptied and filled by other prompts."""
    model, tokens = llama(), prompt()
    cache = cache_utils.StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad():
        model(tokens, past_key_values=cache)
        model(tokens[:, :1], past_key_values=cache)
        cache.reset()
        model(input_ids=tokens[:, :5], past_key_values=cache)
        for layer in cache.layers:
            layer.reset()
        model(inputs_embeds=model.model.embed_tokens(tokens[:, :7]), past_key_values=cache)
    return cache


def _beams() -> Any:
    """A beam search whose beams change places after each token."""
    model, tokens = llama(), prompt()
    cache = cache_utils.DynamicCache(config=model.config)
    order = torch.arange(3 * BATCH, device="cuda")
    with torch.no_grad():
        model(tokens, past_key_values=cache)
        cache.batch_repeat_interleave(3)
        for _ in range(NEW_TOKENS - 1):
            model(tokens[:, :1].repeat(3, 1), past_key_values=cache)
            cache.reorder_cache(order)
    return cache


def _cropped() -> Any:
    """A cache that grows, loses its last tokens, its second sequence, and all it had."""
    model, tokens = llama(), prompt()
    cache = cache_utils.DynamicCache(config=model.config)
    with torch.no_grad():
        model(tokens, past_key_values=cache)
        cache.crop(-4)
        model(tokens[:, :2], past_key_values=cache)
        cache.batch_select_indices(torch.zeros(1, dtype=torch.long, device="cuda"))
        cache.reset()
        model(tokens[:, :3], past_key_values=cache)
    return cache


def _copied() -> Any:
    """A prompt's cache that is copied, and the copy used."""
    model, tokens = llama(), prompt()
    cache = cache_utils.DynamicCache(config=model.config)
    with torch.no_grad():
        model(tokens, past_key_values=cache)
        copy_of_it = cache_utils.DynamicCache(config=model.config)
        for position, layer in enumerate(cache.layers):
            copy_of_it.update(layer.keys.clone(), layer.values.clone(), position)
        model(tokens[:, :2], past_key_values=copy_of_it)
    return cache, copy_of_it


_GROUPS = {"nbits": 4, "q_group_size": 16, "residual_length": 4}

PROGRAMS: dict[str, Callable[[], Any]] = {
    "dynamic": lambda: generate(llama()),
    "static": lambda: generate(llama(), cache_implementation="static"),
    "static compiled": lambda: generate(llama(), cache_implementation="static", compile_config=_whole_graph()),
    "sliding": lambda: generate(mistral()),
    "sliding static": lambda: generate(mistral(), cache_implementation="static"),
    "hybrid": lambda: generate(gemma()),
    "hybrid static": lambda: generate(gemma(), cache_implementation="static"),
    "convolution": lambda: generate(lfm()),
    "fp8": lambda: quantised("fp8"),
    "quanto": lambda: quantised("quanto", **_GROUPS),
    "hqq": lambda: quantised("hqq", axis_key=1, axis_value=1, **_GROUPS),
    "offloaded": lambda: generate(llama(), cache_implementation="offloaded"),
    "offloaded static": lambda: generate(llama(), cache_implementation="offloaded_static"),
    "beams": _beams,
    "encoder-decoder": lambda: generate(t5()),
    "encoder-decoder static": lambda: generate(t5(), cache_implementation="static"),
    "used again": _used_again,
    "cropped": _cropped,
    "copied": _copied,
}
"""Programs that return their caches, by the names under which ``cache_rows`` has what must be recorded of them."""


def tensors_within(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Every tensor that can be reached from an object through attributes and containers, on its own account."""
    if id(value) in seen or isinstance(value, str | int | float | type | torch.dtype | torch.device):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        inner = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else []
        for name in inner:
            yield from tensors_within(getattr(value, name), seen)
        if not inner:
            yield value
        return
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    for part in parts:
        yield from tensors_within(part, seen)


def held_bytes(cache: Any) -> int:
    """Bytes of the memory on the device behind everything in a cache, each once."""
    storages = {}
    for tensor in tensors_within(cache, set()):
        if tensor.is_cuda:
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
