"""Looking for frames in stacks: each distinct file and function is searched once, however many stacks there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from memscope.names import searchable
from memscope.trace.tables import BoolArray, Int32Array
from memscope.trace.trace import Trace


@dataclass(frozen=True)
class FramePattern:
    """A frame by regular expressions on its file (``/`` as separator) and its function; both must be found."""

    file: str = ""
    function: str = ""

    @cached_property
    def _compiled(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return re.compile(self.file), re.compile(self.function)

    def matches(self, filename: str, name: str) -> bool:
        """Whether a frame has both."""
        file, function = self._compiled
        return file.search(filename) is not None and function.search(name) is not None


class StackSearch:
    """Finds patterns in the stacks of one trace.

    A pattern is tried on each distinct file name and each distinct function name, not on each frame: a recording of
    compiled code has a hundred times more frames than files.
    """

    def __init__(self, trace: Trace) -> None:
        self._stacks = trace.stacks
        file_ids, self._file = np.unique(trace.stacks.filename_id, return_inverse=True)
        name_ids, self._name = np.unique(trace.stacks.name_id, return_inverse=True)
        self._files = [searchable(trace.strings[i]).replace("\\", "/") for i in file_ids]
        self._names = [searchable(trace.strings[i]) for i in name_ids]
        self._found: dict[tuple[str, bool], BoolArray] = {}
        self._hits: dict[FramePattern, BoolArray] = {}

    def frames(self, pattern: FramePattern) -> BoolArray:
        """Which frames fit a pattern: bool (frames,)."""
        hit: BoolArray = (
            self._search(pattern.file, True)[self._file] & self._search(pattern.function, False)[self._name]
        )
        return hit

    def stacks(self, pattern: FramePattern) -> BoolArray:
        """Which stacks have a frame that fits a pattern: bool (stacks,)."""
        known = self._hits.get(pattern)
        if known is None:
            known = self._hits[pattern] = any_frame(self.frames(pattern), self._stacks.frame_ids, self._stacks.offsets)
        return known

    def calls(self, callee: FramePattern, caller: FramePattern) -> BoolArray:
        """Which stacks have a frame that fits one pattern and is called, directly, by one that fits another: bool."""
        frame_ids, offsets = self._stacks.frame_ids, self._stacks.offsets
        hit = np.zeros(len(frame_ids), np.bool_)
        hit[:-1] = self.frames(callee)[frame_ids[:-1]] & self.frames(caller)[frame_ids[1:]]
        last = offsets[1:][offsets[1:] > offsets[:-1]] - 1
        hit[last] = False  # what follows the outermost frame of a stack is another stack's
        return _any_within(hit, offsets)

    def _search(self, expression: str, in_files: bool) -> BoolArray:
        """Which of the distinct texts an expression is found in; the empty one is found everywhere."""
        key = expression, in_files
        if key not in self._found:
            find = re.compile(expression).search
            texts = self._files if in_files else self._names
            self._found[key] = np.array([find(text) is not None for text in texts], np.bool_)
        return self._found[key]


def any_frame(frame_hit: BoolArray, frame_ids: Int32Array, offsets: np.ndarray) -> BoolArray:
    """Whether any frame of each stack is hit: bool (frames,) to bool (stacks,)."""
    return _any_within(frame_hit[frame_ids], offsets)


def _any_within(place_hit: BoolArray, offsets: np.ndarray) -> BoolArray:
    """Whether any place between two offsets is hit: bool (places,) to bool (stacks,)."""
    running = np.concatenate([[0], np.cumsum(place_hit)])
    found: BoolArray = running[offsets[1:]] > running[offsets[:-1]]
    return found
