"""The flame graph: the calls or the modules that hold a moment's bytes as boxes, no byte lost, and their picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.call_tree import ROOT, CallTree, ModuleTree, call_tree, module_tree, sum_below
from memscope.attribution.sites import own_frames
from memscope.device.device import Moment
from memscope.figures.flames._icicle import ROW_PX, add_icicle, box_text
from memscope.figures.theme import Theme, empty_figure
from memscope.names import shown
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, frozen_array
from memscope.trace.trace import Frame, Trace
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.headlines import where
from memscope.words.labels import plain, row_label

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
    name, file = shown(frame.name), _file_shown(frame)
    return f"{name} ({file}:{frame.line})" if file and frame.line > 0 else f"{name} ({file})"


def _file_shown(frame: Frame) -> str:
    return shown(frame.filename.replace("\\", "/").rsplit("/", 1)[-1])


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
    site = f"{_file_shown(frame)}:{frame.line} ({shown(frame.name)})"
    return f"{format_fraction(n_bytes / total)} of {whole} comes from {site}"


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


def flame_figure(
    moment: Moment,
    tree: FlameTree,
    boxes: FlameBoxes,
    theme: Theme,
    *,
    path: Sequence[Key] = (),
    chosen: int | None = None,
) -> go.Figure:
    """Draw a flame graph from the top down, one row for each level.

    Each box carries its key as ``customdata`` (a frame id, or a module's name), and None where it is no node.

    Parameters
    ----------
    path
        Keys of the first box, from the root.
    chosen
        A node to outline.
    """
    outlined = [chosen is not None and node == chosen for node in boxes.node.tolist()]
    names = _names(moment, tree, boxes, path)
    shares = [int(n) / max(int(boxes.bytes[0]), 1) for n in boxes.bytes]
    kinds = [majority(row) for row in boxes.by_category]
    figure = empty_figure(theme, boxes.n_levels * ROW_PX + 2, margin={"l": 0, "r": 0, "t": 0, "b": 2})
    add_icicle(
        figure,
        parents=boxes.parent,
        values=boxes.bytes,
        names=names,
        keys=_keys(tree, boxes),
        texts=[
            box_text(name, format_bytes(int(n)), share)
            for name, n, share in zip(names, boxes.bytes, shares, strict=True)
        ],
        hover_texts=_hover_texts(moment, tree, boxes, names),
        inks=[_ink(i, kind, boxes, theme) for i, kind in enumerate(kinds)],
        colors=[_color(i, kind, boxes, theme) for i, kind in enumerate(kinds)],
        outlined=outlined,
        patterns=["|" if n else "" for n in boxes.n_merged.tolist()],
        theme=theme,
    )
    return figure


def empty_flame(theme: Theme) -> go.Figure:
    """The picture where there is nothing to draw; the words beside it say why."""
    axis = {"visible": False}
    return empty_figure(theme, ROW_PX, xaxis=axis, yaxis=axis)


def _keys(tree: FlameTree, boxes: FlameBoxes) -> list[Key | None]:
    return [None if node in (NONE_ID, ROOT) else tree.keys[node] for node in boxes.node.tolist()]


def _names(moment: Moment, tree: FlameTree, boxes: FlameBoxes, path: Sequence[Key]) -> list[str]:
    trace = moment.device.trace
    is_all = int(tree.bytes[ROOT]) == moment.allocated_bytes
    names = [path_label(trace, tree.kind, path) or ("allocated" if is_all else "allocated, of these categories")]
    for node, n, n_bytes in zip(boxes.node[1:].tolist(), boxes.n_merged[1:].tolist(), boxes.bytes[1:], strict=True):
        if n:
            names.append(f"{n:,} smaller, {format_bytes(int(n_bytes))}")
        else:
            names.append(rest_label(tree.kind) if node == NONE_ID else key_label(trace, tree.kind, tree.keys[node]))
    return names


def _color(box: int, kind: Category | None, boxes: FlameBoxes, theme: Theme) -> str:
    if boxes.n_merged[box]:
        return theme.band
    return theme.grid if kind is None or boxes.node[box] == ROOT else theme.color(kind.label)


def _ink(box: int, kind: Category | None, boxes: FlameBoxes, theme: Theme) -> str:
    if boxes.n_merged[box]:
        return "#07090C"
    return theme.ink if kind is None or boxes.node[box] == ROOT else theme.ink_on(kind.label)


def _hover_texts(moment: Moment, tree: FlameTree, boxes: FlameBoxes, names: Sequence[str]) -> list[str]:
    total = max(int(tree.bytes[ROOT]), 1)
    whole = "allocated" if total == moment.allocated_bytes else "these categories"
    texts = []
    for box, name in enumerate(names):
        n_bytes, node = int(boxes.bytes[box]), int(boxes.node[box])
        lines = [f"<b>{plain(name, 72)}</b>", f"{format_bytes(n_bytes)} · {format_count(n_bytes)} bytes"]
        count = f" · {format_count(int(tree.count[node]))} allocations" if node != NONE_ID else ""
        lines.append(f"{format_fraction(n_bytes / total)} of {whole}{count}")
        lines.append(", ".join(_parts(boxes, box)))
        place = _place(moment, tree, node)
        texts.append("<br>".join([*lines, *([plain(place, 88)] if place else [])]))
    return texts


def _parts(boxes: FlameBoxes, box: int) -> list[str]:
    """The three categories that hold most of a box."""
    of = boxes.by_category[box]
    largest = sorted((c for c in Category if of[c]), key=lambda c: -int(of[c]))[:3]
    return [f"{row_label(c.label)} {format_fraction(int(of[c]) / int(boxes.bytes[box]))}" for c in largest]


def _place(moment: Moment, tree: FlameTree, node: int) -> str:
    if tree.kind is not FlameKind.CALLS or node in (NONE_ID, ROOT) or tree.keys[node] == NONE_ID:
        return ""
    frame = moment.device.trace.frame(int(tree.keys[node]))
    return f"{shown(frame.filename)}:{frame.line}"
