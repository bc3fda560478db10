"""Small programs, each as it is and truly changed by a technique: what ``benchmarks/whatif.py`` compares.

``python techniques.py PROGRAM [CHANGE …]``. A change is written as ``memscope whatif --apply`` has it. None needs a
value: a dry run follows the same path as a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, StaticCache
from transformers.cache_utils import Cache, DynamicLayer

DEVICE = "cuda"
STEPS = 3
SIZES = {
    "gpt2": (8, 256),
    "gpt2-small": (1, 64),
    "llama": (4, 384),
    "llama-small": (1, 64),
    "lora": (4, 384),
    "mlp": (4096, 1),
    "mlp-small": (16, 1),
}
"""Samples and tokens of a batch; where it is small the optimizer's step is the peak."""
CHUNKS = 8


class Adapted(nn.Module):
    """A frozen product with a trained one of low rank beside it."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        options: dict[str, Any] = {"bias": False, "device": base.weight.device, "dtype": base.weight.dtype}
        self.down = nn.Linear(base.in_features, rank, **options)
        self.up = nn.Linear(rank, base.out_features, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like any module."""
        return self.base(x) + self.up(self.down(x))


class Perceptron(nn.Module):
    """Layers of one width."""

    def __init__(self, width: int = 1024, n_layers: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(n_layers)
        )
        self.head = nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like any module."""
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def gpt2() -> nn.Module:
    """Float32, learnt positions, dropout."""
    return GPT2LMHeadModel(GPT2Config(n_layer=6, n_embd=512, n_head=8, vocab_size=8192, bos_token_id=0, eos_token_id=0))


def llama() -> nn.Module:
    """Bfloat16, grouped queries."""
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=6,
            num_attention_heads=12,
            num_key_value_heads=4,
            vocab_size=16000,
        )
    ).to(torch.bfloat16)


def lora() -> nn.Module:
    """The Llama, frozen, with adapters of rank 16 on what makes queries and values."""
    model = llama().requires_grad_(False)
    for layer in model.model.layers:
        for name in ("q_proj", "v_proj"):
            setattr(layer.self_attn, name, Adapted(getattr(layer.self_attn, name), 16).to(torch.bfloat16))
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {"gpt2": gpt2, "llama": llama, "mlp": Perceptron, "lora": lora}
MODELS |= {f"{name}-small": MODELS[name] for name in ("gpt2", "llama", "mlp")}


class Held(torch.optim.Optimizer):
    """An optimizer that works in place on states laid out as bitsandbytes lays out its own: the memory, not the maths.

    ``kind`` is ``8bit`` (a byte an element and a scale for 256 of them from 4,096 elements on, else float32), ``paged``
    (float32; from 100,000 elements on outside of the caching allocator) or ``host`` (all on the host).
    """

    def __init__(self, parameters: Any, kind: str) -> None:
        super().__init__(parameters, {})
        self.kind, self.tables = kind, None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002 (torch's signature)
        """Make the states; the update is in place."""
        if self.kind == "8bit" and self.tables is None:
            self.tables = [torch.zeros(256, device=DEVICE) for _ in range(2)]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self._init(parameter)

    def _init(self, parameter: torch.Tensor) -> None:
        state, n = self.state[parameter], parameter.numel()
        for name in ("state1", "state2"):
            if self.kind == "8bit" and n >= 4096:
                state[name] = torch.zeros_like(parameter, dtype=torch.uint8)
                state[f"absmax {name}"] = torch.zeros(-(-n // 256), device=parameter.device)
            elif self.kind == "host" or (self.kind == "paged" and n >= 1e5):
                state[name] = torch.zeros(parameter.shape)
            else:
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)


def optimizer_of(model: nn.Module, change: str) -> torch.optim.Optimizer:
    """AdamW, or what a change puts in its place."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    made: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "optimizer:sgd": lambda: torch.optim.SGD(parameters, lr=1e-3),
        "optimizer:fused": lambda: torch.optim.AdamW(parameters, lr=1e-3, fused=True),
        "optimizer:foreach-off": lambda: torch.optim.AdamW(parameters, lr=1e-3, foreach=False),
        "optimizer:adafactor": lambda: torch.optim.Adafactor(parameters, lr=1e-3),
        "optimizer:8bit": lambda: Held(parameters, "8bit"),
        "optimizer:paged": lambda: Held(parameters, "paged"),
        "offload:optimizer": lambda: Held(parameters, "host"),
    }
    return made.get(change, lambda: torch.optim.AdamW(parameters, lr=1e-3))()


def batch_of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch, and what it should give."""
    n_samples, n_tokens = SIZES[name]
    if name.startswith("mlp"):
        return torch.randn(n_samples, 1024).to(DEVICE), torch.randint(0, 1000, (n_samples,)).to(DEVICE)
    tokens = torch.randint(0, 8192, (n_samples, n_tokens)).to(DEVICE)
    return tokens, tokens


def loss_of(model: nn.Module, name: str, inputs: torch.Tensor, labels: torch.Tensor, change: str) -> torch.Tensor:
    """The loss of a batch."""
    if name.startswith("mlp"):
        return functional.cross_entropy(model(inputs), labels)
    if change == "logits:chunked":
        return _chunked_loss(model, inputs, labels)
    return model(input_ids=inputs, labels=labels, use_cache=False).loss


def _chunked_loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The head and the loss for an eighth of the tokens at a time, computed again in the backward pass."""
    hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    wanted = functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)

    def part_loss(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(model.lm_head(part).float(), target, ignore_index=-100, reduction="sum")

    total = hidden.new_zeros((), dtype=torch.float32)
    for part, target in zip(hidden.chunk(CHUNKS), wanted.chunk(CHUNKS), strict=True):
        total = total + checkpoint(part_loss, part, target, use_reentrant=False)
    return total / wanted.numel()


def _checkpointed(model: nn.Module, name: str, every: int) -> None:
    """Each ``every`` layers in one checkpoint."""
    layers = {"gpt2": "transformer.h", "llama": "model.layers", "lora": "model.layers", "mlp": "layers"}[name]
    parent, _, attribute = layers.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    found = list(getattr(owner, attribute))
    groups = [nn.ModuleList(found[i : i + every]) for i in range(0, len(found), every)]
    is_added = name == "mlp"  # the residual is added by the model

    class Group(nn.Module):
        def __init__(self, members: nn.ModuleList) -> None:
            super().__init__()
            self.members = members

        def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
            def run(x: Any) -> Any:
                for member in self.members:
                    made = member(x, *args, **kwargs)
                    x = x + made if is_added else made
                return x

            return checkpoint(run, x, use_reentrant=False)

    setattr(owner, attribute, nn.ModuleList(Group(group) for group in groups))
    if is_added:
        model.forward = lambda x: model.head(nn.Sequential(*owner.layers)(x))  # type: ignore[method-assign]


def train(name: str, change: str = "") -> object:
    """A few steps."""
    with torch.device(DEVICE):
        model = MODELS[name]()
    model.train()
    technique, _, argument = change.partition(":")
    if technique == "checkpoint":
        _checkpointed(model, name, int(argument.partition("=")[2]))
    n_parts = int(argument) if technique == "micro-batch" else 1
    optimizer = optimizer_of(model, change)
    saved: AbstractContextManager[Any] = nullcontext()
    if change == "offload:activations":
        saved = torch.autograd.graph.save_on_cpu()
    for _ in range(STEPS):
        inputs, labels = batch_of(name)
        for part, target in zip(inputs.chunk(n_parts), labels.chunk(n_parts), strict=True):
            with saved:
                loss = loss_of(model, name, part, target, change) / n_parts
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=change != "zeroed")
        if change == "empty-cache:each-step":
            torch.cuda.empty_cache()
    return model, optimizer


BITS = {"int8": 8, "fp8": 8, "int4": 4, "nf4": 4}


class Quantised(nn.Module):
    """A product whose matrix is kept in fewer bits, and made whole by one kernel: the memory, not the maths."""

    def __init__(self, product: nn.Module, kind: str) -> None:
        super().__init__()
        weight = product.weight
        self.shape, self.dtype, n = weight.shape, weight.dtype, weight.numel()
        self.is_transposed = not isinstance(product, nn.Linear)
        self.bias = product.bias
        self.register_buffer("numbers", torch.zeros(n * BITS[kind] // 8, dtype=torch.uint8))
        beside = {
            "int8": ((self.shape[0], self.dtype),),
            "fp8": ((1, torch.float32),),
            "int4": ((-(-n // 128), self.dtype), (-(-n // 256), torch.uint8)),
            "nf4": ((-(-n // 64), torch.float32), (16, torch.float32)),
        }[kind]
        for i, (n_elements, dtype) in enumerate(beside):
            self.register_buffer(f"beside_{i}", torch.zeros(n_elements, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like any module."""
        whole = torch.empty(self.shape, dtype=self.dtype, device=x.device)
        if self.is_transposed:
            flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), whole)
            return flat.view(*x.shape[:-1], self.shape[1])
        return functional.linear(x, whole, self.bias)


def _quantised(model: nn.Module, kind: str) -> None:
    for name, module in list(model.named_modules()):
        if type(module).__name__ in ("Linear", "Conv1D") and "head" not in name:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, Quantised(module, kind))


class FewBits(DynamicLayer):
    """Keys and values in fewer bits, brought back whole for each call: the memory, not the maths."""

    kind = "fp8"

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Keep what is new, and bring all back."""
        self.is_initialized = True
        parts = []
        for name, states in (("keys", key_states), ("values", value_states)):
            *outer, width = states.shape
            new = torch.zeros((*outer, width * BITS[self.kind] // 8), dtype=torch.uint8, device=states.device)
            old = getattr(self, name, None)
            setattr(self, name, new if old is None else torch.cat([old, new], dim=-2))
            if self.kind != "fp8":
                new_scale = states.new_zeros((*outer, 1))
                old_scale = getattr(self, f"{name}_scale", None)
                joined = new_scale if old_scale is None else torch.cat([old_scale, new_scale], dim=-2)
                setattr(self, f"{name}_scale", joined)
            parts.append(states.new_empty((*getattr(self, name).shape[:-1], width)))
        return tuple(parts)

    def get_seq_length(self) -> int:
        """Tokens of each sequence."""
        return 0 if getattr(self, "keys", None) is None else self.keys.shape[-2]


GENERATED = {"gpt2-generate": gpt2, "llama-generate": llama}
N_NEW = 16


@torch.no_grad()
def generate(name: str, change: str = "") -> object:
    """A prompt of 384 tokens for 16 samples, and 16 more tokens."""
    model = GENERATED[name]().half().eval()
    technique, _, argument = change.partition(":")
    if technique == "quantize":
        _quantised(model, argument)
    model = model.to(DEVICE)
    prompt = torch.randint(1, 8192, (16, 384), device=DEVICE)
    cache: Any = DynamicCache(config=model.config)
    if technique == "kv":
        FewBits.kind = argument
        cache = Cache(layers=[FewBits() for _ in range(model.config.num_hidden_layers)])
    elif change == "static-kv":
        cache = StaticCache(config=model.config, max_cache_len=384 + N_NEW)
    tokens = prompt
    for _ in range(N_NEW):
        logits = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        tokens = logits[:, -1].argmax(-1, keepdim=True)
    return model, cache


def run(name: str, change: str = "") -> object:
    """A program as it is, or changed."""
    torch.manual_seed(0)
    return generate(name, change) if name in GENERATED else train(name, change)


if __name__ == "__main__":
    run(*sys.argv[1:])
