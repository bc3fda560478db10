"""Programs of the kinds that run out of memory, for an emulated device: nothing is computed, every allocation is made.

``python out_of_memory.py NAME --batch N``. Each does the same whenever it is run, and scales with its batch as such
programs do.
"""

from __future__ import annotations

import argparse
import gc
import random
from collections.abc import Callable, Iterable

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

_VOCABULARY = 32_000


def _llama(n_layers: int = 8, dtype: torch.dtype = torch.bfloat16, **changed: object) -> LlamaForCausalLM:
    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=_VOCABULARY, num_hidden_layers=n_layers, **{**shape, **changed})
    with torch.device("cuda"):
        return LlamaForCausalLM(config).to(dtype)


def _gpt2(n_layers: int = 6) -> GPT2LMHeadModel:
    with torch.device("cuda"):
        return GPT2LMHeadModel(GPT2Config(n_layer=n_layers, n_embd=768, n_head=12, vocab_size=_VOCABULARY))


def _tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, _VOCABULARY, (batch, length)).to("cuda")


def _train(
    model: nn.Module, parameters: Iterable[nn.Parameter], shapes: Iterable[tuple[int, int]], **of_adam: bool
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, **of_adam)
    for batch, length in shapes:
        tokens = _tokens(batch, length)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def train(batch: int) -> None:
    """One length, AdamW with foreach: the first step of the optimizer is the first peak."""
    model = _llama()
    _train(model, model.parameters(), [(batch, 512)] * 4)


def train_fp32(batch: int) -> None:
    """GPT-2 in fp32 under autocast, AdamW fused."""
    model = _gpt2()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        _train(model, model.parameters(), [(batch, 512)] * 4, fused=True)


def train_lengths(batch: int) -> None:
    """Lengths that vary from step to step, which fragments."""
    rng = random.Random(7)
    model = _llama()
    _train(model, model.parameters(), [(batch, rng.randrange(64, 1025, 8)) for _ in range(14)])


def train_accumulated(batch: int) -> None:
    """Gradients summed over four passes."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(8):
        tokens = _tokens(batch, 384 + 128 * (step % 3))
        (model(input_ids=tokens, labels=tokens, use_cache=False).loss / 4).backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()


def train_checkpointed(batch: int) -> None:
    """Layers computed again in the backward pass."""
    model = _llama(12)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    _train(model, model.parameters(), [(batch, 1024)] * 3)


def train_longer(batch: int) -> None:
    """Sequences that grow during training."""
    model = _llama()
    _train(model, model.parameters(), [(batch, length) for length in (256, 384, 512, 640, 768, 896)])


def evaluate(batch: int) -> None:
    """Logits of every batch kept on the device, as a naive evaluation does."""
    model = _gpt2().eval()
    with torch.no_grad():
        torch.cat([model(_tokens(batch, 256)).logits for _ in range(12)])


def evaluate_between(batch: int) -> None:
    """Training, with an evaluation of longer sequences in between."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(6):
        tokens = _tokens(batch, 384)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 1:
            with torch.no_grad():
                model(input_ids=_tokens(batch, 640), use_cache=False).logits.float().argmax(-1)


class _LowRank(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        self.base = base
        on = {"bias": False, "device": "cuda", "dtype": torch.float32}
        self.lora_A = nn.Linear(base.in_features, rank, **on)
        self.lora_B = nn.Linear(rank, base.out_features, **on)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + 2 * self.lora_B(self.lora_A(x.float())).to(x.dtype)


def lora(batch: int) -> None:
    """Low-rank adapters on a frozen model."""
    model = _llama(12).requires_grad_(False)
    for layer in model.model.layers:
        for name in ("q_proj", "v_proj", "up_proj"):
            holder = layer.mlp if name == "up_proj" else layer.self_attn
            setattr(holder, name, _LowRank(getattr(holder, name)))
    rng = random.Random(3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _train(model, trained, [(batch, rng.randrange(128, 1025, 8)) for _ in range(8)])


@torch.no_grad()
def _decode(model: PreTrainedModel, batch: int, prompt: int, n_new: int) -> None:
    result = model(input_ids=_tokens(batch, prompt), use_cache=True)
    for _ in range(n_new):
        result = model(input_ids=_tokens(batch, 1), past_key_values=result.past_key_values, use_cache=True)


def generate(batch: int) -> None:
    """A key/value cache that is concatenated anew for every token."""
    _decode(_llama(12).eval(), batch, 512, 96)


def generate_requests(batch: int) -> None:
    """Prompts of many lengths, one after another."""
    model, rng = _llama(8).eval(), random.Random(11)
    for _ in range(8):
        _decode(model, batch, rng.randrange(64, 1500), 12)


def stitch(batch: int) -> None:
    """Freed neighbours that are not: blocks of many sizes between what stays, then a large one."""
    rng, kept = random.Random(5), []
    for _ in range(160):
        passing = torch.empty(batch * rng.randrange(1, 9) << 18, dtype=torch.uint8, device="cuda")
        kept.append(torch.empty(rng.randrange(1, 40) << 17, dtype=torch.uint8, device="cuda"))
        if rng.random() < 0.5:
            kept.pop(rng.randrange(len(kept)))
        del passing
    torch.empty(batch << 23, dtype=torch.uint8, device="cuda")


PROGRAMS: dict[str, Callable[[int], None]] = {
    one.__name__: one
    for one in (
        train,
        train_fp32,
        train_lengths,
        train_accumulated,
        train_checkpointed,
        train_longer,
        evaluate,
        evaluate_between,
        lora,
        generate,
        generate_requests,
        stitch,
    )
}


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PROGRAMS)
    parser.add_argument("--batch", type=int, required=True)
    chosen = parser.parse_args()
    gc.disable()  # when it collects would depend on what else runs
    torch.manual_seed(0)
    PROGRAMS[chosen.name](chosen.batch)


if __name__ == "__main__":
    _main()
