"""Where allocations come from: the user's line of code in a stack, and the module in an owner's name."""

from __future__ import annotations

import re
from functools import cached_property

import numpy as np

from memscope.names import searchable, shown
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array, Int64Array
from memscope.trace.trace import Trace

_LIBRARY = re.compile(
    r"site-packages/|dist-packages/|lib/python3[^/]*/|^<frozen |^<string>|/torch/|^torch/|"
    r"/memscope/(?:capture|emulation)/|\.so(\.\d+)*$|\.(c|o|cpp|cc|h|cu|S)$|^\?\?$|^$|^Unknown",
    re.IGNORECASE,
)
_BELOW_ALL = re.compile(
    r"^(torch::unwind|torch::CapturedTraceback|torch::cuda::|c10::cuda::CUDACachingAllocator|c10::GatheredContext)|"
    r"CUDACachingAllocator::Native|^gather_with_cpp|^(torch::)?unwind"
)
"""Functions that are in every stack with C++ frames: they say how it was taken, not where."""
_PARAMETER_SUFFIX = re.compile(r"(\.(weight|bias|grad)(_[a-z0-9]+)?|\.[a-z_]*_?(cached|buffer|freq|inv_freq))+$")
_NUMBER = re.compile(r"([0-9]+)")
_STATE_PREFIX = re.compile(r"^[\w ]+ of ")


def own_frames(trace: Trace) -> BoolArray:
    """Which frames are the user's own: outside Python's library, installed packages and compiled code; bool (frames,).

    Each distinct file is looked at once.
    """
    file_ids, position = np.unique(trace.stacks.filename_id, return_inverse=True)
    names = (searchable(trace.strings[i]).replace("\\", "/") for i in file_ids.tolist())
    is_own = np.array([_LIBRARY.search(name) is None for name in names], np.bool_)
    found: BoolArray = is_own[position.reshape(-1)]
    return found


def site_frames(trace: Trace) -> Int32Array:
    """The user's own frame of each stack: int32 (stacks,) frame ids, −1 for stacks of no frames.

    That is the innermost frame outside Python's library, installed packages and compiled code; in a stack without one,
    the innermost frame that is not of the recording of stacks or the allocator itself.
    """
    stacks = trace.stacks
    sites = np.full(len(stacks), NONE_ID, np.int32)
    filled = np.diff(stacks.offsets) > 0
    sites[filled] = stacks.frame_ids[stacks.offsets[:-1][filled]]
    for is_wanted in (~_frames_named(trace, _BELOW_ALL), own_frames(trace)):
        wanted = np.flatnonzero(is_wanted[stacks.frame_ids]) if len(stacks.frame_ids) else np.empty(0, np.int64)
        position = np.searchsorted(wanted, stacks.offsets[:-1])
        has_one = _within(wanted, position, stacks.offsets[1:])
        sites[has_one] = stacks.frame_ids[wanted[position[has_one]]]
    return sites


def _frames_named(trace: Trace, names: re.Pattern[str]) -> BoolArray:
    """Which frames are of functions with such names: bool (frames,). Each distinct name is looked at once."""
    name_ids, position = np.unique(trace.stacks.name_id, return_inverse=True)
    hit = np.array([names.search(searchable(trace.strings[i])) is not None for i in name_ids.tolist()], np.bool_)
    found: BoolArray = hit[position.reshape(-1)]
    return found


class Sites:
    """The user's line of code in each stack of a trace; every surface names a line of code by asking here."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    @cached_property
    def frame_of_stack(self) -> Int32Array:
        """The user's own frame of each stack: int32 (stacks,), −1 for none."""
        return site_frames(self._trace)

    def frames_of(self, stack_ids: Int32Array) -> Int64Array:
        """The user's own frame of some stacks, −1 for none: int64, as long as ``stack_ids``."""
        found = np.full(len(stack_ids), NONE_ID, np.int64)
        has_stack = stack_ids != NONE_ID
        found[has_stack] = self.frame_of_stack[stack_ids[has_stack]]
        return found

    def name_of_frame(self, frame_id: int) -> str | None:
        """A line of code as text, None for none."""
        return None if frame_id == NONE_ID else str(self._trace.frame(frame_id))

    def of_stack(self, stack_id: int) -> str | None:
        """The user's line of code in a stack, None where no stack was recorded."""
        return None if stack_id == NONE_ID else self.name_of_frame(int(self.frame_of_stack[stack_id]))

    def of_stacks(self, stack_ids: Int32Array) -> list[str | None]:
        """The user's line of code in each of some stacks; each distinct one is looked up once."""
        distinct, position = np.unique(stack_ids, return_inverse=True)
        texts = [self.of_stack(int(stack_id)) for stack_id in distinct]
        return [texts[i] for i in position.reshape(-1)]


def _within(own: np.ndarray, position: np.ndarray, end: np.ndarray) -> BoolArray:
    inside: BoolArray = position < len(own)
    inside[inside] = own[position[inside]] < end[inside]
    return inside


def module_of_owner(owner: str) -> str:
    """The module path in an owner's name: ``exp_avg of model.layers.3.mlp.up_proj.weight`` gives its up_proj.

    No module's path is longer than what is shown of a name: of one that is, the middle is left out.
    """
    owner = shown(owner)
    return _PARAMETER_SUFFIX.sub("", _STATE_PREFIX.sub("", owner)) or owner


def kind_of_module(module: str) -> str:
    """A module's path without the numbers of its layers, experts and blocks.

    >>> kind_of_module("model.layers.3.mlp.experts.12.up_proj")
    'model.layers.*.mlp.experts.*.up_proj'
    """
    return ".".join("*" if part.isdecimal() else part for part in module.split("."))


def natural_order(text: str) -> tuple[str | tuple[int, str], ...]:
    """A key that sorts names as people count, ``layers.2`` before ``layers.10``, whatever the case of letters."""
    parts = _NUMBER.split(text.lower())
    # Digits are compared by how many they are, then one by one: a name may have more of them than any number.
    return tuple((len(part.lstrip("0")), part.lstrip("0")) if i % 2 else part for i, part in enumerate(parts))
