"""Two trees as one: the calls, or the modules, behind two moments, each node with the bytes of both.

A call is the same at both moments if what called it is and its function, file and line agree. Of the calls left over
those of the same function and file are matched in the order of their lines, as an edit has moved them, and then those
of the same function: a file was renamed. Files are told by the ends of their paths, modules by their names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope.attribution.call_tree import ROOT, CallTree, ModuleTree, call_tree, module_tree, sum_below
from memscope.attribution.sites import own_frames
from memscope.compare._holdings import path_end
from memscope.device.device import Moment
from memscope.errors import InvariantError
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, frozen_array

REST = -2
"""Frame of the root's child that holds what no call or module below it does."""


@dataclass(frozen=True, slots=True)
class DifferenceTree:
    """What two moments hold by calls or modules, in block bytes: the root is exactly what is allocated.

    Attributes
    ----------
    is_by_module, own_only
        What it is made of, and whether the frames of libraries were passed over.
    parent
        int64 (nodes,): −1 for the root; parents come before their children.
    frame_a, frame_b
        int64 (nodes,): the frame in each moment's trace; −1 for the root, for modules, for what has no stack, and where
        a moment has no such node; −2 for what no node below the root has.
    names
        The last part of each module's path; empty for calls.
    a_bytes, b_bytes, n_a, n_b
        int64 (nodes,): block bytes and allocations below and here at both moments.
    """

    is_by_module: bool
    own_only: bool
    parent: Int64Array
    frame_a: Int64Array
    frame_b: Int64Array
    names: tuple[str, ...]
    a_bytes: Int64Array
    b_bytes: Int64Array
    n_a: Int64Array
    n_b: Int64Array
    width_bytes: Int64Array
    """int64 (nodes,): the second moment's bytes, and the first one's of what is gone below and here."""
    order: Int64Array
    """int64 (nodes,): nodes by parent, what is there still before what is gone, the largest first."""
    parent_in_order: Int64Array

    def __len__(self) -> int:
        return len(self.parent)

    def children(self, node: int) -> Int64Array:
        """The nodes right below a node, largest first, what is gone last."""
        begin, end = np.searchsorted(self.parent_in_order, [node, node + 1])
        return self.order[begin:end]

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root's child down to a node; none for the root."""
        found: list[int] = []
        while node > ROOT:
            found.append(node)
            node = int(self.parent[node])
        return tuple(found[::-1])

    def is_gone(self, node: int) -> bool:
        """Whether only the first moment has it."""
        return not self.n_b[node] and bool(self.n_a[node])

    def is_new(self, node: int) -> bool:
        """Whether only the second moment has it."""
        return not self.n_a[node] and bool(self.n_b[node])


def difference_tree(a: Moment, b: Moment, *, is_by_module: bool, own_only: bool = True) -> DifferenceTree:
    """Match what two moments hold, node by node. O(n log n) in the allocations in use and in the nodes.

    Parameters
    ----------
    own_only
        Whether to pass over the frames of libraries; without meaning for modules.

    Raises
    ------
    InvariantError
        If a root is not what its moment has allocated.
    """
    sides = tuple(_Side(moment, is_by_module=is_by_module, own_only=own_only) for moment in (a, b))
    pairs = _paired(*sides)
    nodes = np.array([(one, two) for one, two, _ in pairs], np.int64)
    parent = np.array([above for *_, above in pairs], np.int64)
    sums = [_taken(side.n_bytes, nodes[:, place]) for place, side in enumerate(sides)]
    counts = [_taken(side.count, nodes[:, place]) for place, side in enumerate(sides)]
    frames = [_taken(side.frames, nodes[:, place], NONE_ID) for place, side in enumerate(sides)]
    for moment, total in zip((a, b), sums, strict=True):
        if int(total[ROOT]) != moment.allocated_bytes:
            raise InvariantError(f"a tree holds {total[ROOT]:,} bytes, its moment {moment.allocated_bytes:,}")
    is_gone = counts[1] == 0
    is_first_gone = is_gone & ~np.where(parent == NONE_ID, False, is_gone[parent])
    gone = sum_below(parent, np.where(is_first_gone, sums[0], 0))
    width = np.where(is_gone, sums[0], sums[1] + gone)
    order = np.lexsort((np.arange(len(parent)), -width, is_gone, parent))
    names = tuple(sides[1].names[two] if two != NONE_ID else sides[0].names[one] for one, two, _ in pairs)
    return DifferenceTree(
        is_by_module,
        own_only,
        frozen_array(parent, np.int64),
        frozen_array(frames[0], np.int64),
        frozen_array(frames[1], np.int64),
        names if is_by_module else (),
        *(frozen_array(column, np.int64) for column in (*sums, *counts, width, order, parent[order])),
    )


def _taken(values: Int64Array, nodes: Int64Array, otherwise: int = 0) -> Int64Array:
    """The values of some nodes; of those that are not there another."""
    return np.where(nodes == NONE_ID, otherwise, values[nodes])


class _Told(NamedTuple):
    """What a node is matched by: first with its line, then without, then without its file; and its line."""

    keys: tuple[Hashable, Hashable, Hashable]
    line: int


class _Side:
    """One moment's tree, with a child of the root for what the root itself holds."""

    def __init__(self, moment: Moment, *, is_by_module: bool, own_only: bool) -> None:
        device = moment.device
        rows, table, trace = moment.in_use_rows, device.allocations, device.trace
        tree: CallTree | ModuleTree
        if is_by_module:
            tree = module_tree(trace, table, device.attribution, rows)
            frames, self.names = np.full(len(tree), NONE_ID, np.int64), (*tree.name, "")
        else:
            tree = call_tree(trace, table, rows, own_frames(trace) if own_only else None)
            frames, self.names = tree.frame_id.astype(np.int64), ("",) * (len(tree) + 1)
        at = np.where(tree.node_of_row == ROOT, len(tree), tree.node_of_row)
        own = np.zeros(len(tree) + 1, np.int64)
        np.add.at(own, at, table.block_bytes[rows])
        parent = np.append(tree.parent, ROOT)
        self.n_bytes = sum_below(parent, own)
        self.count = sum_below(parent, np.bincount(at, minlength=len(parent)).astype(np.int64))
        self.frames = np.append(frames, REST)
        self.is_by_module = is_by_module
        self.trace = trace
        self.below: dict[int, list[int]] = defaultdict(list)
        for node, above in enumerate(parent.tolist()):
            if above != NONE_ID and self.count[node]:
                self.below[above].append(node)

    def told(self, node: int) -> _Told:
        """What a node is matched by."""
        frame_id = int(self.frames[node])
        if frame_id < 0:
            return _Told(((frame_id, self.names[node]),) * 3, 0)
        frame = self.trace.frame(frame_id)
        call = (frame.name, path_end(frame.filename))
        return _Told(((*call, frame.line), call, frame.name), frame.line)


def _paired(a: _Side, b: _Side) -> list[tuple[int, int, int]]:
    """The nodes of both sides, matched: a node of each, −1 for none, and where their parent is in this list."""
    pairs = [(ROOT, ROOT, NONE_ID)]
    at = 0
    while at < len(pairs):
        one, two, _ = pairs[at]
        left_a, left_b = ([] if node == NONE_ID else side.below[node] for side, node in ((a, one), (b, two)))
        for way in range(3):
            found, left_a, left_b = _matched(left_a, left_b, way, a, b)
            pairs += [(*pair, at) for pair in found]
        pairs += [(node, NONE_ID, at) for node in left_a]
        pairs += [(NONE_ID, node, at) for node in left_b]
        at += 1
    return pairs


def _matched(
    of_a: Sequence[int], of_b: Sequence[int], way: int, a: _Side, b: _Side
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Siblings of the same key in the order of their lines, and what is left of either side."""
    if not of_a or not of_b:
        return [], list(of_a), list(of_b)
    by_key: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for node in of_a:
        told = a.told(node)
        by_key[told.keys[way]].append((told.line, node))
    for nodes in by_key.values():
        nodes.sort(reverse=True)
    pairs, left_b = [], []
    for node in sorted(of_b, key=lambda node: (b.told(node).line, node)):
        same = by_key.get(b.told(node).keys[way])
        if same:
            pairs.append((same.pop()[1], node))
        else:
            left_b.append(node)
    return pairs, sorted(node for nodes in by_key.values() for _, node in nodes), left_b
