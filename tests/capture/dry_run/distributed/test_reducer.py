"""DistributedDataParallel in a dry run: its buckets are on the device, and have a name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.capture.recorder import Recorder
from memscope.trace.categories import Category
from tests.capture.programs import dry_run, requested

torch = pytest.importorskip("torch")
dist = torch.distributed

Start = Callable[[int, int], Recorder]
N_BYTES = 4 * (512 * 512 + 512)
"""Of a layer of 512 × 512 in float32."""


def train(**options: bool) -> int:
    """Two steps of two layers; what is allocated afterwards."""
    dist.init_process_group("nccl")
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512)).cuda()
    wrapped = torch.nn.parallel.DistributedDataParallel(model, device_ids=[torch.cuda.current_device()], **options)
    for _ in range(2):
        wrapped(torch.ones(4, 512, device="cuda")).sum().backward()
    del wrapped
    return int(torch.cuda.memory_allocated())


def test_buckets_are_as_large_as_the_gradients_and_are_rebuilt_once(rank_of: Start) -> None:
    recorder = rank_of(1, 4)
    train()
    buckets = requested(recorder.snapshot(), Category.COMMUNICATION)["DDP buckets"]
    assert 0 <= buckets - 2 * 2 * N_BYTES < 64  # and a few numbers of the reducer's own


def test_gradients_that_are_views_of_buckets_are_gradients(rank_of: Start) -> None:
    recorder = rank_of(1, 4)
    train(gradient_as_bucket_view=True)
    gradients = requested(recorder.snapshot(), Category.GRADIENTS)
    assert sum(gradients.values()) == 2 * 2 * N_BYTES  # those of the first step, and the rebuilt ones


def test_one_rank_without_a_launcher_runs() -> None:
    with dry_run() as recorder:
        train()
        dist.destroy_process_group()
    assert "DDP buckets" in requested(recorder.trace, Category.COMMUNICATION)
