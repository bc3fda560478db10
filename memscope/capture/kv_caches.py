"""What is in a key/value cache: the tensors of its layers, how each keeps its tokens, how many it has taken in.

Nothing here reads a value from the device: what a static layer counts there is asked of nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from memscope.trace.cache_labels import cache_label
from memscope.trace.schema import NONE_ID

CACHE_NAMES = ("past_key_values", "cache_params")
"""What models call the cache that they are given and return (transformers ``generation/utils.py``, ALL_CACHE_NAMES)."""
_QUERIES = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")
"""What holds the tokens that a forward pass puts into its cache, the decoder's first."""
_OTHER_PARTS = (
    ("indexer_keys", "indexer keys"),
    ("indexer_position_ids", "indexer positions"),
    ("indexer_cumulative_length", "indexer length"),
    ("cumulative_length", "length"),
    ("_sliding_window_tensor", "window"),
    ("_pending_beam_idx", "pending order"),
)
"""Attributes of a layer beside its keys and values; all but the first are a few numbers for its own bookkeeping."""
_PLAIN_PARTS = {"_data": "", "_scale": " scale", "_shift": " zero"}
UNKNOWN_KIND = (AttributeError, TypeError, ValueError, LookupError, RuntimeError, NotImplementedError)
"""What a cache of a kind that is not known may raise when it is looked into."""


class LayerShape(NamedTuple):
    """How a layer keeps its tokens, as a row of :class:`~memscope.trace.tables.CacheLayerTable` says it."""

    kind: str
    n_sequences: int
    key_token_bytes: int
    value_token_bytes: int
    capacity_tokens: int
    window_tokens: int
    device: int


class CacheLeaf(NamedTuple):
    """One cache: of self-attention, or of a decoder's attention to an encoder's output."""

    cache: Any
    is_cross: bool


def leaves(cache: Any) -> Iterator[CacheLeaf]:
    """The caches in what a model is given: transformers' Cache objects, or tuples of layers; none for anything else."""
    if cache is None:
        return
    if hasattr(cache, "cross_attention_cache"):
        yield CacheLeaf(cache.self_attention_cache, is_cross=False)
        yield CacheLeaf(cache.cross_attention_cache, is_cross=True)
    elif isinstance(cache, tuple | list):
        layers = [layer for layer in cache if isinstance(layer, tuple | list)]
        yield CacheLeaf(tuple(layer[:2] for layer in layers), is_cross=False)
        if any(len(layer) == 4 for layer in layers):  # keys and values of both, as encoder-decoder models had them
            yield CacheLeaf(tuple(layer[2:4] for layer in layers), is_cross=True)
    elif isinstance(getattr(cache, "layers", None), list | tuple):
        yield CacheLeaf(cache, is_cross=False)


def layers_of(cache: Any) -> Any:
    """The layers of a leaf, in the model's order."""
    return cache if isinstance(cache, tuple) else cache.layers


def layer_parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a layer, each with the name of the part that it is; what is not there yet is skipped."""
    if isinstance(layer, tuple | list):
        pairs: Any = zip(("keys", "values"), layer, strict=False)
    elif hasattr(layer, "_quantized_keys"):
        yield from _inner_tensors(layer._quantized_keys, "keys")
        yield from _inner_tensors(layer._quantized_values, "values")
        pairs = (("keys residual", layer.keys), ("values residual", layer.values))
    else:
        pairs = (("keys", getattr(layer, "keys", None)), ("values", getattr(layer, "values", None)))
    for part, tensor in pairs:
        if is_tensor(tensor):
            yield part, tensor
    for name, part in _OTHER_PARTS:
        tensor = getattr(layer, name, None)
        if is_tensor(tensor):
            yield part, tensor
    if hasattr(layer, "conv_states"):
        yield from _states(layer)


def leaf_tensors(leaf: CacheLeaf, cache_id: int | None) -> Iterator[tuple[str, Any]]:
    """Labels and tensors of all that is in a cache."""
    for position, layer in enumerate(layers_of(leaf.cache)):
        for part, tensor in layer_parts(layer):
            yield cache_label(cache_id, position, part, is_cross=leaf.is_cross), tensor


def describe_layer(layer: Any) -> LayerShape | None:
    """How a layer keeps its tokens; None where it holds nothing, or nothing on a GPU."""
    if isinstance(layer, tuple | list):
        keys, values, capacity, window = layer[0], layer[1], NONE_ID, NONE_ID
    else:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        capacity, window = _limits(layer)
    device = _device_of(layer, keys)
    if device is None:
        return None
    kind = type(layer).__name__
    quantised = getattr(layer, "_quantized_keys", None)
    if quantised is not None:
        return LayerShape(kind, _quantised_sequences(quantised), NONE_ID, NONE_ID, NONE_ID, NONE_ID, device)
    if not is_tensor(keys) or len(keys.shape) < 3:
        state = next((tensor for _, tensor in _states(layer)), None) if hasattr(layer, "conv_states") else None
        n = NONE_ID if state is None else int(state.shape[0])
        return None if state is None else LayerShape(kind, n, NONE_ID, NONE_ID, NONE_ID, NONE_ID, device)
    n, key_bytes, value_bytes = int(keys.shape[0]), _token_bytes(keys), _token_bytes(values)
    return LayerShape(kind, n, key_bytes, value_bytes, capacity, window, device)


def tokens_taken_in(layer: Any, *, is_cross: bool) -> int | None:
    """Tokens of each sequence that a layer has taken in, as the host knows it; None where only the device does."""
    if isinstance(layer, tuple | list):
        return int(layer[0].shape[-2])
    for name in ("cumulative_length_int", "cumulative_length"):
        count = getattr(layer, name, None)
        if type(count) is int:
            return count
    keys = getattr(layer, "keys", None)
    if keys is None or len(keys.shape) < 3:
        return 0 if getattr(layer, "is_initialized", None) is False else None
    if is_static(layer) and not is_cross:
        return None
    return int(keys.shape[-2])


def is_static(layer: Any) -> bool:
    """Whether a layer has its full size from the start."""
    return hasattr(layer, "max_cache_len")


def n_query_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Tokens of each sequence that a forward pass was given; −1 where that cannot be told."""
    given = next((kwargs[name] for name in _QUERIES if kwargs.get(name) is not None), args[0] if args else None)
    shape: Any = getattr(given, "shape", ())
    return int(shape[1]) if len(shape) > 1 else NONE_ID


def is_tensor(value: Any) -> bool:
    """Whether a value has memory behind it."""
    return hasattr(value, "untyped_storage")


def _limits(layer: Any) -> tuple[int, int]:
    """Tokens of each sequence that there is room for, and that are kept; −1 where there is no such limit.

    A dynamic layer with a sliding window keeps one token less than the window: the next one completes it.
    """
    if is_static(layer):
        keys = getattr(layer, "keys", None)
        capacity = int(layer.max_cache_len) if keys is None else int(keys.shape[-2])
        return capacity, capacity if getattr(layer, "is_sliding", False) else NONE_ID
    window = getattr(layer, "sliding_window", None)
    return NONE_ID, NONE_ID if window is None else int(window) - 1


def _token_bytes(tensor: Any) -> int:
    """Bytes of one token of one sequence in a tensor of (sequences, …, tokens, width)."""
    shape = tensor.shape
    n_numbers = int(math.prod(shape[1:-2]) * shape[-1])
    return n_numbers * int(tensor.element_size())


def _device_of(layer: Any, keys: Any) -> int | None:
    """The GPU on which a layer works, also while its tensors are on the host; None where there is none."""
    device = getattr(layer, "device", None)
    if device is None:
        device = getattr(keys, "device", None)
    return int(device.index or 0) if device is not None and device.type == "cuda" else None


def _inner_tensors(value: Any, part: str) -> Iterator[tuple[str, Any]]:
    """The tensors that a quantised one is made of: packed values, scales, zeros.

    Source: transformers ``cache_utils.py``: Quanto's is a tensor subclass, HQQ's a tensor and a dictionary, the 8-bit
    floating point one a tensor and its scale.
    """
    if value is None:
        return
    if isinstance(value, tuple | list):
        yield from _inner_tensors(value[0], part)
        for rest in value[1:]:
            if isinstance(rest, Mapping):
                for name, inner in rest.items():
                    yield from _inner_tensors(inner, f"{part} {name}") if is_tensor(inner) else ()
            elif is_tensor(rest):
                yield f"{part} scale", rest
    elif hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            end = _PLAIN_PARTS.get(name)
            end = " " + name.strip("_").replace("_", " ") if end is None else end
            yield from _inner_tensors(getattr(value, name), part + end)
    elif is_tensor(value):
        yield part, value


def _quantised_sequences(value: Any) -> int:
    if isinstance(value, tuple | list):
        rest = value[1] if len(value) > 1 and isinstance(value[1], Mapping) else {}
        shape = rest.get("shape", value[0].shape)
    else:
        shape = value.shape
    return int(shape[0])


def _states(layer: Any) -> Iterator[tuple[str, Any]]:
    """The states of linear attention, which do not grow; of several of a kind the later ones are numbered."""
    for part, states in (("conv state", layer.conv_states), ("recurrent state", layer.recurrent_states)):
        for position, state in enumerate(states.values() if isinstance(states, Mapping) else (states,)):
            if is_tensor(state):
                yield part if position == 0 else part.replace(" ", f" {position + 1} "), state
