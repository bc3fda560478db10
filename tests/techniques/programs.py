"""Small programs, dry-run as they are and truly changed: what techniques are checked against."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from memscope.analysis import Analysis
from memscope.capture.dry_run.recording import DryRun
from memscope.device.device import Device
from memscope.gpus import find_gpu
from memscope.techniques.whatif import Peaks, WhatIf, what_if

SEGMENT_BYTES = 20 << 20
"""What the allocator asks the driver for where blocks are small: reserved bytes go in such steps."""
WIDTH, N_LAYERS, N_CLASSES = 512, 4, 5000


class Block(nn.Module):
    """A layer with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class Model(nn.Module):
    """Words in, words out."""

    def __init__(self, every: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(N_CLASSES, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(N_LAYERS))
        self.head = nn.Linear(WIDTH, N_CLASSES, bias=False)
        self.every = every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        step = self.every or 1
        for i in range(0, N_LAYERS, step):
            part = nn.Sequential(*self.layers[i : i + step])
            x = checkpoint(part, x, use_reentrant=False) if self.every else part(x)
        return self.head(x)


Make = Callable[[Any], torch.optim.Optimizer]


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


@cache
def train(
    n_samples: int = 8,
    n_tokens: int = 64,
    *,
    make_optimizer: Make = adamw,
    every: int = 0,
    n_parts: int = 1,
    sets_to_none: bool = True,
    empties: bool = False,
    saves_on_host: bool = False,
    conf: str = "",
) -> Device:
    """Three steps."""

    def work() -> object:
        with torch.device("cuda"):
            model = Model(every)
        optimizer = make_optimizer(model.parameters())
        for _ in range(3):
            words = torch.randint(0, N_CLASSES, (n_samples, n_tokens)).to("cuda")
            for part in words.chunk(n_parts):
                with torch.autograd.graph.save_on_cpu() if saves_on_host else nullcontext():
                    loss = functional.cross_entropy(model(part).flatten(0, 1), part.flatten()) / n_parts
                loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=sets_to_none)
            if empties:
                torch.cuda.empty_cache()
        return model, optimizer

    return dry_run(work, conf)


def dry_run(work: Callable[[], object], conf: str = "") -> Device:
    """The device of a function's dry run."""
    run = DryRun(find_gpu("A100-80GB"), conf, has_stacks=False)
    run.start()
    try:
        kept = work()
    finally:
        run.stop()
    del kept
    assert run.trace is not None
    return Analysis(run.trace).devices[0]


def peaks(device: Device) -> Peaks:
    """What a recording peaks at, by the recording itself."""
    return Peaks(device.peak().allocated_bytes, device.peak_reserved().reserved_bytes or 0)


def apply(device: Device, technique: str) -> WhatIf:
    """What one technique is predicted to make of a program."""
    return what_if(device, [technique]).results[0]


def assert_as_changed(device: Device, technique: str, changed: Device, within: float = 0.01) -> None:
    """The prediction is what the truly changed program takes; of reserved bytes to one segment."""
    found, truth = apply(device, technique).peaks, peaks(changed)
    assert abs(found.allocated_bytes / truth.allocated_bytes - 1) <= within, (found, truth)
    off = abs(found.reserved_bytes - truth.reserved_bytes)
    assert off <= max(within * truth.reserved_bytes, SEGMENT_BYTES if within else 0), (found, truth)


@cache
def generate(*, make_layer: Callable[[], Any] | None = None, static: bool = False, changes: Any = None) -> Device:
    """A prompt and eight tokens of a small GPT-2 in half precision."""
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, StaticCache
    from transformers.cache_utils import Cache

    @torch.no_grad()
    def work() -> object:
        config = GPT2Config(n_layer=3, n_embd=384, n_head=6, vocab_size=2048, bos_token_id=0, eos_token_id=0)
        model = GPT2LMHeadModel(config).half().eval()
        if changes is not None:
            changes(model)
        model = model.to("cuda")
        if static:
            kept: Any = StaticCache(config=config, max_cache_len=264)
        else:
            kept = DynamicCache(config=config) if make_layer is None else Cache([make_layer() for _ in range(3)])
        tokens = torch.randint(1, 2048, (8, 256), device="cuda")
        for _ in range(8):
            logits = model(input_ids=tokens, past_key_values=kept, use_cache=True, logits_to_keep=1).logits
            tokens = logits[:, -1].argmax(-1, keepdim=True)
        return model, kept

    return dry_run(work)
