"""A dry run of one rank of many, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from memscope.capture.dry_run.distributed.ranks import SimulatedRank
from memscope.capture.recorder import Recorder
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


@pytest.fixture
def rank_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Recorder]]:
    """Starts the dry run of a rank, of so many; ends it, and its process groups, with the test."""
    running: list[Recorder] = []

    def start(rank: int, size: int) -> Recorder:
        for name, value in SimulatedRank(rank, size).environment().items():
            monkeypatch.setenv(name, value)
        running.append(dry_run().start())
        return running[-1]

    yield start
    for recorder in running:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        recorder.stop()
