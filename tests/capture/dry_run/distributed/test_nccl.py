"""What NCCL takes beside PyTorch's memory: a model, made of sizes that were published."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.analysis import Analysis
from memscope.capture.dry_run.distributed._nccl import HIGH_BYTES, LOW_BYTES
from memscope.capture.recorder import Recorder

torch = pytest.importorskip("torch")
dist = torch.distributed

Start = Callable[[int, int], Recorder]


def test_each_group_that_works_on_the_device_has_a_communicator(rank_of: Start) -> None:
    recorder = rank_of(0, 4)
    dist.init_process_group("cpu:gloo,cuda:nccl")
    pair, alone = dist.new_group([0, 1]), dist.new_group([0])
    dist.all_reduce(torch.ones(2))
    assert recorder.snapshot().metadata.extra["collectives_modelled"] is None
    for group in (None, None, pair, alone):
        dist.all_reduce(torch.ones(2, device="cuda"), group=group)
    trace = recorder.snapshot()
    expected = {"n_communicators": 2, "low_bytes": 2 * LOW_BYTES, "high_bytes": 2 * HIGH_BYTES}
    assert trace.metadata.extra["collectives_modelled"] == expected
    modelled = Analysis(trace).device(0).peak().ledger.modelled_collectives
    assert modelled is not None
    assert (modelled.n_communicators, modelled.low_bytes) == (2, 2 * LOW_BYTES)


def test_functional_collectives_count_as_well(rank_of: Start) -> None:
    from torch.distributed import _functional_collectives as functional

    recorder = rank_of(0, 4)
    dist.init_process_group("nccl")
    functional.all_reduce(torch.ones(2, device="cuda"), "sum", dist.group.WORLD)
    assert recorder.snapshot().metadata.extra["collectives_modelled"]["n_communicators"] == 1
