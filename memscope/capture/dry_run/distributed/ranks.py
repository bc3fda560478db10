"""One rank of many, run alone: the environment that a launcher would have given it, and all of them one by one.

Nothing here needs torch: the process that runs the others never imports it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from memscope.errors import UsageError

SIMULATED = "MEMSCOPE_SIMULATED_RANKS"
"""Set in the environment of a rank whose others are not there."""
DEVICES_OF_A_NODE = 8
_LAUNCHERS = frozenset(
    [
        *("torch.distributed.run", "torch.distributed.launch", "torchrun"),
        *("accelerate.commands.launch", "accelerate", "deepspeed", "deepspeed.launcher.runner"),
    ]
)


@dataclass(frozen=True, slots=True)
class SimulatedRank:
    """A rank that runs without the others.

    Raises
    ------
    UsageError
        If there is no such rank.
    """

    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise UsageError(f"--world-size {self.world_size} cannot be used: give 1 or more")
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"--rank {self.rank} is not one of the {self.world_size} ranks: they are numbered from 0")

    @property
    def local_world_size(self) -> int:
        """How many ranks a node has: at most eight, and as many on each."""
        return max(n for n in range(1, DEVICES_OF_A_NODE + 1) if self.world_size % n == 0)

    @property
    def local_rank(self) -> int:
        """Its number on its node, and its device's."""
        return self.rank % self.local_world_size

    def environment(self) -> dict[str, str]:
        """The variables that ``torchrun`` sets for it."""
        size, rank, per_node = str(self.world_size), str(self.rank), self.local_world_size
        return {
            SIMULATED: size,
            "RANK": rank,
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": str(per_node),
            "GROUP_RANK": str(self.rank // per_node),
            "GROUP_WORLD_SIZE": str(self.world_size // per_node),
            "ROLE_RANK": rank,
            "ROLE_WORLD_SIZE": size,
            "ROLE_NAME": "default",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
        }


def is_simulated(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this process is a rank whose others are not there."""
    return bool((os.environ if environ is None else environ).get(SIMULATED))


def refuse_launcher(target: str) -> None:
    """Refuse to dry-run a program whose processes would not be followed.

    Raises
    ------
    UsageError
        If it is a launcher.
    """
    if target in _LAUNCHERS or Path(target).name in _LAUNCHERS:
        raise UsageError(
            f"{target} starts processes, which a dry run does not follow: "
            "give the program itself, and the number of ranks with --world-size"
        )


def run_each(ranks: Iterable[int], world_size: int, arguments: Iterable[str]) -> int:
    """Run ``memscope`` once for each rank, one after the other, until one fails; its exit code, else 0."""
    command = [sys.executable, "-m", "memscope", *arguments]
    for rank in ranks:
        one = SimulatedRank(rank, world_size)
        sys.stderr.write(f"memscope: rank {rank} of {world_size}\n")
        sys.stderr.flush()
        environment = {**os.environ, **one.environment()}
        code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
        if code:
            sys.stderr.write(f"memscope: rank {rank} ended with exit code {code}: the ranks after it were not run\n")
            return code if code > 0 else 128 - code
    return 0
