"""The programs of ``techniques.py`` as one rank of several: sharded by PyTorch itself, for ``benchmarks/whatif.py``.

``memscope run --dry-run --world-size 4 --rank 0 sharding.py PROGRAM CHANGE``; a change is such as ``zero:1:ranks=4``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import techniques
import torch
import torch.distributed as dist
from torch import nn

LAYERS = {"gpt2": "transformer.h", "llama": "model.layers", "lora": "model.layers", "mlp": "layers"}
SHARDS = ("zero", "fsdp2")
"""How changes begin that are made here."""


def n_ranks_of(change: str) -> int:
    """How many ranks a change is for: what follows the last ``=``."""
    return int(change.rpartition("=")[2])


@contextmanager
def as_first_rank(n_ranks: int) -> Iterator[None]:
    """A block in which this process is the first of several ranks whose others are not there."""
    from memscope.capture.dry_run.distributed.ranks import SimulatedRank

    added = SimulatedRank(0, n_ranks).environment()
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _in_shards(name: str, *, frees_after_forward: bool) -> nn.Module:
    """Each layer, and then the whole, fully sharded; built without memory."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cuda", (dist.get_world_size(),))
    options: dict[str, Any] = {"mesh": mesh}
    if not frees_after_forward:
        options["reshard_after_forward"] = False
    with torch.device("meta"):
        model = techniques.MODELS[name]()
    for layer in model.get_submodule(LAYERS[name.partition("-")[0]]):
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return model.to_empty(device=techniques.DEVICE)


def _replicated(name: str) -> nn.Module:
    from torch.nn.parallel import DistributedDataParallel

    with torch.device(techniques.DEVICE):
        model = techniques.MODELS[name]()
    return DistributedDataParallel(model)


def _optimizer_in_shards(parameters: Any) -> torch.optim.Optimizer:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.AdamW, lr=1e-3)


def run(name: str, change: str) -> object:
    """A few steps of the first rank."""
    torch.manual_seed(0)
    dist.init_process_group("nccl")
    is_replicated = change.startswith("zero:1")
    model = (
        _replicated(name) if is_replicated else _in_shards(name, frees_after_forward=not change.startswith("zero:2"))
    )
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer_in_shards(parameters) if is_replicated else torch.optim.AdamW(parameters, lr=1e-3)
    for _ in range(techniques.STEPS):
        inputs, labels = techniques.batch_of(name)
        techniques.loss_of(model, name, inputs, labels, "").backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.destroy_process_group()
    return model, optimizer


if __name__ == "__main__":
    run(*sys.argv[1:])
