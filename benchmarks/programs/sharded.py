"""Trains a Llama-shaped model that ``fully_shard`` spreads over all ranks, for two steps; run by ``../ranks.py``.

    memscope run --dry-run --world-size 64 --rank 0 sharded.py llama-3-70b

With ``--tracker`` the same steps are followed by PyTorch's own ``FSDPMemTracker``, on fake tensors and a fake process
group of the host, and the peak that it found is printed. Weights are float32, gathered in bfloat16; blocks are
checkpointed.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

SHAPES = {
    "llama-3-8b": (4096, 14336, 32, 32, 8, 128256),
    "llama-3-70b": (8192, 28672, 80, 64, 8, 128256),
    "tiny": (64, 128, 2, 4, 2, 512),
}


class Attention(nn.Module):
    """Attention of grouped queries."""

    def __init__(self, hidden: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.sizes = heads, kv_heads, hidden // heads
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, kv_heads * self.sizes[2], bias=False)
        self.value = nn.Linear(hidden, kv_heads * self.sizes[2], bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like any module."""
        heads, kv_heads, size = self.sizes
        query = self.query(x).unflatten(-1, (heads, size)).transpose(1, 2)
        key = self.key(x).unflatten(-1, (kv_heads, size)).transpose(1, 2)
        value = self.value(x).unflatten(-1, (kv_heads, size)).transpose(1, 2)
        key, value = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (key, value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and a gated perceptron."""

    def __init__(self, hidden: int, intermediate: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(2))
        self.attention = Attention(hidden, heads, kv_heads)
        self.gate = nn.Linear(hidden, intermediate, bias=False)
        self.up = nn.Linear(hidden, intermediate, bias=False)
        self.down = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Like any module."""
        x = x + self.attention(self.norms[0](x))
        y = self.norms[1](x)
        y = self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return x + y


class Model(nn.Module):
    """Blocks between an embedding and a head."""

    def __init__(self, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.blocks = nn.ModuleList(Block(hidden, intermediate, heads, kv_heads) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits; each block is computed again in the backward pass."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


def sharded(sizes: tuple[int, ...], mesh: Any) -> Any:
    """A model without values, of which each rank has its part."""
    precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    with torch.device("meta"):
        model = Model(*sizes)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision)
    fully_shard(model, mesh=mesh, mp_policy=precision)
    return model.to_empty(device=mesh.device_type)


def passes(model: Any, device: str, args: argparse.Namespace) -> None:
    """A forward and a backward pass."""
    tokens = torch.randint(0, model.head.out_features, (args.batch, args.seq), device=device)
    logits = model(tokens)
    nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()).backward()


def tracked(args: argparse.Namespace) -> int:
    """The peak that ``FSDPMemTracker`` finds in the passes of the second step, of one rank of a fake process group.

    The optimizer steps before it follows anything: it would count the whole tensors that DTensor works out shapes with.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=args.rank, world_size=args.world_size, store=FakeStore())
    mesh = dist.init_device_mesh("cpu", (args.world_size,))
    with FakeTensorMode():
        model = sharded(SHAPES[args.shape], mesh)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        passes(model, "cpu", args)
        optimizer.step()
        optimizer.zero_grad()
        tracker = FSDPMemTracker(model, optimizer)
        with tracker:
            passes(model, "cpu", args)
    peak = tracker.get_tracker_snapshot("peak")
    return max(of_device["Total"] for of_device in peak.values())


def main() -> None:
    """Train, or follow the tracker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq", type=int, default=4096)
    parser.add_argument("--tracker", action="store_true")
    parser.add_argument("--world-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=0)
    args = parser.parse_args()
    if args.tracker:
        print(tracked(args))
        return
    dist.init_process_group("nccl")
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    model = sharded(SHAPES[args.shape], dist.init_device_mesh("cuda", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    for _ in range(2):
        passes(model, "cuda", args)
        optimizer.step()
        optimizer.zero_grad()
    print(torch.cuda.max_memory_allocated())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
