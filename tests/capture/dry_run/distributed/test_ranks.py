"""One rank of many, run alone: the environment that a launcher would have given it, and all of them one by one."""

from __future__ import annotations

import pytest

from memscope.capture.dry_run.distributed import ranks
from memscope.capture.dry_run.distributed.ranks import SimulatedRank, refuse_launcher, run_each
from memscope.errors import UsageError


@pytest.mark.parametrize(
    ("rank", "size", "local"),
    [(0, 1, (0, 1)), (3, 8, (3, 8)), (9, 64, (1, 8)), (11, 12, (5, 6)), (4, 11, (0, 1))],
)
def test_nodes_have_at_most_eight_devices_and_all_as_many(rank: int, size: int, local: tuple[int, int]) -> None:
    one = SimulatedRank(rank, size)
    assert (one.local_rank, one.local_world_size) == local


def test_the_environment_is_that_of_torchrun() -> None:
    found = SimulatedRank(10, 16).environment()
    assert {name: found[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")} == {
        "RANK": "10",
        "LOCAL_RANK": "2",
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
    }
    assert (found["GROUP_RANK"], found["GROUP_WORLD_SIZE"]) == ("1", "2")
    assert {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"} <= set(found)
    assert ranks.is_simulated(found)
    assert not ranks.is_simulated({})


@pytest.mark.parametrize(("rank", "size"), [(0, 0), (-1, 2), (2, 2)])
def test_ranks_that_are_not_there_are_refused(rank: int, size: int) -> None:
    with pytest.raises(UsageError):
        SimulatedRank(rank, size)


@pytest.mark.parametrize("target", ["torch.distributed.run", "/usr/bin/torchrun", "accelerate"])
def test_launchers_are_refused_in_one_line(target: str) -> None:
    with pytest.raises(UsageError, match="--world-size"):
        refuse_launcher(target)
    refuse_launcher("train.py")


def test_the_first_rank_that_fails_is_the_last(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    class Ended:
        returncode = 0

    def run(command: list[str], *, env: dict[str, str], check: bool) -> Ended:
        assert command[-2:] == ["run", "train.py"]
        assert not check
        seen.append(env["RANK"])
        Ended.returncode = 3 if env["RANK"] == "4" else 0
        return Ended()

    monkeypatch.setattr(ranks.subprocess, "run", run)
    assert run_each([0, 2], 8, ["run", "train.py"]) == 0
    assert run_each([2, 4, 5], 8, ["run", "train.py"]) == 3
    assert seen == ["0", "2", "2", "4"]
    assert "rank 4 ended with exit code 3" in capfd.readouterr().err
