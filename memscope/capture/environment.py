"""What a recording takes from its environment: settings in variables, and the release of PyTorch.

Variables are for programs that a launcher starts many times over.

========================  ==============================================================================================
``MEMSCOPE_OUT``          the file to write, or an existing folder to write into
``MEMSCOPE_RANKS``        which ranks record: ``all``, or numbers and ranges such as ``0,3-5``
``MEMSCOPE_MAX_EVENTS``   events kept for each device
``MEMSCOPE_MAX_LOSS_S``   seconds of a recording that may be lost when the process is killed
``MEMSCOPE_TRIGGER``      ``signal``: recording is switched on and off by SIGUSR2
``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``, ``LOCAL_WORLD_SIZE``  who this process is, as PyTorch's launchers say it
========================  ==============================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memscope.errors import UsageError
from memscope.trace.schema import TieRule

_CONF_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""PyTorch's newer variable for the allocator's settings, and the older, which wins where both are set."""
SUFFIX = ".memscope"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_RELEASE = re.compile(r"(\d+)\.(\d+)")
_MAX_RANK = 1 << 20
_MAX_LOSS_S = 86_400


@dataclass(frozen=True, slots=True)
class CaptureEnvironment:
    """What the environment says; None is "not set".

    Attributes
    ----------
    ranks
        Half-open ranges of the ranks that record; None is all of them.
    trigger
        ``signal``, or None: recording goes from beginning to end.
    """

    out: Path | None = None
    ranks: tuple[range, ...] | None = None
    max_events: int | None = None
    max_loss_s: float | None = None
    trigger: Literal["signal"] | None = None
    rank: int | None = None
    local_rank: int | None = None
    world_size: int | None = None
    local_world_size: int | None = None

    @property
    def device_index(self) -> int:
        """The number, on its machine, of the device that is the process's own."""
        return self.local_rank or 0

    @property
    def device_count(self) -> int:
        """How many devices its machine has: one for each process there, as far as is known."""
        return max(self.local_world_size or 1, self.device_index + 1)

    @property
    def records_here(self) -> bool:
        """Whether this process is to record; one without a rank is rank 0."""
        rank = self.rank or 0
        return self.ranks is None or any(rank in chosen for chosen in self.ranks)

    def output_path(self, default: str | Path) -> Path:
        """The file to write, with the rank where there are several: ``default`` if nothing was set."""
        path = Path(default) if self.out is None else self.out
        if self.out is not None and self.out.is_dir():
            path = self.out / Path(default).name
        return rank_path(path, self.rank)


def read_environment(environ: Mapping[str, str] | None = None) -> CaptureEnvironment:
    """Read the settings; an empty variable counts as not set.

    Raises
    ------
    UsageError
        If one cannot be used; the message names it.
    """
    values = {name: value.strip() for name, value in (os.environ if environ is None else environ).items()}
    out = values.get("MEMSCOPE_OUT")
    rank, world_size = _number(values, "RANK"), _number(values, "WORLD_SIZE")
    if rank is not None and world_size is not None and rank >= world_size:
        raise UsageError(f"RANK={rank} is not below WORLD_SIZE={world_size}")
    return CaptureEnvironment(
        out=_checked_out(Path(out)) if out else None,
        ranks=_ranks(values.get("MEMSCOPE_RANKS", "")),
        max_events=_number(values, "MEMSCOPE_MAX_EVENTS", least=1),
        max_loss_s=_seconds(values, "MEMSCOPE_MAX_LOSS_S"),
        trigger=_trigger(values.get("MEMSCOPE_TRIGGER", "")),
        rank=rank,
        local_rank=_number(values, "LOCAL_RANK"),
        world_size=world_size,
        local_world_size=_number(values, "LOCAL_WORLD_SIZE"),
    )


def allocator_settings() -> dict[str, str]:
    """PyTorch's variables for its allocator that are set; the last one is in force."""
    return {name: os.environ[name] for name in _CONF_VARIABLES if os.environ.get(name)}


def tie_rule_of(torch_version: str) -> TieRule:
    """Which of equal free blocks a release of PyTorch takes; an unreadable version counts as the newest."""
    match = _RELEASE.match(torch_version)
    if match is None:
        return TieRule.SEGMENT_AGE
    release = int(match.group(1)), int(match.group(2))
    if release < (2, 12):
        return TieRule.ADDRESS
    return TieRule.BLOCK_AGE if release < (2, 13) else TieRule.SEGMENT_AGE


def rank_path(path: str | Path, rank: int | None) -> Path:
    """Put a rank before a file's suffix, ``train-rank3.memscope``; without one, or where it is there, the path."""
    path = Path(path)
    if rank is None or re.search(rf"-rank{rank}(?!\d)", path.stem):
        return path
    return path.with_name(f"{path.stem}-rank{rank}{path.suffix}")


def _checked_out(path: Path) -> Path:
    if not path.is_dir() and not path.parent.is_dir():
        raise UsageError(f"MEMSCOPE_OUT={path}: {path.parent} is not a folder: make it first")
    return path


def _number(values: Mapping[str, str], name: str, least: int = 0) -> int | None:
    text = values.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < least:
        raise UsageError(f"{name}={text} cannot be used: give a whole number, {least} or more")
    return int(text)


def _seconds(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= _MAX_LOSS_S:
        raise UsageError(f"{name}={text} cannot be used: give seconds, from 0.1 to {_MAX_LOSS_S:,}")
    return seconds


def _ranks(text: str) -> tuple[range, ...] | None:
    if not text or text.lower() == "all":
        return None
    chosen = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < _MAX_RANK:
            raise UsageError(f"MEMSCOPE_RANKS={text} cannot be used: give all, or ranks and ranges such as 0,3-5")
        chosen.append(range(first, last + 1))
    return tuple(chosen)


def _trigger(text: str) -> Literal["signal"] | None:
    if not text:
        return None
    if text != "signal":
        raise UsageError(f"MEMSCOPE_TRIGGER={text} is not known: give signal, or leave it unset")
    return "signal"
