"""The flame graph of a difference: one graph of two moments, as wide as the second, coloured by what grew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import plotly.graph_objects as go

from memscope.attribution.call_tree import ROOT
from memscope.compare.trees import REST, DifferenceTree
from memscope.device.device import Moment
from memscope.figures.flames._icicle import ROW_PX, add_icicle, box_text
from memscope.figures.flames.flame import MAX_BOXES, MAX_LEVELS, MERGED_FRAC, FlameKind, frame_label, rest_label
from memscope.figures.theme import Theme, empty_figure
from memscope.names import shown
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, frozen_array
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.compare import signed_bytes
from memscope.words.labels import plain


class Growth(Enum):
    """What became of a node, as its box is coloured."""

    NEW = "new"
    MUCH_GROWN = "grown by more than half"
    GROWN = "grown"
    SLIGHTLY_GROWN = "grown by a tenth or less"
    SAME = "the same"
    SLIGHTLY_SHRUNK = "shrunk by a tenth or less"
    SHRUNK = "shrunk"
    MUCH_SHRUNK = "shrunk by more than half"
    GONE = "gone"


COLORS: dict[str, dict[Growth, str]] = {
    "light": {
        Growth.NEW: "#5E2A7E",
        Growth.MUCH_GROWN: "#8A5AA8",
        Growth.GROWN: "#B896CC",
        Growth.SLIGHTLY_GROWN: "#E2D3EA",
        Growth.SAME: "#E6E9EE",
        Growth.SLIGHTLY_SHRUNK: "#CFE8D5",
        Growth.SHRUNK: "#8CC79B",
        Growth.MUCH_SHRUNK: "#3F9460",
        Growth.GONE: "#7FB891",
    },
    "dark": {
        Growth.NEW: "#CFA6EC",
        Growth.MUCH_GROWN: "#A577C6",
        Growth.GROWN: "#75518F",
        Growth.SLIGHTLY_GROWN: "#463553",
        Growth.SAME: "#2B323C",
        Growth.SLIGHTLY_SHRUNK: "#2A4636",
        Growth.SHRUNK: "#3B7352",
        Growth.MUCH_SHRUNK: "#57A878",
        Growth.GONE: "#4C8A66",
    },
}
"""Purple for what grew and green for what shrank, the stronger the more: told apart in grey by their signs alone."""


@dataclass(frozen=True, slots=True)
class DifferenceBoxes:
    """What is drawn: a node and what is below it, small neighbours merged.

    Attributes
    ----------
    parent
        int64 (boxes,): a box, −1 for the first.
    node
        int64 (boxes,): the node of the tree; −1 for merged ones.
    n_merged
        int64 (boxes,): how many siblings a box stands for; 0 for one that is a node.
    width_bytes, a_bytes, b_bytes
        int64 (boxes,).
    n_levels
        How deep it is.
    is_cut
        Whether there are deeper levels that are not drawn.
    """

    parent: Int64Array
    node: Int64Array
    n_merged: Int64Array
    width_bytes: Int64Array
    a_bytes: Int64Array
    b_bytes: Int64Array
    level: Int64Array
    n_levels: int
    is_cut: bool

    def __len__(self) -> int:
        return len(self.parent)


def difference_boxes(tree: DifferenceTree, focus: int = ROOT, max_boxes: int = MAX_BOXES) -> DifferenceBoxes:
    """Lay out a node and what is below it; what is narrower is merged until few enough boxes are left."""
    share = MERGED_FRAC
    while True:
        boxes = _boxes(tree, focus, share * int(tree.width_bytes[focus]))
        if len(boxes) <= max_boxes or share >= 1:
            return boxes
        share *= 2


def _boxes(tree: DifferenceTree, focus: int, least_bytes: float) -> DifferenceBoxes:
    parent, members, level, is_whole = [NONE_ID], [np.array([focus], np.int64)], [0], [True]
    is_cut = False
    box = 0
    while box < len(parent):
        children = tree.children(int(members[box][0])) if is_whole[box] else np.empty(0, np.int64)
        if len(children) and level[box] + 1 >= MAX_LEVELS:
            is_cut = True
        elif len(children):
            is_large = tree.width_bytes[children] >= max(least_bytes, 1)
            small = children[~is_large]
            below = [children[i : i + 1] for i in np.flatnonzero(is_large)] + ([small] if len(small) else [])
            parent += [box] * len(below)
            members += below
            level += [level[box] + 1] * len(below)
            is_whole += [True] * int(is_large.sum()) + [False] * (len(small) > 0)
        box += 1
    sums = [
        [int(column[nodes].sum()) for nodes in members] for column in (tree.width_bytes, tree.a_bytes, tree.b_bytes)
    ]
    return DifferenceBoxes(
        parent=frozen_array(parent, np.int64),
        node=frozen_array(
            [int(of[0]) if whole else NONE_ID for of, whole in zip(members, is_whole, strict=True)], np.int64
        ),
        n_merged=frozen_array([0 if whole else len(of) for of, whole in zip(members, is_whole, strict=True)], np.int64),
        width_bytes=frozen_array(sums[0], np.int64),
        a_bytes=frozen_array(sums[1], np.int64),
        b_bytes=frozen_array(sums[2], np.int64),
        level=frozen_array(level, np.int64),
        n_levels=max(level) + 1,
        is_cut=is_cut,
    )


def growth_of(a_bytes: int, b_bytes: int, *, is_new: bool = False, is_gone: bool = False) -> Growth:
    """What became of some bytes, by the share of what they were."""
    if is_new:
        return Growth.NEW
    if is_gone:
        return Growth.GONE
    delta = b_bytes - a_bytes
    if not delta:
        return Growth.SAME
    share = abs(delta) / max(a_bytes, 1)
    if delta > 0:
        return Growth.SLIGHTLY_GROWN if share <= 0.1 else Growth.GROWN if share <= 0.5 else Growth.MUCH_GROWN
    return Growth.SLIGHTLY_SHRUNK if share <= 0.1 else Growth.SHRUNK if share <= 0.5 else Growth.MUCH_SHRUNK


def box_growth(tree: DifferenceTree, boxes: DifferenceBoxes, box: int) -> Growth:
    """What became of a box."""
    node, a_bytes, b_bytes = int(boxes.node[box]), int(boxes.a_bytes[box]), int(boxes.b_bytes[box])
    if node == NONE_ID:
        return growth_of(a_bytes, b_bytes, is_new=not a_bytes, is_gone=not b_bytes)
    return growth_of(a_bytes, b_bytes, is_new=tree.is_new(node), is_gone=tree.is_gone(node))


def node_label(a: Moment, b: Moment, tree: DifferenceTree, node: int) -> str:
    """A node's name among its siblings, as the second moment has it where both do."""
    if node == ROOT:
        return "allocated"
    frame_a, frame_b = int(tree.frame_a[node]), int(tree.frame_b[node])
    if REST in (frame_a, frame_b):
        return rest_label(FlameKind.MODULES if tree.is_by_module else FlameKind.CALLS)
    if tree.is_by_module:
        return shown(tree.names[node])
    return frame_label(*((b.device.trace, frame_b) if tree.n_b[node] else (a.device.trace, frame_a)))


def box_labels(a: Moment, b: Moment, tree: DifferenceTree, boxes: DifferenceBoxes) -> list[str]:
    """The name of each box."""
    return [
        f"{format_count(n)} smaller" if n else node_label(a, b, tree, node)
        for node, n in zip(boxes.node.tolist(), boxes.n_merged.tolist(), strict=True)
    ]


def difference_flame_figure(
    a: Moment, b: Moment, tree: DifferenceTree, boxes: DifferenceBoxes, theme: Theme
) -> go.Figure:
    """Draw a difference from the top down; each box carries its node as ``customdata``, None where it is none."""
    names = box_labels(a, b, tree, boxes)
    kinds = [box_growth(tree, boxes, box) for box in range(len(boxes))]
    total = max(int(boxes.width_bytes[0]), 1)
    deltas = (boxes.b_bytes - boxes.a_bytes).tolist()
    shares = [int(width) / total for width in boxes.width_bytes]
    figure = empty_figure(theme, boxes.n_levels * ROW_PX + 2, margin={"l": 0, "r": 0, "t": 0, "b": 2})
    add_icicle(
        figure,
        parents=boxes.parent,
        values=boxes.width_bytes,
        names=names,
        keys=[None if node == NONE_ID else node for node in boxes.node.tolist()],
        texts=[
            box_text(name, signed_bytes(delta), share) for name, delta, share in zip(names, deltas, shares, strict=True)
        ],
        hover_texts=[_hover(a, b, tree, boxes, box, name) for box, name in enumerate(names)],
        inks=[ink_on(kind, theme) for kind in kinds],
        colors=[COLORS[theme.name][kind] for kind in kinds],
        outlined=[False] * len(boxes),
        patterns=[
            "|" if n else "/" if kind is Growth.GONE else "" for n, kind in zip(boxes.n_merged, kinds, strict=True)
        ],
        theme=theme,
    )
    return figure


def ink_on(kind: Growth, theme: Theme) -> str:
    """The text colour that reads on a colour."""
    color = COLORS[theme.name][kind]
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "#07090C" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18 else "#FFFFFF"


def _hover(a: Moment, b: Moment, tree: DifferenceTree, boxes: DifferenceBoxes, box: int, name: str) -> str:
    a_bytes, b_bytes, node = int(boxes.a_bytes[box]), int(boxes.b_bytes[box]), int(boxes.node[box])
    delta = b_bytes - a_bytes
    share = f", {'+' if delta > 0 else '−'}{format_fraction(abs(delta) / a_bytes)}" if a_bytes and delta else ""
    lines = [
        f"<b>{plain(name, 72)}</b>",
        f"{signed_bytes(delta)} ({delta:+,} bytes{share})",
        f"A {format_bytes(a_bytes)} → B {format_bytes(b_bytes)}: {box_growth(tree, boxes, box).value}",
    ]
    if node != NONE_ID:
        lines.append(f"{format_count(int(tree.n_a[node]))} → {format_count(int(tree.n_b[node]))} allocations")
        place = place_of(a, b, tree, node)
        lines += [plain(place, 88)] if place else []
    return "<br>".join(lines)


def place_of(a: Moment, b: Moment, tree: DifferenceTree, node: int) -> str:
    """File and line of a call; empty for what is none."""
    places = [
        f"{shown(frame.filename)}:{frame.line}"
        for moment, frame_id in ((a, int(tree.frame_a[node])), (b, int(tree.frame_b[node])))
        if frame_id >= 0
        for frame in (moment.device.trace.frame(frame_id),)
    ]
    return " → ".join(dict.fromkeys(places))


def growth_words(a: Moment, b: Moment, tree: DifferenceTree) -> str:
    """``forward (model.py:40), +204.1 MiB``: the deepest node with more than half of the difference."""
    node, total = ROOT, int(tree.b_bytes[ROOT] - tree.a_bytes[ROOT])
    if not total:
        return "as much in both, of what follows"
    sign = 1 if total > 0 else -1
    while len(children := tree.children(node)):
        deltas: Sequence[int] = [sign * int(tree.b_bytes[child] - tree.a_bytes[child]) for child in children.tolist()]
        best = int(np.argmax(deltas))
        if 2 * deltas[best] <= abs(total):
            break
        node = int(children[best])
    if node == ROOT:
        return f"no single {'module' if tree.is_by_module else 'call'} has most of it"
    delta = int(tree.b_bytes[node] - tree.a_bytes[node])
    return f"{node_label(a, b, tree, node)}, {signed_bytes(delta)}"
