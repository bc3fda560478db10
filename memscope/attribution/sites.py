"""Where allocations come from: the user's line of code in a stack, and the module in an owner's name."""

from __future__ import annotations

import re

import numpy as np

from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array
from memscope.trace.trace import Trace

_LIBRARY = re.compile(
    r"site-packages/|dist-packages/|lib/python3[^/]*/|^<frozen |^<string>|/torch/|^torch/|"
    r"\.so(\.\d+)*$|\.(c|o|cpp|cc|h|cu|S)$|^\?\?$|^$|^Unknown",
    re.IGNORECASE,
)
_PARAMETER_SUFFIX = re.compile(r"(\.(weight|bias|grad)(_[a-z0-9]+)?|\.[a-z_]*_?(cached|buffer|freq|inv_freq))+$")
_STATE_PREFIX = re.compile(r"^[\w ]+ of ")


def own_frames(trace: Trace) -> BoolArray:
    """Which frames are the user's own: outside Python's library, installed packages and compiled code; bool (frames,).

    Each distinct file is looked at once.
    """
    file_ids, position = np.unique(trace.stacks.filename_id, return_inverse=True)
    names = (trace.strings[i].replace("\\", "/") for i in file_ids.tolist())
    is_own = np.array([_LIBRARY.search(name) is None for name in names], np.bool_)
    found: BoolArray = is_own[position.reshape(-1)]
    return found


def site_frames(trace: Trace) -> Int32Array:
    """The user's own frame of each stack: int32 (stacks,) frame ids, −1 for stacks of no frames.

    That is the innermost frame outside Python's library, installed packages and compiled code; in a stack without one,
    the innermost frame.
    """
    stacks = trace.stacks
    is_own = own_frames(trace)
    sites = np.full(len(stacks), NONE_ID, np.int32)
    lengths = np.diff(stacks.offsets)
    filled = lengths > 0
    sites[filled] = stacks.frame_ids[stacks.offsets[:-1][filled]]
    own = np.flatnonzero(is_own[stacks.frame_ids]) if len(stacks.frame_ids) else np.empty(0, np.int64)
    position = np.searchsorted(own, stacks.offsets[:-1])
    has_own = _within(own, position, stacks.offsets[1:])
    sites[has_own] = stacks.frame_ids[own[position[has_own]]]
    return sites


def _within(own: np.ndarray, position: np.ndarray, end: np.ndarray) -> BoolArray:
    inside: BoolArray = position < len(own)
    inside[inside] = own[position[inside]] < end[inside]
    return inside


def module_of_owner(owner: str) -> str:
    """The module path in an owner's name: ``exp_avg of model.layers.3.mlp.up_proj.weight`` gives its up_proj."""
    return _PARAMETER_SUFFIX.sub("", _STATE_PREFIX.sub("", owner)) or owner
