"""Where a replay and a recording part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from memscope._core import caching
from memscope.units import format_count

_Why = caching.FollowStatus
Status: TypeAlias = _Why | Literal[-1]

OUT_OF_MEMORY_FITS: Literal[-1] = -1
"""Beside the reasons for which following stops: the recording ran out of memory although a block is free."""

REASONS: dict[Status, str] = {
    _Why.FITS_NOWHERE: "the recording took a free block, the rules find none that fits",
    _Why.FITS_ALREADY: "the recording asked the driver for memory, the rules find a free block that fits",
    _Why.SEGMENT_SIZE_DIFFERS: "the segment has another size than the rules give it",
    _Why.NOT_IN_USE: "what is freed is not in use",
    _Why.SIZE_DIFFERS: "the free names another size than the allocation",
    _Why.ACTIVE_BYTES_DIFFER: "the recorded active bytes are not those of the blocks in use",
    _Why.FITS_ELSEWHERE: "the rules take another free block",
    OUT_OF_MEMORY_FITS: "the recording ran out of memory, the rules find a free block that fits",
}


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first event at which the rules and the recording part: what is recorded, and what the rules give instead."""

    event: int
    expected: str
    got: str
    reason: str

    def __str__(self) -> str:
        where = f"event {format_count(self.event)}" if self.event >= 0 else "final state"
        return f"{where}: {self.reason}; recorded {self.expected}, replayed {self.got}"


class DivergedError(Exception):
    """Raised while following a recording; becomes a :class:`Divergence` before it leaves the replay."""

    def __init__(self, position: int, got: str, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.got = got
        self.reason = reason
