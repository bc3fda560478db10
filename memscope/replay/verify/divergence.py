"""Where a replay and a recording part."""

from __future__ import annotations

from dataclasses import dataclass

from memscope._kernels import caching_pinned as kernel
from memscope.units import format_count

OUT_OF_MEMORY_FITS = -1
"""Beside the kernel's reasons: the recording ran out of memory although a block is free."""

REASONS = {
    kernel.FITS_NOWHERE: "the recording took a free block, the rules find none that fits",
    kernel.FITS_ALREADY: "the recording asked the driver for memory, the rules find a free block that fits",
    kernel.SEGMENT_SIZE_DIFFERS: "the segment has another size than the rules give it",
    kernel.NOT_IN_USE: "what is freed is not in use",
    kernel.SIZE_DIFFERS: "the free names another size than the allocation",
    kernel.ACTIVE_BYTES_DIFFER: "the recorded active bytes are not those of the blocks in use",
    kernel.FITS_ELSEWHERE: "the rules take another free block",
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
