"""The program of ``tests/techniques/programs.py`` as one rank of several, truly sharded."""

from __future__ import annotations

import os
import warnings
from functools import cache
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from memscope.capture.dry_run.distributed.ranks import SimulatedRank
from memscope.device.device import Device
from tests.techniques.programs import N_CLASSES, Model, adamw, dry_run


def _in_shards(n_ranks: int, *, frees_after_forward: bool) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cuda", (n_ranks,))
    options = {} if frees_after_forward else {"reshard_after_forward": False}
    with torch.device("meta"):
        model = Model()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model.to_empty(device="cuda")


def _with_states_dealt_out() -> tuple[nn.Module, torch.optim.Optimizer]:
    from torch.nn.parallel import DistributedDataParallel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it is imported
        from torch.distributed.optim import ZeroRedundancyOptimizer
    with torch.device("cuda"):
        model = DistributedDataParallel(Model())
    return model, ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)


@cache
def rank(kind: str, n_ranks: int, n_samples: int = 8, n_tokens: int = 64) -> Device:
    """Three steps of the first rank; ``kind`` is ``fsdp2``, ``zero:1`` or ``zero:2``."""

    def work() -> object:
        dist.init_process_group("nccl")
        if kind == "zero:1":
            model, optimizer = _with_states_dealt_out()
        else:
            model = _in_shards(n_ranks, frees_after_forward=kind == "fsdp2")
            optimizer = adamw(model.parameters())
        for _ in range(3):
            words = torch.randint(0, N_CLASSES, (n_samples, n_tokens)).to("cuda")
            functional.cross_entropy(model(words).flatten(0, 1), words.flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
        dist.destroy_process_group()
        return model, optimizer

    with patch.dict(os.environ, SimulatedRank(0, n_ranks).environment()):
        return dry_run(work)
