"""Make the small traces that ship with memscope: dry runs of models with random weights, no GPU needed.

    python traces/generate.py [FOLDER]

Run it from the root of the repository. The same versions of torch and transformers give the same events; times count
the events, file names are relative to the repository or to the installed packages.
"""

from __future__ import annotations

import itertools
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from memscope.capture.dry_run.recording import DryRun
from memscope.gpus import find_gpu
from memscope.trace.container import write_container

_TICK_NS = 1000


def train() -> object:
    """Three AdamW steps of a small Llama, batches of different lengths."""
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=4096,
        use_cache=False,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for length in (128, 96, 160):
        tokens = torch.randint(0, 4096, (4, length)).cuda()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@torch.no_grad()
def generate() -> object:
    """A small GPT-2 generating 24 tokens for four prompts."""
    config = GPT2Config(n_layer=3, n_embd=192, n_head=6, vocab_size=4096, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).half().eval().to("cuda")
    prompt = torch.randint(1, 4096, (4, 48), device="cuda")
    mask = torch.ones_like(prompt)
    tokens = model.generate(prompt, attention_mask=mask, max_new_tokens=24, do_sample=False, pad_token_id=0)
    return model, tokens


def out_of_memory() -> object:
    """The forward pass of a model that does not fit a device of 1 GiB."""
    with torch.device("cuda"):
        model = torch.nn.Sequential(*[torch.nn.Linear(2048, 2048) for _ in range(24)])
    try:
        return model, model(torch.randn(8192, 2048, device="cuda"))
    except torch.OutOfMemoryError:
        return model, None


def make(work: Callable[[], object], gpu: str, path: Path) -> None:
    """Dry-run a function and write its trace."""
    prefixes = (f"{sysconfig.get_path('purelib')}/", f"{sysconfig.get_path('stdlib')}/", f"{Path.cwd()}/")
    ticks = itertools.count(0, _TICK_NS)
    run = DryRun(find_gpu(gpu), strip_prefixes=prefixes, clock=lambda: next(ticks))
    run.start()
    try:
        kept = work()
    finally:
        run.stop()
    assert run.trace is not None
    write_container(run.trace, path, overwrite=True)
    sys.stdout.write(f"{path}: {run.trace.n_events:,} events, {path.stat().st_size:,} bytes\n")
    del kept


def main(folder: str = "traces") -> None:
    """Make every trace."""
    torch.manual_seed(0)
    for name, work, gpu in (
        ("tiny-llama-train", train, "L4-24GB"),
        ("tiny-gpt2-generate", generate, "L4-24GB"),
        ("tiny-out-of-memory", out_of_memory, "1GiB"),
    ):
        make(work, gpu, Path(folder) / f"{name}.memscope")


if __name__ == "__main__":
    main(*sys.argv[1:])
