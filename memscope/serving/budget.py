"""What is left of a device for keys and values, line by line."""

from __future__ import annotations

from dataclasses import dataclass

from memscope.errors import FieldError, UsageError
from memscope.serving._parameters import WEIGHTS_FIELD, Parameters
from memscope.serving.model_config import ModelConfig
from memscope.serving.shapes import KvShape
from memscope.units import format_bytes

DEFAULT_UTILISATION = 0.9
"""Share of the device that an engine takes. Source: vLLM's ``gpu_memory_utilization``."""
LOGITS_ELEMENT_BYTES = 26
"""Bytes that sampling keeps for each logit at once: the 16-bit logit, 32-bit logit, probability and log-probability,
and a sort's 32-bit values and 64-bit positions (2 + 3 × 4 + 4 + 8)."""


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One line: what it is, its bytes (None: not measured), and where the number is from."""

    name: str
    bytes: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Budget:
    """A device's memory, shared out.

    Attributes
    ----------
    rows
        Lines whose bytes sum to ``total_bytes``; the last is what keys and values get.
    kv_bytes
        Bytes for keys and values on one GPU.
    """

    total_bytes: int
    rows: tuple[BudgetRow, ...]
    kv_bytes: int

    def __post_init__(self) -> None:
        assert sum(row.bytes or 0 for row in self.rows) == self.total_bytes


@dataclass(frozen=True, slots=True)
class BudgetInputs:
    """What a budget is made from.

    Attributes
    ----------
    total_bytes
        The device, as its driver reports it.
    utilisation_frac
        Share of it that the engine takes.
    context_bytes
        Held outside PyTorch: the CUDA context, libraries, communication.
    weight_format
        ``none`` (16 bits), ``int8`` or ``int4``.
    weight_bytes
        Bytes of the weights on one GPU where they are given rather than counted.
    n_step_tokens, n_step_requests
        The most tokens, and requests, of one step: what activations and logits are sized for.
    cuda_graph_bytes
        Held by captured CUDA graphs; None if not known: an engine captures them after sharing out.
    kv_bytes
        Bytes for keys and values where they are given; the rest then goes to a line of its own.
    """

    total_bytes: int
    utilisation_frac: float = DEFAULT_UTILISATION
    context_bytes: int = 0
    context_source: str = "given"
    weight_format: str = "none"
    weight_bytes: int | None = None
    n_step_tokens: int = 8192
    n_step_requests: int = 256
    activation_bytes: int | None = None
    cuda_graph_bytes: int | None = None
    kv_bytes: int | None = None


def make_budget(config: ModelConfig, shape: KvShape, parameters: Parameters | None, inputs: BudgetInputs) -> Budget:
    """Share out a device's memory.

    Raises
    ------
    UsageError
        If nothing is left for keys and values, or the weights are not known.
    """
    total = inputs.total_bytes
    if not 0 < inputs.utilisation_frac <= 1:
        raise UsageError(f"a utilisation of {inputs.utilisation_frac:g} is not between 0 and 1")
    if inputs.kv_bytes is not None:
        if inputs.kv_bytes > total:
            raise UsageError(
                f"{format_bytes(inputs.kv_bytes)} of cache are more than the device's {format_bytes(total)}"
            )
        return _given(inputs.kv_bytes, total)
    rows = [
        BudgetRow(
            "left unused",
            total - int(total * inputs.utilisation_frac),
            f"all but {100 * inputs.utilisation_frac:g} % of the device",
        ),
        BudgetRow("context", inputs.context_bytes, inputs.context_source),
        _weights(parameters, shape.tensor_parallel, inputs),
        _activations(config, shape.tensor_parallel, inputs),
        BudgetRow(
            "CUDA graphs", inputs.cuda_graph_bytes, "given" if inputs.cuda_graph_bytes is not None else "not measured"
        ),
    ]
    left = total - sum(row.bytes or 0 for row in rows)
    if left < shape.bytes_per_token:
        taken = ", ".join(f"{row.name} {format_bytes(row.bytes)}" for row in rows if row.bytes)
        missing = shape.bytes_per_token - left
        would_do = _what_would_do(missing, rows, parameters, shape.tensor_parallel, inputs)
        raise UsageError(
            f"nothing is left for keys and values of {format_bytes(total)}: {taken}; "
            f"{format_bytes(missing)} are missing{would_do}"
        )
    rows.append(BudgetRow("KV cache", left, "the rest"))
    return Budget(total, tuple(rows), left)


def _what_would_do(
    missing: int, rows: list[BudgetRow], parameters: Parameters | None, tensor_parallel: int, inputs: BudgetInputs
) -> str:
    """Single changes that leave something for keys and values, those that change least first."""
    sizes = {row.name: row.bytes or 0 for row in rows}
    changes = [("a utilisation of 100 %", sizes["left unused"])]
    if inputs.activation_bytes is None:
        changes.append(("fewer requests and tokens in a step", sizes["activations"]))
    if inputs.weight_bytes is None and parameters is not None:
        formats = [("weights of 8 bits", "int8"), ("weights of 4 bits", "int4")]
        smaller = [(name, parameters.bytes_per_gpu(form, tensor_parallel)) for name, form in formats]
        split = [(f"{n} GPUs", parameters.bytes_per_gpu(inputs.weight_format, n)) for n in (2, 4, 8)]
        for ways in (smaller, split):
            saved = [(name, sizes["weights"] - size) for name, size in ways]
            changes += [next((way for way in saved if way[1] >= missing), saved[-1])]
    enough = [f"{name} ({format_bytes(saved)} less)" for name, saved in changes if saved >= missing]
    return f": {' or '.join(enough)} would do" if enough else ", which no single change would give"


def _given(kv_bytes: int, total: int) -> Budget:
    rows = (
        BudgetRow("everything else", total - kv_bytes, "the rest"),
        BudgetRow("KV cache", kv_bytes, "given"),
    )
    return Budget(total, rows, kv_bytes)


def _weights(parameters: Parameters | None, tensor_parallel: int, inputs: BudgetInputs) -> BudgetRow:
    if inputs.weight_bytes is not None:
        return BudgetRow("weights", inputs.weight_bytes, "given")
    if parameters is None:
        raise FieldError("the weights' bytes are not known: give {weight_bytes}", WEIGHTS_FIELD)
    form = {"none": "16 bits each", "int8": "8 bits and scales", "int4": "4 bits, scales and zeros"}
    of = f", on {tensor_parallel} GPUs" if tensor_parallel > 1 else ""
    size = parameters.bytes_per_gpu(inputs.weight_format, tensor_parallel)
    return BudgetRow("weights", size, f"{parameters.n_params:,} parameters, {form[inputs.weight_format]}{of}")


def _activations(config: ModelConfig, tensor_parallel: int, inputs: BudgetInputs) -> BudgetRow:
    if inputs.activation_bytes is not None:
        return BudgetRow("activations", inputs.activation_bytes, "given")
    inner = config.optional("intermediate_size") or config.optional("ffn_dim") or config.optional("n_inner")
    inner = inner or 4 * config.hidden_size
    if config.optional("num_experts_per_tok"):
        inner = config.integer("num_experts_per_tok") * config.optional("moe_intermediate_size", inner)
    # At once: the residual and the normed stream, gate and up side by side, and their product.
    layer = 2 * inputs.n_step_tokens * (2 * config.hidden_size + 3 * (inner // tensor_parallel))
    logits = 2 * inputs.n_step_tokens * config.hidden_size
    logits += LOGITS_ELEMENT_BYTES * inputs.n_step_requests * config.integer("vocab_size")
    which = f"a layer over {inputs.n_step_tokens:,} tokens"
    if logits > layer:
        which = f"logits of {inputs.n_step_requests:,} requests"
    return BudgetRow("activations", max(layer, logits), f"estimate: {which}")
