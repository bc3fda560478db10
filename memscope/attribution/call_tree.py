"""Trees of weighted nodes: the calls that hold memory at a moment, and the modules that own it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.attribution.sites import module_of_owner, natural_order
from memscope.lifetimes.tables import AllocationTable
from memscope.trace.frames import any_frame
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array, Int64Array, frozen_array
from memscope.trace.trace import Trace

ROOT = 0
"""The first node of every tree."""


@dataclass(frozen=True, slots=True)
class CallTree:
    """Calls as a tree: each node is a frame, called by its parent; parents come before their children.

    Attributes
    ----------
    parent
        int64 (nodes,): the calling node; −1 for the root.
    frame_id
        int32 (nodes,): the frame in the trace's stacks; −1 for the root, and for its child of the allocations without a
        stack.
    bytes, own_bytes
        int64 (nodes,): requested bytes of everything below and here, and of the allocations that were made right here.
    count, own_count
        int64 (nodes,): the same in allocations.
    node_of_row
        int64 (rows,): the node that each of the given allocations was made at.
    """

    parent: Int64Array
    frame_id: Int32Array
    bytes: Int64Array
    own_bytes: Int64Array
    count: Int64Array
    own_count: Int64Array
    node_of_row: Int64Array

    def __post_init__(self) -> None:
        for name in ("parent", "bytes", "own_bytes", "count", "own_count", "node_of_row"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))
        object.__setattr__(self, "frame_id", frozen_array(self.frame_id, np.int32))

    def __len__(self) -> int:
        return len(self.parent)


@dataclass(frozen=True, slots=True)
class ModuleTree:
    """Modules as a tree by their paths; the root is the program.

    Attributes
    ----------
    parent
        int64 (nodes,): −1 for the root; parents come before their children.
    name
        The last part of each path (``self_attn``), empty for the root.
    path
        The whole path (``model.layers.3.self_attn``).
    bytes, own_bytes, count, own_count, node_of_row
        As in :class:`CallTree`.
    """

    parent: Int64Array
    name: tuple[str, ...]
    path: tuple[str, ...]
    bytes: Int64Array
    own_bytes: Int64Array
    count: Int64Array
    own_count: Int64Array
    node_of_row: Int64Array

    def __post_init__(self) -> None:
        for name in ("parent", "bytes", "own_bytes", "count", "own_count", "node_of_row"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))

    def __len__(self) -> int:
        return len(self.parent)


def call_tree(trace: Trace, table: AllocationTable, rows: Int64Array, frames: BoolArray | None = None) -> CallTree:
    """Build the tree of calls behind some allocations.

    Parameters
    ----------
    rows
        int64: rows of the table, such as those live at a moment.
    frames
        bool (frames,): frames to keep; the others are passed over. All by default.

    Notes
    -----
    Level by level from the outermost call, each level with one sort of the stacks that reach it.
    """
    stack_ids, position = np.unique(table.stack_id[rows].astype(np.int64), return_inverse=True)
    stack_bytes = np.zeros(len(stack_ids), np.int64)
    np.add.at(stack_bytes, position, table.requested_bytes[rows])
    stack_count = np.bincount(position, minlength=len(stack_ids)).astype(np.int64)
    calls, lengths = _calls(trace, stack_ids, frames)
    parents, frame_ids = [np.array([NONE_ID], np.int64)], [np.array([NONE_ID], np.int64)]
    node = np.full(len(stack_ids), ROOT, np.int64)
    n_nodes, depth = 1, 0
    n_keys = trace.stacks.n_frames + 1
    while True:
        deeper = np.flatnonzero(lengths > depth)
        if not len(deeper):
            break
        pairs = node[deeper] * n_keys + calls[deeper, depth] + 1
        distinct, which = np.unique(pairs, return_inverse=True)
        parents.append(distinct // n_keys)
        frame_ids.append(distinct % n_keys - 1)
        node[deeper] = n_nodes + which.reshape(-1)
        n_nodes += len(distinct)
        depth += 1
    parent = np.concatenate(parents)
    own_bytes, own_count = np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.int64)
    np.add.at(own_bytes, node, stack_bytes)
    np.add.at(own_count, node, stack_count)
    frame_id = np.concatenate(frame_ids).astype(np.int32)
    return CallTree(
        parent,
        frame_id,
        sum_below(parent, own_bytes),
        own_bytes,
        sum_below(parent, own_count),
        own_count,
        node[position.reshape(-1)],
    )


def _calls(trace: Trace, stack_ids: Int64Array, frames: BoolArray | None) -> tuple[Int64Array, Int64Array]:
    """The frames of some stacks from the outermost in, padded: int64 (stacks, deepest), and int64 (stacks,) lengths.

    No stack is one call of no frame.
    """
    found = []
    for stack_id in stack_ids.tolist():
        frame_ids = trace.stacks.frames_of(stack_id)[::-1] if stack_id != NONE_ID else np.array([NONE_ID])
        if frames is not None and stack_id != NONE_ID:
            frame_ids = frame_ids[frames[frame_ids]]
        found.append(frame_ids)
    lengths = np.array([len(f) for f in found], np.int64)
    calls = np.full((len(found), int(lengths.max(initial=0))), NONE_ID, np.int64)
    for i, frame_ids in enumerate(found):
        calls[i, : len(frame_ids)] = frame_ids
    return calls, lengths


def module_tree(trace: Trace, table: AllocationTable, attribution: Attribution, rows: Int64Array) -> ModuleTree:
    """Build the tree of modules that own some allocations; those without an owner are the root's own."""
    owner_ids, position = np.unique(attribution.owner_id[rows], return_inverse=True)
    sizes = np.zeros(len(owner_ids), np.int64)
    np.add.at(sizes, position, table.requested_bytes[rows])
    counts = np.bincount(position, minlength=len(owner_ids))
    paths = ["" if i == NONE_ID else module_of_owner(trace.strings[i]) for i in owner_ids.tolist()]
    nodes = {"": ROOT}
    parent: list[int] = [NONE_ID]
    for path in sorted(set(paths), key=lambda path: (natural_order(path), path)):
        _add_path(path, nodes, parent)
    own_bytes, own_count = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
    at = np.array([nodes[path] for path in paths], np.int64)
    np.add.at(own_bytes, at, sizes)
    np.add.at(own_count, at, counts)
    parents = np.array(parent, np.int64)
    all_paths = tuple(nodes)
    return ModuleTree(
        parents,
        tuple(_last_part(path) for path in all_paths),
        all_paths,
        sum_below(parents, own_bytes),
        own_bytes,
        sum_below(parents, own_count),
        own_count,
        at[position.reshape(-1)],
    )


def _parts(path: str) -> Sequence[str]:
    """The parts of a module path; a name that is none (``copied to the device``) is one part."""
    return path.split(".") if path and " " not in path else [path]


def _last_part(path: str) -> str:
    return _parts(path)[-1]


def _add_path(path: str, nodes: dict[str, int], parent: list[int]) -> None:
    """Add a path and what lies above it."""
    if path in nodes:
        return
    above = ".".join(_parts(path)[:-1])
    _add_path(above, nodes, parent)
    nodes[path] = len(nodes)
    parent.append(nodes[above])


def sum_below(parent: Int64Array, own: Int64Array) -> Int64Array:
    """Each node's own and everything below it, of one quantity or several.

    Parameters
    ----------
    parent
        int64 (nodes,): parents come before their children.
    own
        int64 (nodes,) or (nodes, quantities).
    """
    total = own.copy()
    depth = depths(parent)
    order = np.argsort(depth, kind="stable")
    ends = np.cumsum(np.bincount(depth))
    for level in range(len(ends) - 1, 0, -1):
        nodes = order[ends[level - 1] : ends[level]]
        np.add.at(total, parent[nodes], total[nodes])
    return total


def depths(parent: Int64Array) -> Int64Array:
    """How many nodes lie above each: int64 (nodes,), 0 for the root."""
    found: list[int] = []
    for above in parent.tolist():
        found.append(0 if above == NONE_ID else found[above] + 1)
    return np.array(found, np.int64)


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
