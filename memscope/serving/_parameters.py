"""A model's parameters, counted from its configuration, and their bytes on one GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from memscope.errors import FieldError, UnknownNameError
from memscope.serving.model_config import ModelConfig

WEIGHT_FORMATS = ("none", "int8", "int4")
WEIGHTS_FIELD = {"weight_bytes": "the weights' size"}
"""What is to be given where parameters cannot be counted, in plain words."""
INT4_GROUP = 128
"""Inputs that share a scale and a zero. Source: the usual setting of GPTQ and AWQ checkpoints."""
_INT8_SCALE_BYTES = 4
_INT4_GROUP_HALF_BYTES = 5
"""A 16-bit scale and a 4-bit zero: 2.5 bytes."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Some equal parameter tensors.

    Attributes
    ----------
    n_in, n_out
        Inputs and outputs; a vector has one input.
    n
        How many of them.
    split
        Over tensor-parallel GPUs: ``heads`` and ``width`` a share each, ``kv`` a share or a copy, ``none`` a copy each.
    is_quantised
        Whether weight quantisation applies: linear layers, but not embeddings, the head, routers and norms.
    n_active
        How many of them one token passes through.
    """

    n_in: int
    n_out: int
    n: int = 1
    split: str = "width"
    is_quantised: bool = True
    n_active: int | None = None

    @property
    def n_params(self) -> int:
        """Parameters in all."""
        return self.n_in * self.n_out * self.n

    @property
    def n_active_params(self) -> int:
        """Parameters that one token passes through."""
        return self.n_in * self.n_out * (self.n if self.n_active is None else self.n_active)

    def bytes_per_gpu(self, weight_format: str, tensor_parallel: int, n_kv_heads: int) -> int:
        """Bytes on one GPU, with scales and zeros where it is quantised."""
        if weight_format == "none" or not self.is_quantised:
            one = 2 * self.n_in * self.n_out
        elif weight_format == "int8":
            one = self.n_in * self.n_out + _INT8_SCALE_BYTES * self.n_out
        else:
            groups = -(-self.n_in // INT4_GROUP) * self.n_out
            one = -(-self.n_in * self.n_out // 2) + -(-groups * _INT4_GROUP_HALF_BYTES // 2)
        share = {"none": 1, "kv": min(tensor_parallel, n_kv_heads)}.get(self.split, tensor_parallel)
        return -(-one * self.n // share)


@dataclass(frozen=True, slots=True)
class Parameters:
    """All parameters of a model."""

    matrices: tuple[Matrix, ...]
    n_kv_heads: int

    @property
    def n_params(self) -> int:
        """Parameters in all."""
        return sum(matrix.n_params for matrix in self.matrices)

    @property
    def n_active_params(self) -> int:
        """Parameters that one token passes through: fewer than all with a mixture of experts."""
        return sum(matrix.n_active_params for matrix in self.matrices)

    def bytes_per_gpu(self, weight_format: str = "none", tensor_parallel: int = 1) -> int:
        """Bytes of the weights on one GPU; ``none`` is 16 bits a parameter.

        Raises
        ------
        UsageError
            If the format is not known.
        """
        if weight_format not in WEIGHT_FORMATS:
            raise UnknownNameError(f"{weight_format!r} is not a weight format", weight_format, WEIGHT_FORMATS)
        return sum(matrix.bytes_per_gpu(weight_format, tensor_parallel, self.n_kv_heads) for matrix in self.matrices)


def count_parameters(config: ModelConfig) -> Parameters:
    """Count a model's parameters.

    Raises
    ------
    UsageError
        If the model's type is not one whose layers are known here.
    """
    make = _FAMILIES.get(config.model_type)
    if make is None or isinstance(config.values.get("block_configs"), list):
        raise FieldError(
            "{source}: the parameters of model type {kind!r} are not known: give {weight_bytes} (known: {known})",
            WEIGHTS_FIELD,
            source=config.source,
            kind=config.model_type or "unknown",
            known=", ".join(sorted(_FAMILIES)),
        )
    return Parameters(tuple(make(config)), 1 if config.is_latent else max(config.kv_heads_by_layer()))


def _vector(n: int, count: int = 1, split: str = "none") -> Matrix:
    return Matrix(1, n, count, split, is_quantised=False)


def _embeddings(config: ModelConfig) -> Iterator[Matrix]:
    n = 1 if config.optional("tie_word_embeddings", False) else 2
    # A lookup multiplies nothing: a token passes through the head alone.
    yield Matrix(config.hidden_size, config.integer("vocab_size"), n, is_quantised=False, n_active=1)


def _gated_decoder(config: ModelConfig) -> Iterator[Matrix]:
    """Llama and its relatives: RMS norms, rotary positions, a gated feed-forward network."""
    width, layers, kind = config.hidden_size, config.n_layers, config.model_type
    yield from _embeddings(config)
    n_norms = 4 if kind in ("gemma2", "gemma3_text") else 2
    yield _vector(width, n_norms * layers + 1)
    yield from _latent_attention(config) if config.is_latent else _attention(config)
    yield from _feed_forward(config)


def _attention(config: ModelConfig) -> Iterator[Matrix]:
    width, layers, kind = config.hidden_size, config.n_layers, config.model_type
    queries, keys = config.n_heads * config.head_dim, config.kv_heads_by_layer()[0] * config.head_dim
    yield Matrix(width, queries, layers, "heads")
    yield Matrix(width, keys, 2 * layers, "kv")
    yield Matrix(queries, width, layers, "heads")
    has_bias = bool(config.optional("attention_bias", False))
    if has_bias or kind == "qwen2":
        yield _vector(queries, layers, "heads")
        yield _vector(keys, 2 * layers, "kv")
    if has_bias:
        yield _vector(width, layers)
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        yield _vector(config.head_dim, 2 * layers)


def _latent_attention(config: ModelConfig) -> Iterator[Matrix]:
    width, layers, heads = config.hidden_size, config.n_layers, config.n_heads
    rank, rope = config.integer("kv_lora_rank"), config.integer("qk_rope_head_dim")
    nope, value = config.integer("qk_nope_head_dim"), config.integer("v_head_dim")
    query_rank = config.values.get("q_lora_rank")
    if query_rank:
        yield Matrix(width, query_rank, layers, "none")
        yield _vector(query_rank, layers)
    yield Matrix(query_rank or width, heads * (nope + rope), layers, "heads")
    yield Matrix(width, rank + rope, layers, "none")
    yield _vector(rank, layers)
    yield Matrix(rank, heads * (nope + value), layers, "heads")
    yield Matrix(heads * value, width, layers, "heads")


def _feed_forward(config: ModelConfig) -> Iterator[Matrix]:
    width, layers = config.hidden_size, config.n_layers
    n_experts = config.optional("n_routed_experts") or config.optional("num_local_experts")
    n_experts = n_experts or config.optional("num_experts")
    if not n_experts:
        yield from _gated(config, width, config.integer("intermediate_size"), layers)
        return
    n_dense = int(config.optional("first_k_dense_replace", 0))
    n_sparse = layers - n_dense
    inner = config.integer("moe_intermediate_size", config.integer("intermediate_size"))
    n_used = config.integer("num_experts_per_tok")
    yield from _gated(config, width, config.integer("intermediate_size"), n_dense)
    yield Matrix(width, inner, 2 * n_sparse * n_experts, n_active=2 * n_sparse * n_used)
    yield Matrix(inner, width, n_sparse * n_experts, n_active=n_sparse * n_used)
    yield from _gated(config, width, inner, n_sparse * int(config.optional("n_shared_experts", 0)))
    yield Matrix(width, n_experts, n_sparse, "none", is_quantised=False)
    if config.model_type == "deepseek_v3":
        yield _vector(n_experts, n_sparse)


def _gated(config: ModelConfig, width: int, inner: int, n: int) -> Iterator[Matrix]:
    if n:
        yield Matrix(width, inner, 2 * n)
        yield Matrix(inner, width, n)
        if config.optional("mlp_bias", False):
            yield _vector(inner, 2 * n, "width")
            yield _vector(width, n)


def _gpt2(config: ModelConfig) -> Iterator[Matrix]:
    width, layers = config.hidden_size, config.n_layers
    inner = config.values.get("n_inner") or 4 * width
    yield from _embeddings(config)
    yield Matrix(width, config.integer("max_position_embeddings"), 1, "none", is_quantised=False, n_active=0)
    yield _vector(width, 2 * (2 * layers + 1))
    yield Matrix(width, 3 * width, layers, "heads")
    yield Matrix(width, width, layers, "heads")
    yield Matrix(width, inner, layers)
    yield Matrix(inner, width, layers)
    yield _vector(3 * width + inner, layers, "width")
    yield _vector(width, 2 * layers)


def _opt(config: ModelConfig) -> Iterator[Matrix]:
    width, layers, inner = config.hidden_size, config.n_layers, config.integer("ffn_dim")
    projection = int(config.optional("word_embed_proj_dim", width))
    if projection != width:
        text = "{source}: an OPT with projected embeddings is not covered: give {weight_bytes}"
        raise FieldError(text, WEIGHTS_FIELD, source=config.source)
    yield from _embeddings(config)
    yield Matrix(width, config.integer("max_position_embeddings") + 2, 1, "none", is_quantised=False, n_active=0)
    yield _vector(width, 2 * (2 * layers + 1))
    yield Matrix(width, width, 4 * layers, "heads")
    yield Matrix(width, inner, layers)
    yield Matrix(inner, width, layers)
    yield _vector(3 * width + inner, layers, "width")
    yield _vector(width, 2 * layers)


_FAMILIES: dict[str, Callable[[ModelConfig], Iterator[Matrix]]] = {
    **dict.fromkeys(
        (
            "llama",
            "mistral",
            "mixtral",
            "qwen2",
            "qwen3",
            "qwen3_moe",
            "gemma",
            "gemma2",
            "gemma3_text",
            "phi3",
            "deepseek_v2",
            "deepseek_v3",
        ),
        _gated_decoder,
    ),
    "gpt2": _gpt2,
    "opt": _opt,
}
