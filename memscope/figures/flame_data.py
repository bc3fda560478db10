"""The tree of calls or of modules at a moment as the boxes of a flame graph, no byte lost, and what they are called."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from memscope.attribution.call_tree import ROOT, CallTree, ModuleTree, call_tree, module_tree, sum_below
from memscope.attribution.sites import own_frames
from memscope.device.device import Moment
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, frozen_array
from memscope.trace.trace import Trace
from memscope.units import format_bytes, format_fraction
from memscope.words.headlines import where
from memscope.words.labels import row_label

MERGED_FRAC = 0.003
"""Share of what is shown below which neighbours are merged into one box."""
MAX_LEVELS = 24
"""Levels drawn at once; the deeper ones come when a box is clicked."""
MAX_BOXES = 1_500

NO_STACK = "no stack recorded"
NO_OWNER = "no owner recorded"
LIBRARY_ONLY = "in library code only"

Key = int | str


class FlameKind(Enum):
    """What the tree is made of."""

    CALLS = "calls"
    MODULES = "modules"


@dataclass(frozen=True, slots=True)
class FlameTree:
    """All nodes behind a flame graph, with their block bytes.

    Attributes
    ----------
    kind, own_only
        What it is made of, and whether only the user's own frames are kept.
    parent
        int64 (nodes,): −1 for the root; parents come before their children.
    keys
        What tells a node from its siblings: a frame id, or a module's name. The root's is −1 or empty.
    by_category
        int64 (nodes, categories): block bytes of everything below and here.
    bytes, own_bytes
        int64 (nodes,): the same of all categories, and of what was made right here.
    count
        int64 (nodes,): allocations below and here.
    """

    kind: FlameKind
    own_only: bool
    parent: Int64Array
    keys: tuple[Key, ...]
    by_category: Int64Array
    bytes: Int64Array
    own_bytes: Int64Array
    count: Int64Array
    order: Int64Array
    """int64 (nodes,): nodes by parent, the largest child first."""
    parent_in_order: Int64Array
    """int64 (nodes,): their parents, ascending."""

    def children(self, node: int) -> Int64Array:
        """The nodes right below a node, largest first."""
        begin, end = np.searchsorted(self.parent_in_order, [node, node + 1])
        return self.order[begin:end]

    def find(self, path: Sequence[Key]) -> int | None:
        """The node at the end of a path of keys; None where nothing is live there."""
        node = ROOT
        for key in path:
            found = next((child for child in self.children(node).tolist() if self.keys[child] == key), None)
            if found is None:
                return None
            node = found
        return node


@dataclass(frozen=True, slots=True)
class FlameBoxes:
    """What is drawn: a node and what lies below it, small neighbours merged.

    Attributes
    ----------
    parent
        int64 (boxes,): a box, −1 for the first.
    node
        int64 (boxes,): the node of the tree; −1 for merged ones and for what was made in the first box itself.
    bytes
        int64 (boxes,): a box's children never hold more than it does.
    n_merged
        int64 (boxes,): how many siblings a box stands for; 0 for one that is a node.
    by_category
        int64 (boxes, categories).
    n_levels
        How deep it is.
    is_cut
        Whether there are deeper levels that are not drawn.
    """

    parent: Int64Array
    node: Int64Array
    bytes: Int64Array
    n_merged: Int64Array
    by_category: Int64Array
    n_levels: int
    is_cut: bool

    def __len__(self) -> int:
        return len(self.parent)


def flame_tree(
    moment: Moment, kind: FlameKind, *, own_only: bool = False, categories: Collection[Category] = ()
) -> FlameTree:
    """Build the tree of everything allocated at a moment; its root is exactly the allocated bytes.

    Parameters
    ----------
    own_only
        Whether to pass over the frames of libraries.
    categories
        Those to keep; all if there are none.
    """
    device, table, attribution = moment.device, moment.device.allocations, moment.device.attribution
    rows = moment.in_use_rows
    if categories:
        rows = rows[np.isin(attribution.category[rows], list(categories))]
    tree: CallTree | ModuleTree
    keys: tuple[Key, ...]
    if kind is FlameKind.CALLS:
        frames = own_frames(device.trace) if own_only else None
        tree = call_tree(device.trace, table, rows, frames)
        keys = tuple(tree.frame_id.tolist())
    else:
        tree = module_tree(device.trace, table, attribution, rows)
        keys = tree.name
    n_nodes = len(tree)
    own = np.zeros((n_nodes, len(Category)), np.int64)
    np.add.at(own, (tree.node_of_row, attribution.category[rows]), table.block_bytes[rows])
    by_category = sum_below(tree.parent, own)
    n_bytes = by_category.sum(axis=1)
    order = np.lexsort((np.arange(n_nodes), -n_bytes, tree.parent))
    return FlameTree(
        kind=kind,
        own_only=own_only,
        parent=tree.parent,
        keys=keys,
        by_category=by_category,
        bytes=n_bytes,
        own_bytes=own.sum(axis=1),
        count=tree.count,
        order=order,
        parent_in_order=tree.parent[order],
    )


def flame_boxes(tree: FlameTree, focus: int = ROOT, max_boxes: int = MAX_BOXES) -> FlameBoxes:
    """Lay out a node and what is below it; what is smaller is merged until few enough boxes are left."""
    share = MERGED_FRAC
    while True:
        boxes = _boxes(tree, focus, share * int(tree.bytes[focus]))
        if len(boxes) <= max_boxes or share >= 1:
            return boxes
        share *= 2


def _boxes(tree: FlameTree, focus: int, least_bytes: float) -> FlameBoxes:
    parent, node, n_merged = [NONE_ID], [focus], [0]
    sizes, by_category, level = [int(tree.bytes[focus])], [tree.by_category[focus]], [0]
    is_cut = False

    def add(above: int, at: int, n: int, categories: Int64Array) -> None:
        parent.append(above)
        node.append(at)
        n_merged.append(n)
        sizes.append(int(categories.sum()))
        by_category.append(categories)
        level.append(level[above] + 1)

    box = 0
    while box < len(parent):
        children = tree.children(node[box]) if node[box] != NONE_ID else np.empty(0, np.int64)
        if len(children) and level[box] + 1 >= MAX_LEVELS:
            is_cut = True
        elif len(children):
            n_large = int(np.count_nonzero(tree.bytes[children] >= max(least_bytes, 1)))
            for child in children[:n_large].tolist():
                add(box, child, 0, tree.by_category[child])
            small = children[n_large:]
            if len(small):
                add(box, NONE_ID, len(small), tree.by_category[small].sum(axis=0))
            own = tree.by_category[node[box]] - tree.by_category[children].sum(axis=0)
            if node[box] == ROOT and own.any():
                add(box, NONE_ID, 0, own)
        box += 1
    return FlameBoxes(
        parent=frozen_array(parent, np.int64),
        node=frozen_array(node, np.int64),
        bytes=frozen_array(sizes, np.int64),
        n_merged=frozen_array(n_merged, np.int64),
        by_category=np.array(by_category, np.int64),
        n_levels=max(level) + 1,
        is_cut=is_cut,
    )


def majority(by_category: Int64Array) -> Category | None:
    """The category that holds more than half of some bytes, None where none does: int64 (categories,)."""
    largest = int(np.argmax(by_category))
    return Category(largest) if 2 * int(by_category[largest]) > int(by_category.sum()) else None


def frame_label(trace: Trace, frame_id: int) -> str:
    """``forward (model.py:12)``; the file without its folders."""
    if frame_id == NONE_ID:
        return NO_STACK
    frame = trace.frame(frame_id)
    file = frame.filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{frame.name} ({file}:{frame.line})" if file and frame.line > 0 else f"{frame.name} ({file})"


def key_label(trace: Trace, kind: FlameKind, key: Key) -> str:
    """A node's name among its siblings."""
    return frame_label(trace, int(key)) if kind is FlameKind.CALLS else str(key)


def path_label(trace: Trace, kind: FlameKind, path: Sequence[Key]) -> str:
    """What a path of keys is called: its last call, or the whole module path; empty for the root."""
    if not path:
        return ""
    return frame_label(trace, int(path[-1])) if kind is FlameKind.CALLS else ".".join(map(str, path))


def rest_label(kind: FlameKind) -> str:
    """What the root's own bytes are: those that no node below it has."""
    return LIBRARY_ONLY if kind is FlameKind.CALLS else NO_OWNER


def flame_finding(moment: Moment, tree: FlameTree, categories: Collection[Category] = ()) -> str:
    """``61 % of 14.2 GiB comes from train.py:42 (forward)``: the line of code, or the module, that holds most."""
    total = int(tree.bytes[ROOT])
    of = _of(categories)
    if not total:
        return f"Nothing{of} is allocated at {where(moment)}"
    whole = f"{format_bytes(total)}{of} at {where(moment)}"
    if tree.kind is FlameKind.MODULES:
        path, n_bytes = _deepest_majority(tree)
        if not path:
            return f"{whole}: the modules that own it were not recorded"
        return f"{format_fraction(n_bytes / total)} of {whole} belongs to {'.'.join(map(str, path))}"
    frame_id, n_bytes = _largest_site(moment, categories)
    if frame_id == NONE_ID:
        if not _has_stacks(tree):
            return f"{whole}: no call stacks were recorded"
        return f"{format_fraction(n_bytes / total)} of {whole} has no recorded stack"
    frame = moment.device.trace.frame(frame_id)
    file = frame.filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{format_fraction(n_bytes / total)} of {whole} comes from {file}:{frame.line} ({frame.name})"


def _of(categories: Collection[Category]) -> str:
    names = [row_label(category.label) for category in sorted(categories)]
    if not names:
        return ""
    return f" of {names[0]}" if len(names) == 1 else f" of {', '.join(names[:-1])} and {names[-1]}"


def _has_stacks(tree: FlameTree) -> bool:
    return any(key != NONE_ID for key in tree.keys)


def _largest_site(moment: Moment, categories: Collection[Category]) -> tuple[int, int]:
    """The user's line of code that holds most block bytes, and how many; −1 for what has no stack."""
    table = moment.device.allocations
    rows = moment.in_use_rows
    if categories:
        rows = rows[np.isin(moment.device.attribution.category[rows], list(categories))]
    frame_ids, position = np.unique(moment.device.site_frames_of(rows), return_inverse=True)
    sums = np.zeros(len(frame_ids), np.int64)
    np.add.at(sums, position.reshape(-1), table.block_bytes[rows])
    largest = int(np.argmax(sums))
    return int(frame_ids[largest]), int(sums[largest])


def _deepest_majority(tree: FlameTree) -> tuple[list[Key], int]:
    """The module furthest down that still holds more than half; else the largest at the top."""
    path: list[Key] = []
    node = ROOT
    while len(children := tree.children(node)):
        largest = int(children[0])
        if path and 2 * int(tree.bytes[largest]) <= int(tree.bytes[ROOT]):
            break
        node = largest
        path.append(tree.keys[node])
    return path, int(tree.bytes[node])


def has_names(tree: FlameTree) -> bool:
    """Whether there is any call or module to draw."""
    return len(tree.keys) > 1 and (tree.kind is FlameKind.MODULES or _has_stacks(tree))
