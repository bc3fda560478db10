"""A model's shape, from the keys of a Hugging Face ``config.json``, or of a well-known model by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memscope.errors import InputFileError, UnknownNameError, UsageError
from memscope.files import require_file, unpacked
from memscope.serving.presets import PRESETS
from memscope.serving.shapes import KvLayer

_ALIASES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers", "num_transformer_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "num_heads"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_context_length"),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "tie_word_embeddings": True, "sliding_window": 4096},
    "gemma3_text": {
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "vocab_size": 262_208,
    },
    "gpt2": {"tie_word_embeddings": True},
    "opt": {"tie_word_embeddings": True},
    "mistral": {"num_key_value_heads": 8},
    "mixtral": {"num_key_value_heads": 8},
}
"""What a type's own configuration class fills in where ``config.json`` is silent. Source: transformers 5.0."""
_NUMBERS = (
    *(alias for aliases in _ALIASES.values() for alias in aliases),
    "attention_chunk_size", "ffn_dim", "first_k_dense_replace", "head_dim", "intermediate_size", "kv_lora_rank",
    "max_window_layers", "moe_intermediate_size", "n_inner", "n_routed_experts", "n_shared_experts", "num_experts",
    "num_experts_per_tok", "num_kv_shared_layers", "num_local_experts", "q_lora_rank", "qk_nope_head_dim",
    "qk_rope_head_dim", "sliding_window", "sliding_window_pattern", "v_head_dim", "vocab_size", "word_embed_proj_dim",
)  # fmt: skip
"""Keys that are whole numbers where they are there at all."""
_MAX_NUMBER = 1 << 31
_MAX_LAYERS = 1 << 16
_RECURRENT = ("linear_attention", "mamba", "recurrent", "conv", "ssm")
_HYBRID_KEYS: dict[str, Callable[[Any], bool]] = {
    "full_attention_interval": lambda every: every != 1,  # Qwen3-Next
    "attn_layer_period": lambda every: every != 1,  # Jamba
    "hybrid_override_pattern": lambda pattern: "M" in str(pattern),  # Nemotron-H
    "layers_block_type": lambda kinds: any(word in str(kinds) for word in _RECURRENT),  # Zamba, Nemotron-H
    "block_types": lambda kinds: any(word in str(kinds) for word in _RECURRENT),  # RecurrentGemma
    "attn_layer_indices": lambda _: True,  # Bamba
    "full_attn_idxs": lambda _: True,  # LFM2
    "mamba_d_ssm": lambda _: True,  # Falcon-H1: every layer has both
}
"""Keys of hybrid models' files, and which of their values mean that not every layer is attention alone."""
_WINDOWED = ("sliding_attention", "chunked_attention")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What serving needs to know of a model's configuration.

    Attributes
    ----------
    name
        What it is called in reports.
    source
        Where its numbers are from.
    values
        The configuration's keys, those of the text part where it has several.
    is_partial
        The file describes more than a text model, and only that part is counted.
    """

    name: str
    source: str
    values: Mapping[str, Any]
    is_partial: bool = False

    def __post_init__(self) -> None:
        for key in _NUMBERS:
            value = self.values.get(key)
            if value is not None and not _is_number(value):
                raise UsageError(f"{self.source}: {key} is {value!r}, not a whole number")
        for key in ("num_key_value_heads", "num_kv_heads"):
            heads = self.values.get(key)
            if isinstance(heads, list) and not all(_is_number(n) for n in heads):
                raise UsageError(f"{self.source}: {key} has an entry that is not a whole number")

    @property
    def model_type(self) -> str:
        """The type that the file names, ``llama``."""
        return str(self.values.get("model_type", ""))

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of the file, under its name or an older one.

        Raises
        ------
        UsageError
            If it is missing, or not a whole number above 0.
        """
        for alias in _ALIASES.get(key, (key,)):
            value = self.values.get(alias)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{self.source}: {alias} is {value!r}, not a whole number above 0")
            return value
        filled = _DEFAULTS.get(self.model_type, {}).get(key, default)
        if filled is None:
            raise UsageError(f"{self.source}: {key} is missing, and memory cannot be counted without it")
        return int(filled)

    def optional(self, key: str, default: Any = None) -> Any:
        """Any key, the type's own default, or the one given."""
        value = self.values.get(key)
        return _DEFAULTS.get(self.model_type, {}).get(key, default) if value is None else value

    @property
    def n_layers(self) -> int:
        """Decoder layers.

        Raises
        ------
        UsageError
            If they are missing, or more than any model has.
        """
        n = self.integer("num_hidden_layers")
        if n > _MAX_LAYERS:
            raise UsageError(f"{self.source}: {n:,} layers are more than any model has")
        return n

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.integer("hidden_size")

    @property
    def n_heads(self) -> int:
        """Query heads."""
        return self.integer("num_attention_heads")

    @property
    def is_latent(self) -> bool:
        """Whether attention reads a compressed latent (MLA)."""
        return self.values.get("kv_lora_rank") is not None

    @property
    def head_dim(self) -> int:
        """Elements of one head; where the file is silent, the width over the query heads.

        Raises
        ------
        UsageError
            If the width is not a multiple of the heads.
        """
        explicit = self.values.get("head_dim") or _DEFAULTS.get(self.model_type, {}).get("head_dim")
        if explicit:
            return self.integer("head_dim")
        if self.hidden_size % self.n_heads:
            raise UsageError(
                f"{self.source}: hidden_size {self.hidden_size} is not a multiple of {self.n_heads} attention heads, "
                "and head_dim is not given"
            )
        return self.hidden_size // self.n_heads

    @property
    def max_length(self) -> int | None:
        """The longest sequence the model is made for; None where the file does not say."""
        for alias in _ALIASES["max_position_embeddings"]:
            value = self.values.get(alias)
            if isinstance(value, int) and value > 0:
                return value
        return None

    def kv_layers(self) -> tuple[KvLayer, ...]:
        """The caches, layer by layer; where attention reads a latent (MLA), that is what is kept.

        Raises
        ------
        UsageError
            If a layer keeps a recurrent state instead, or a number is missing.
        """
        self._refuse_recurrent()
        windows = self._windows()
        heads = self.kv_heads_by_layer()
        n_own = max(0, self.n_layers - int(self.optional("num_kv_shared_layers", 0)))
        layers = [self._layer(heads[i], windows[i]) for i in range(n_own) if heads[i]]
        return tuple(layers)

    def _refuse_recurrent(self) -> None:
        """Hybrid models say in keys of their own which layers keep a state instead of keys and values."""
        for key, is_hybrid in _HYBRID_KEYS.items():
            value = self.values.get(key)
            if value is not None and is_hybrid(value):
                raise UsageError(
                    f"{self.source}: by {key} some layers keep a recurrent state, not keys and values: not covered"
                )

    def _layer(self, n_kv_heads: int, window: int | None) -> KvLayer:
        if not self.is_latent:
            return KvLayer(n_kv_heads, self.head_dim, self.head_dim, window)
        rope = self.integer("qk_rope_head_dim")
        return KvLayer(1, self.integer("kv_lora_rank") + rope, 0, window, is_latent=True)

    def kv_heads_by_layer(self) -> list[int]:
        """Key/value heads of each layer; 0 where a layer has no attention."""
        blocks = self.values.get("block_configs")
        if isinstance(blocks, list):
            if len(blocks) != self.n_layers:
                raise UsageError(f"{self.source}: {len(blocks)} block_configs for {self.n_layers} layers")
            return [self._heads_of_block(block) for block in blocks]
        heads = self.values.get("num_key_value_heads", self.values.get("num_kv_heads"))
        if isinstance(heads, list):
            if len(heads) != self.n_layers:
                raise UsageError(f"{self.source}: {len(heads)} counts of key/value heads for {self.n_layers} layers")
            return [int(n) for n in heads]
        if heads is not None and not (self.model_type == "falcon" and not self.values.get("new_decoder_architecture")):
            key = "num_key_value_heads" if "num_key_value_heads" in self.values else "num_kv_heads"
            return [self.integer(key)] * self.n_layers
        if self.values.get("multi_query", self.model_type in ("falcon", "gpt_bigcode")):
            return [1] * self.n_layers
        return [self.integer("num_key_value_heads", self.n_heads)] * self.n_layers

    def _heads_of_block(self, block: Any) -> int:
        attention = block.get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            raise UsageError(f"{self.source}: block_configs has an entry without attention")
        group = attention.get("n_heads_in_group")
        if group is not None and not (_is_number(group) and group):
            raise UsageError(f"{self.source}: n_heads_in_group is {group!r}, not a whole number above 0")
        return self.n_heads // group if group else 0

    def _windows(self) -> list[int | None]:
        """Tokens that each layer keeps, None for all."""
        kinds = self.values.get("layer_types")
        window = self.optional("sliding_window")
        if isinstance(kinds, list):
            if len(kinds) != self.n_layers:
                raise UsageError(f"{self.source}: {len(kinds)} layer_types for {self.n_layers} layers")
            return [self._window_of(str(kind), window) for kind in kinds]
        if not window or self.optional("use_sliding_window", True) is False:
            return [None] * self.n_layers
        pattern = self.values.get("sliding_window_pattern", {"gemma2": 2, "gemma3_text": 6}.get(self.model_type))
        if isinstance(pattern, int) and pattern > 0:
            return [None if (i + 1) % pattern == 0 else int(window) for i in range(self.n_layers)]
        if self.model_type.startswith("qwen"):
            # Off unless asked for, and then only from a layer on.
            if not self.values.get("use_sliding_window", False):
                return [None] * self.n_layers
            first = int(self.optional("max_window_layers", 28))
            return [int(window) if i >= first else None for i in range(self.n_layers)]
        return [int(window)] * self.n_layers

    def _window_of(self, kind: str, window: Any) -> int | None:
        if kind == "full_attention":
            return None
        if kind in _WINDOWED:
            size = self.values.get("attention_chunk_size") if kind == "chunked_attention" else window
            if not isinstance(size, int) or size < 1:
                raise UsageError(f"{self.source}: layers are {kind}, but the window's size is not given")
            return size
        if any(word in kind for word in _RECURRENT):
            raise UsageError(
                f"{self.source}: layers of type {kind} keep a recurrent state, not keys and values: not covered"
            )
        raise UsageError(f"{self.source}: layer type {kind!r} is not known")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_NUMBER


_MAX_BYTES = 16 << 20


def read_model_config(path_or_name: str | Path) -> ModelConfig:
    """A model's configuration, from a file (``.gz`` too), a folder that holds ``config.json``, or a preset's name.

    Raises
    ------
    UsageError
        If it is neither a file nor a preset; the message lists the presets.
    InputFileError
        If the file is not a configuration.
    """
    path = Path(path_or_name)
    if path.is_dir():
        path = path / "config.json"
    if not path.exists():
        preset = PRESETS.get(str(path_or_name).lower())
        if preset is not None:
            return ModelConfig(str(path_or_name).lower(), preset.source, preset.values)
        raise UnknownNameError(
            f"{path_or_name}: there is no such file, and no preset of that name", str(path_or_name), PRESETS
        )
    values = _read_object(path)
    text = values.get("text_config")
    is_partial = isinstance(text, dict)
    if isinstance(text, dict):
        values = text
    name = values.get("_name_or_path") or (path.parent.name if path.name.startswith("config.json") else path.stem)
    return ModelConfig(str(name or path), str(path), values, is_partial=is_partial)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        require_file(path)
        content = unpacked(path, path.read_bytes())
        values = json.loads(content.decode("utf-8")) if len(content) <= _MAX_BYTES else None
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputFileError(path, f"is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputFileError(path, "is not a model's configuration: a JSON object is expected")
    return values
