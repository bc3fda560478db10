"""Process groups of a dry run: made in one process, whatever the number of ranks."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from memscope.capture.recorder import Recorder
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
dist = torch.distributed

Start = Callable[[int, int], Recorder]


def test_nccl_is_there_and_a_rank_knows_its_place(rank_of: Start) -> None:
    rank_of(3, 8)
    dist.init_process_group("nccl")
    assert dist.is_nccl_available()
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (3, 8, "nccl")
    group = dist.new_group([2, 3])
    assert (dist.get_rank(group), dist.get_world_size(group)) == (1, 2)
    assert dist.new_group([0, 1]) is dist.GroupMember.NON_GROUP_MEMBER


@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo,cuda:nccl", None])
def test_no_backend_waits_for_the_others(rank_of: Start, backend: str | None) -> None:
    rank_of(1, 4)
    dist.init_process_group(backend)
    number = torch.tensor(2.0)
    dist.all_reduce(number, group=dist.new_group(backend="gloo"))
    dist.monitored_barrier()
    dist.barrier()
    assert dist.get_world_size() == 4


def test_without_a_world_size_there_is_one_rank_and_no_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken, dry_run():
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        dist.init_process_group("nccl")
        assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
        dist.destroy_process_group()


def test_the_device_is_the_ranks_own(rank_of: Start) -> None:
    recorder = rank_of(5, 16)
    dist.init_process_group("nccl", device_id=torch.device("cuda:5"))
    torch.cuda.set_device(5)
    assert (torch.cuda.device_count(), torch.cuda.current_device()) == (8, 5)
    made = [torch.ones(2).to(5), torch.ones(2, device=5), torch.ones(2, device="cuda"), torch.ones(2).cuda()]
    made += [torch.nn.Linear(1, 1).to(5).weight, torch.nn.Linear(1, 1).to(device=5).weight, torch.ones(2).to(device=5)]
    assert {str(tensor.device) for tensor in made} == {"cuda:5"}
    assert torch.device(5) == torch.device("cuda", 5)
    assert isinstance(made[0].device, torch.device)
    with pytest.raises(RuntimeError, match="a dry run has 8 devices, not cuda:8"):
        torch.cuda.set_device(8)
    torch.ones(2, device="cuda:0")
    dist.destroy_process_group()
    recorder.stop()
    assert recorder.trace.metadata.rank == 5
    # What another rank's device is named for lies there, as it would.
    assert recorder.trace.devices == (0, 5)


def test_torch_is_as_before_afterwards(rank_of: Start) -> None:
    from torch.distributed import distributed_c10d as c10d

    owners = [(dist, "init_process_group"), (c10d, "is_nccl_available"), (dist, "all_gather_object"), (torch, "device")]
    owners += [(dist, "Reducer"), (c10d, "_new_process_group_helper"), (torch.multiprocessing, "spawn")]
    before = [vars(owner)[name] for owner, name in owners]
    recorder = rank_of(0, 2)
    dist.init_process_group("nccl")
    dist.destroy_process_group()
    recorder.stop()
    assert [vars(owner)[name] for owner, name in owners] == before
