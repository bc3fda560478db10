"""Where a replay and a recording part."""

from __future__ import annotations

from dataclasses import dataclass

from memscope.units import format_count


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
