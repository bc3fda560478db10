"""What is asked: a model, what is done with it, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memscope.errors import UsageError
from memscope.serving.model_config import ModelConfig

Mode = Literal["train", "generate"]
MODES: tuple[Mode, ...] = ("train", "generate")
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
OPTIMIZERS = ("adamw", "adamw-fused", "adafactor", "sgd")
ATTENTIONS = ("sdpa", "eager")
MOST = 1 << 20
"""Samples and tokens of each that can be asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A model and what is done with it.

    Attributes
    ----------
    config
        The model's configuration.
    mode
        ``train``: steps of an optimizer; ``generate``: a prompt, and tokens after it.
    n_samples, n_tokens
        Of a batch; tokens of each sample.
    dtype
        Of weights, and so of gradients and states.
    optimizer
        Of :data:`OPTIMIZERS`; nothing to a generation.
    n_new_tokens
        What is generated after the prompt; nothing to training.
    checkpoints
        Whether each layer is computed again in the backward pass.
    attention
        Of :data:`ATTENTIONS`, as transformers calls them.

    Raises
    ------
    UsageError
        If a number is none that can be, or an option means nothing to the mode.
    """

    config: ModelConfig
    mode: Mode
    n_samples: int = 1
    n_tokens: int = 1024
    dtype: str = "bf16"
    optimizer: str = "adamw"
    n_new_tokens: int = 16
    checkpoints: bool = False
    attention: str = "sdpa"

    def __post_init__(self) -> None:
        for name, number in (("batch", self.n_samples), ("seq", self.n_tokens), ("new tokens", self.n_new_tokens)):
            if not 1 <= number <= MOST:
                raise UsageError(f"{name} {number:,}: choose from 1 to {MOST:,}")
        if self.checkpoints and self.mode != "train":
            raise UsageError("checkpoints are for training: a generation saves nothing for a backward pass")
        longest = self.config.max_length
        if longest is not None and self.n_tokens > longest and self.has_learnt_positions:
            raise UsageError(
                f"{self.config.source}: the model has positions for {longest:,} tokens, and {self.n_tokens:,} were "
                "asked for"
            )

    @property
    def has_learnt_positions(self) -> bool:
        """Whether a position is a row of a table, so that there are no more than the table has."""
        return self.config.model_type in ("gpt2", "opt", "gpt_bigcode", "gpt_neo")
