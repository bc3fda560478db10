"""Small training and generation programs whose memory's owners a dry run records by identity.

Each is a function that runs inside a recording; ``WORKLOADS`` names them. They are ordinary programs:
nothing in them is there for the rules' sake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional

from memscope.capture.recorder import Recorder
from memscope.trace.trace import Trace

N_TOKENS_VOCABULARY = 512
_HIDDEN = 256
_device = "cuda"


@contextmanager
def on_host() -> Iterator[None]:
    """Programs within run on the host, with real tensors."""
    global _device
    _device = "cpu"
    try:
        yield
    finally:
        _device = "cuda"


class Watcher:
    """Hears of what a program does; this one does not care, as recordings find everything themselves."""

    def know(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """A model, and the optimizer that trains it."""

    def step(self) -> None:
        """A training step ended."""


@dataclass(frozen=True)
class Workload:
    """A program, and whether it trains or generates.

    It tells a watcher of its model, its optimizer and the end of each step, for trackers that must be told.
    """

    run: Callable[[Watcher], None]
    trains: bool = True


def _llama(**settings: Any) -> Any:
    config = transformers.LlamaConfig(
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=N_TOKENS_VOCABULARY,
        **settings,
    )
    with torch.device(_device):
        return transformers.LlamaForCausalLM(config)


def _gpt2() -> Any:
    config = transformers.GPT2Config(n_embd=_HIDDEN, n_layer=3, n_head=4, vocab_size=N_TOKENS_VOCABULARY)
    return transformers.GPT2LMHeadModel(config).to(_device)


def _token_batches(n: int, shape: tuple[int, int]) -> Iterator[torch.Tensor]:
    for _ in range(n):
        yield torch.randint(0, N_TOKENS_VOCABULARY, shape).to(_device)


def _train_language_model(
    watcher: Watcher,
    model: Any,
    optimizer: torch.optim.Optimizer,
    steps: int = 3,
    shape: tuple[int, int] = (4, 64),
    forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
    decoder: bool = False,
) -> None:
    model.train()
    watcher.know(model, optimizer)
    for tokens in _token_batches(steps, shape):
        with forward():
            given = {"decoder_input_ids": tokens} if decoder else {}
            loss = model(input_ids=tokens, labels=tokens, **given).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watcher.step()


def llama_adamw_foreach(watcher: Watcher) -> None:
    """Llama, AdamW with its multi-tensor step."""
    model = _llama()
    _train_language_model(watcher, model, torch.optim.AdamW(model.parameters(), foreach=True))


def llama_sgd_momentum(watcher: Watcher) -> None:
    """Llama, SGD with momentum."""
    model = _llama()
    _train_language_model(watcher, model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def llama_checkpointing(watcher: Watcher) -> None:
    """Llama with gradient checkpointing: activations are computed again within the backward pass."""
    model = _llama(use_cache=False)
    model.gradient_checkpointing_enable()
    _train_language_model(watcher, model, torch.optim.AdamW(model.parameters()), shape=(8, 128))


def gpt2_adamw_fused(watcher: Watcher) -> None:
    """GPT-2, moved to the device as a whole, AdamW with its fused step."""
    model = _gpt2()
    _train_language_model(watcher, model, torch.optim.AdamW(model.parameters(), fused=True))


def gpt2_adamw_loop(watcher: Watcher) -> None:
    """GPT-2, AdamW parameter by parameter."""
    model = _gpt2()
    _train_language_model(watcher, model, torch.optim.AdamW(model.parameters(), foreach=False))


def mixtral_train(watcher: Watcher) -> None:
    """A mixture of experts."""
    config = transformers.MixtralConfig(
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        vocab_size=N_TOKENS_VOCABULARY,
    )
    model = transformers.MixtralForCausalLM(config).to(_device, torch.bfloat16)
    _train_language_model(watcher, model, torch.optim.AdamW(model.parameters()))


def t5_train(watcher: Watcher) -> None:
    """An encoder and a decoder."""
    config = transformers.T5Config(
        d_model=_HIDDEN, d_ff=2 * _HIDDEN, d_kv=32, num_layers=2, num_heads=4, vocab_size=N_TOKENS_VOCABULARY
    )
    model = transformers.T5ForConditionalGeneration(config).to(_device)
    _train_language_model(watcher, model, torch.optim.AdamW(model.parameters()), decoder=True)


def bert_autocast(watcher: Watcher) -> None:
    """BERT in bfloat16 autocast with float32 weights."""
    config = transformers.BertConfig(
        hidden_size=_HIDDEN,
        intermediate_size=2 * _HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=N_TOKENS_VOCABULARY,
    )
    model = transformers.BertForMaskedLM(config).to(_device)
    _train_language_model(
        watcher, model, torch.optim.AdamW(model.parameters()), forward=lambda: torch.autocast(_device, torch.bfloat16)
    )


def llama_generate(watcher: Watcher) -> None:
    """Llama generates into a cache that grows."""
    model = _llama().to(torch.bfloat16).eval()
    watcher.know(model)
    with torch.inference_mode():
        for tokens in _token_batches(2, (4, 96)):
            model.generate(tokens, max_new_tokens=24, do_sample=False, pad_token_id=0)


def gpt2_generate(watcher: Watcher) -> None:
    """GPT-2 generates into a cache that grows."""
    model = _gpt2().half().eval()
    watcher.know(model)
    for tokens in _token_batches(1, (4, 96)):
        model.generate(tokens, max_new_tokens=24, do_sample=True, pad_token_id=0)


def llama_generate_static(watcher: Watcher) -> None:
    """Llama generates into a cache of fixed size."""
    model = _llama().to(torch.bfloat16).eval()
    watcher.know(model)
    for tokens in _token_batches(1, (4, 96)):
        model.generate(tokens, max_new_tokens=24, do_sample=False, cache_implementation="static", pad_token_id=0)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * functional.relu(self.norm(self.conv(x)))


def cnn_train(watcher: Watcher) -> None:
    """Convolutions and a linear head in a plain loop, loss outside of any module."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), _Residual(16), nn.MaxPool2d(2), _Residual(16), nn.Flatten(), nn.Linear(16 * 15 * 15, 10)
    )
    model.to(_device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    watcher.know(model, optimizer)
    for _ in range(3):
        images, target = torch.randn(16, 3, 32, 32).to(_device), torch.randint(0, 10, (16,)).to(_device)
        optimizer.zero_grad()
        output = model(images)
        loss = functional.cross_entropy(output, target) + 0.01 * output.pow(2).mean()
        loss.backward()
        optimizer.step()
        watcher.step()


WORKLOADS: dict[str, Workload] = {
    "llama, AdamW foreach": Workload(llama_adamw_foreach),
    "llama, SGD momentum": Workload(llama_sgd_momentum),
    "llama, checkpointing": Workload(llama_checkpointing),
    "GPT-2, AdamW fused": Workload(gpt2_adamw_fused),
    "GPT-2, AdamW loop": Workload(gpt2_adamw_loop),
    "Mixtral, AdamW": Workload(mixtral_train),
    "T5, AdamW": Workload(t5_train),
    "BERT, autocast": Workload(bert_autocast),
    "CNN, Adam": Workload(cnn_train),
    "llama, generate": Workload(llama_generate, trains=False),
    "GPT-2, generate": Workload(gpt2_generate, trains=False),
    "llama, static cache": Workload(llama_generate_static, trains=False),
}


def record_workload(name: str) -> Trace:
    """A dry run of a workload on an 80 GB device."""
    torch.manual_seed(0)
    recorder = Recorder(backend="dry-run", gpu="A100-80GB", conf="")
    with recorder:
        WORKLOADS[name].run(Watcher())
    return recorder.trace
