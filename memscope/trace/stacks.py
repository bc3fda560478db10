"""Interning of strings, frames and stacks to dense ids while a trace is being made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.trace.schema import NONE_ID
from memscope.trace.tables import StackTable


class StringTable:
    """Texts by dense id; the same text always has the same id."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def intern(self, text: str) -> int:
        """Id of the text, new if it was not seen before."""
        return self._ids.setdefault(text, len(self._ids))

    def intern_optional(self, text: str | None) -> int:
        """Id of the text, ``NONE_ID`` for None."""
        return NONE_ID if text is None else self.intern(text)

    def strings(self) -> tuple[str, ...]:
        """All texts, by id."""
        return tuple(self._ids)


class StackInterner:
    """Stacks by dense id, made of frames by dense id.

    Frames are keyed by (name, file, line), stacks by their tuple of frame ids, so that a million events share the few
    thousand stacks they really have.
    """

    def __init__(self, strings: StringTable) -> None:
        self._strings = strings
        self._frames: dict[tuple[int, int, int], int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}

    def frame(self, name: str, filename: str, line: int) -> int:
        """Id of a frame."""
        key = (self._strings.intern(name), self._strings.intern(filename), line)
        return self._frames.setdefault(key, len(self._frames))

    def stack(self, frame_ids: Sequence[int]) -> int:
        """Id of a stack of frame ids, innermost first; ``NONE_ID`` for an empty one."""
        if not frame_ids:
            return NONE_ID
        return self._stacks.setdefault(tuple(frame_ids), len(self._stacks))

    def table(self) -> StackTable:
        """The stacks as columns."""
        lengths = np.fromiter((len(stack) for stack in self._stacks), np.int64, len(self._stacks))
        offsets = np.zeros(len(self._stacks) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        frame_ids = np.fromiter((f for stack in self._stacks for f in stack), np.int32, int(offsets[-1]))
        frames = np.array(list(self._frames), np.int32).reshape(-1, 3)
        return StackTable(
            offsets=offsets, frame_ids=frame_ids, name_id=frames[:, 0], filename_id=frames[:, 1], line=frames[:, 2]
        )
