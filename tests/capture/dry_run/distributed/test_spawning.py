"""Programs that start their ranks themselves: a rank is followed in place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.capture.recorder import Recorder
from memscope.errors import CaptureError
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")

Start = Callable[[int, int], Recorder]


def test_the_spawned_process_of_this_rank_runs_in_this_one(rank_of: Start) -> None:
    recorder = rank_of(2, 4)
    seen: list[tuple[int, str]] = []
    made = []

    def main(rank: int, word: str) -> None:
        seen.append((rank, word))
        made.append(torch.zeros(100, device=f"cuda:{rank}"))

    torch.multiprocessing.spawn(main, args=("a",), nprocs=4)
    context = torch.multiprocessing.spawn(main, args=("b",), nprocs=4, join=False)
    assert context.join()
    assert seen == [(2, "a"), (2, "b")]
    assert recorder.snapshot().n_events == 3


def test_more_processes_than_ranks_are_refused_in_one_line(rank_of: Start) -> None:
    rank_of(0, 2)
    with pytest.raises(CaptureError, match=r"starts 4 processes, and a dry run follows 2 ranks.*--world-size 4"):
        torch.multiprocessing.spawn(print, nprocs=4)


def test_several_processes_without_ranks_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMSCOPE_SIMULATED_RANKS", raising=False)
    with dry_run(), pytest.raises(CaptureError, match=r"follows one process: memscope run --dry-run --world-size 2"):
        torch.multiprocessing.spawn(print, nprocs=2)
