"""Programs that start their ranks themselves, with ``torch.multiprocessing.spawn``: a rank is followed in place."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run.distributed.ranks import is_simulated
from memscope.capture.patches import Patches
from memscope.capture.stacks import user_line
from memscope.errors import CaptureError


class _Ended:
    """The processes that ``spawn`` returns where it does not wait for them: all have ended."""

    processes: tuple[Any, ...] = ()

    def join(self, *_: Any, **__: Any) -> bool:
        """Nothing to wait for."""
        return True

    def pids(self) -> list[int]:
        """There are none."""
        return []


def follow_spawned(patches: Patches) -> None:
    """Run, in place of all processes that are spawned, the one of this rank, in this process."""
    import torch.multiprocessing as mp

    plain: Callable[..., Any] = vars(mp)["start_processes"]

    @functools.wraps(plain)
    def start_processes(
        fn: Callable[..., None], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True, *_: Any, **__: Any
    ) -> _Ended | None:
        fn(_index(nprocs), *args)
        return None if join else _Ended()

    def spawn(
        fn: Callable[..., None], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True, *_: Any, **__: Any
    ) -> _Ended | None:
        return start_processes(fn, args, nprocs, join)

    for owner in (mp, sys.modules[plain.__module__]):
        for replacement in (start_processes, spawn):
            patches.set(owner, replacement.__name__, replacement)


def _index(n_processes: int) -> int:
    """Which of the spawned processes this rank is.

    Raises
    ------
    CaptureError
        If that cannot be told.
    """
    if n_processes == 1:
        return 0
    size = int(os.environ.get("WORLD_SIZE") or 1)
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if is_simulated() and n_processes == size:
        return int(os.environ["RANK"])
    if is_simulated() and n_processes == per_node:
        return int(os.environ["LOCAL_RANK"])
    ranks = f"{size} ranks, {per_node} on a node" if is_simulated() else "one process"
    raise CaptureError(
        f"{user_line()} starts {n_processes} processes, and a dry run follows {ranks}: "
        f"memscope run --dry-run --world-size {n_processes} runs each of them"
    )
