"""How many bytes of keys and values a model keeps for each token, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from memscope.errors import UnknownNameError, UsageError
from memscope.trace.tables import Int64Array

KV_DTYPES = ("bf16", "fp8", "int4")
INT4_GROUP = 64
"""Elements that share a 16-bit scale and a 16-bit zero. Source: Hugging Face's ``QuantizedCache``, ``q_group_size``."""
_SCALE_AND_ZERO_BYTES = 4


@dataclass(frozen=True, slots=True)
class KvLayer:
    """One layer's cache.

    Attributes
    ----------
    n_kv_heads
        Key/value heads; 1 for a latent, which all heads read.
    key_dim, value_dim
        Elements a head keeps for a token; ``value_dim`` is 0 for a latent, which is keys and values at once.
    window
        Tokens that the layer looks back over, itself included; None for all of them.
    is_latent
        A compressed latent (MLA): every GPU of a tensor-parallel group keeps all of it.
    """

    n_kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    is_latent: bool = False

    def heads_per_gpu(self, tensor_parallel: int) -> int:
        """Heads that one GPU keeps: a share of them, or a copy of one where there are more GPUs than heads.

        Raises
        ------
        UsageError
            If neither number divides the other.
        """
        if self.is_latent:
            return self.n_kv_heads
        if max(self.n_kv_heads, tensor_parallel) % min(self.n_kv_heads, tensor_parallel):
            raise UsageError(
                f"{self.n_kv_heads} key/value heads cannot be spread over {tensor_parallel} GPUs: "
                "one number must divide the other"
            )
        return max(1, self.n_kv_heads // tensor_parallel)

    def token_bytes(self, kv_dtype: str = "bf16", tensor_parallel: int = 1) -> int:
        """Bytes of one token on one GPU."""
        heads = self.heads_per_gpu(tensor_parallel)
        return heads * sum(vector_bytes(dim, kv_dtype) for dim in (self.key_dim, self.value_dim))


@dataclass(frozen=True, slots=True)
class KvShape:
    """The caches of all layers, as one GPU holds them.

    Attributes
    ----------
    layers
        Layers that keep a cache, in order.
    kv_dtype
        ``bf16`` (any 16-bit type), ``fp8`` or ``int4`` (with scales and zeros).
    tensor_parallel
        GPUs that share the model.
    """

    layers: tuple[KvLayer, ...]
    kv_dtype: str = "bf16"
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        if self.kv_dtype not in KV_DTYPES:
            raise UnknownNameError(f"{self.kv_dtype!r} is not a key/value type", self.kv_dtype, KV_DTYPES)
        if self.tensor_parallel < 1:
            raise UsageError("tensor parallelism needs at least one GPU")
        if not self.layers:
            raise UsageError("the model has no layer that keeps keys and values")

    @property
    def layer_token_bytes(self) -> tuple[int, ...]:
        """Bytes of one token in each layer."""
        return tuple(layer.token_bytes(self.kv_dtype, self.tensor_parallel) for layer in self.layers)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token in all layers, while every window still holds it."""
        return sum(self.layer_token_bytes)

    @property
    def unit_bytes(self) -> int:
        """The largest size that divides every layer's token: what replays count in."""
        return math.gcd(*self.layer_token_bytes)

    @property
    def groups(self) -> tuple[tuple[int | None, int], ...]:
        """Layers by window: (window, bytes of a token in those layers), all-token layers first."""
        found: dict[int | None, int] = {}
        for layer, size in zip(self.layers, self.layer_token_bytes, strict=True):
            found[layer.window] = found.get(layer.window, 0) + size
        return tuple(sorted(found.items(), key=lambda item: (item[0] is not None, item[0] or 0)))

    def sequence_bytes(self, n_tokens: int) -> int:
        """Bytes of a sequence of that many tokens: Σ layers of bytes a token × min(tokens, window)."""
        return sum(size * (n_tokens if window is None else min(n_tokens, window)) for window, size in self.groups)

    def sequence_bytes_table(self, n_tokens: int) -> Int64Array:
        """:meth:`sequence_bytes` of 0 to ``n_tokens`` tokens: int64 (n_tokens + 1,)."""
        tokens = np.arange(n_tokens + 1, dtype=np.int64)
        total = np.zeros(n_tokens + 1, np.int64)
        for window, size in self.groups:
            total += size * (tokens if window is None else np.minimum(tokens, window))
        return total

    def paged_bytes_table(self, n_tokens: int, block_size: int) -> Int64Array:
        """Bytes that 0 to ``n_tokens`` tokens take in blocks of ``block_size`` tokens: int64 (n_tokens + 1,).

        Every layer has its own blocks; a layer with a window gives back a block once no token of it is looked at.
        """
        tokens = np.arange(n_tokens + 1, dtype=np.int64)
        total = np.zeros(n_tokens + 1, np.int64)
        for window, size in self.groups:
            first = np.zeros_like(tokens) if window is None else np.maximum(tokens - window, 0) // block_size
            total += size * block_size * (-(-tokens // block_size) - first)
        return total

    def virtual_bytes_table(self, n_tokens: int, page_bytes: int) -> Int64Array:
        """Bytes of whole pages behind 0 to ``n_tokens`` tokens: int64 (n_tokens + 1,).

        Every layer has a virtual range for keys and one for values (one for a latent), backed from its start.
        """
        tokens = np.arange(n_tokens + 1, dtype=np.int64)
        total = np.zeros(n_tokens + 1, np.int64)
        for layer in self.layers:
            for dim in (layer.key_dim, layer.value_dim):
                size = layer.heads_per_gpu(self.tensor_parallel) * vector_bytes(dim, self.kv_dtype)
                total += -(-tokens * size // page_bytes) * page_bytes
        return total


def vector_bytes(n_elements: int, kv_dtype: str) -> int:
    """Bytes of one head's key or value of one token.

    fp8 has one scale for a whole tensor, which no token pays for; int4 a scale and a zero for every 64 elements.
    """
    if kv_dtype == "bf16":
        return 2 * n_elements
    if kv_dtype == "fp8":
        return n_elements
    return -(-n_elements // 2) + -(-n_elements // INT4_GROUP) * _SCALE_AND_ZERO_BYTES
