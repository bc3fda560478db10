"""Collectives of Python objects in a dry run: what other ranks would send is what this one has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.capture.recorder import Recorder
from memscope.errors import CaptureError
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
dist = torch.distributed

Start = Callable[[int, int], Recorder]


def test_gathered_objects_are_copies_of_this_ranks(rank_of: Start) -> None:
    rank_of(0, 3)
    dist.init_process_group("nccl")
    gathered: list[dict[str, int] | None] = [None] * 3
    dist.all_gather_object(gathered, {"rank": 0})
    assert gathered == [{"rank": 0}] * 3
    assert gathered[0] is not gathered[1]
    collected: list[str | None] = [None] * 3
    dist.gather_object("one", collected, dst=0)
    assert collected == ["one"] * 3


def test_what_another_rank_broadcasts_is_said_to_be_unknown(rank_of: Start, capfd: pytest.CaptureFixture[str]) -> None:
    rank_of(1, 2)
    dist.init_process_group("nccl")
    settings = [{"lr": 1}]
    dist.broadcast_object_list(settings, src=1)
    assert settings == [{"lr": 1}]
    assert not capfd.readouterr().err
    nothing = [None]
    dist.broadcast_object_list(nothing, src=0)
    assert "what it broadcasts is not known here" in capfd.readouterr().err
    mine = [None]
    dist.scatter_object_list(mine, ["a", "b"], src=0)
    assert mine == ["b"]


def test_waiting_for_anothers_objects_is_refused_in_one_line(rank_of: Start) -> None:
    rank_of(1, 2)
    dist.init_process_group("nccl")
    dist.send_object_list([1], dst=0)
    with pytest.raises(CaptureError, match=r"test_objects\.py:\d+: waits for objects of another rank"):
        dist.recv_object_list([None], src=0)


def test_gloo_of_one_rank_sends_objects_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with dry_run():
        dist.init_process_group("gloo")
        gathered: list[str | None] = [None]
        dist.all_gather_object(gathered, "mine")
        dist.destroy_process_group()
    assert gathered == ["mine"]
