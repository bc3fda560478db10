"""Programs of many processes in a dry run, as a whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.capture.recorder import Recorder

torch = pytest.importorskip("torch")

Start = Callable[[int, int], Recorder]


def test_a_sampler_and_a_checkpoint_of_the_first_rank_are_as_ever(rank_of: Start, tmp_path: object) -> None:
    rank_of(0, 4)
    torch.distributed.init_process_group("nccl")
    sampler = torch.utils.data.DistributedSampler(torch.utils.data.TensorDataset(torch.arange(80)), shuffle=False)
    assert list(sampler) == list(range(0, 80, 4))
    model = torch.nn.Linear(4, 4).cuda()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    if torch.distributed.get_rank() == 0:
        torch.save(wrapped.module.state_dict(), f"{tmp_path}/model.pt")
    assert torch.load(f"{tmp_path}/model.pt")["weight"].shape == (4, 4)


def test_a_run_without_process_groups_says_nothing_of_them(rank_of: Start) -> None:
    recorder = rank_of(0, 2)
    torch.ones(2, device="cuda")
    assert recorder.snapshot().metadata.extra["collectives_modelled"] is None
