"""Which allocations lie below a node of the call tree or of the module tree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.attribution.frames import any_frame
from memscope.attribution.sites import module_of_owner
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array
from memscope.trace.trace import Trace


def rows_below_call(
    trace: Trace, stack_id: Int32Array, path: Sequence[int], frames: BoolArray | None = None
) -> BoolArray:
    """Which allocations were made by a call, or by what it called.

    Parameters
    ----------
    stack_id
        int32 (rows,): the stack of each allocation.
    path
        Frame ids from the outermost call in, as in :class:`~memscope.attribution.call_tree.CallTree`; ``[−1]`` is the
        node of the allocations without a stack, and an empty path the root.
    frames
        bool (frames,): the frames that the tree was built of; all by default.

    Returns
    -------
    BoolArray
        bool (rows,).
    """
    if not path:
        return np.ones(len(stack_id), np.bool_)
    if list(path) == [NONE_ID]:
        no_stack: BoolArray = stack_id == NONE_ID
        return no_stack
    found: BoolArray = _stacks_below(trace, path, frames)[stack_id] & (stack_id != NONE_ID)
    return found


def _stacks_below(trace: Trace, path: Sequence[int], frames: BoolArray | None) -> BoolArray:
    """Stacks that begin with a path, seen from the outside: bool (stacks,). Only those with its last frame are read."""
    stacks = trace.stacks
    wanted = np.array(path, np.int64)
    last = np.zeros(stacks.n_frames, np.bool_)
    last[wanted[-1]] = True
    below = any_frame(last, stacks.frame_ids, stacks.offsets)
    for stack in np.flatnonzero(below).tolist():
        calls = stacks.frames_of(stack)[::-1]
        calls = calls if frames is None else calls[frames[calls]]
        below[stack] = np.array_equal(calls[: len(wanted)], wanted)
    return below


def rows_below_module(trace: Trace, owner_id: Int32Array, path: str) -> BoolArray:
    """Which allocations belong to a module, or to one inside it: bool (rows,). An empty path is the program.

    Parameters
    ----------
    owner_id
        int32 (rows,): the owner's name of each allocation in the trace's strings, −1 for none.
    """
    distinct, position = np.unique(owner_id, return_inverse=True)
    inside = [_is_inside(trace.string(i), path) for i in distinct.tolist()]
    found: BoolArray = np.array(inside, np.bool_)[position.reshape(-1)]
    return found


def _is_inside(owner: str | None, path: str) -> bool:
    if not path or owner is None:
        return not path
    module = module_of_owner(owner)
    return module == path or module.startswith(f"{path}.")
