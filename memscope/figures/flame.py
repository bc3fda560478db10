"""The flame graph: who holds the allocated bytes, from the outermost call or module down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from memscope.attribution.call_tree import ROOT
from memscope.device.device import Moment
from memscope.figures.flame_data import (
    FlameBoxes,
    FlameKind,
    FlameTree,
    Key,
    key_label,
    majority,
    path_label,
    rest_label,
)
from memscope.figures.frame import empty_figure
from memscope.figures.theme import Theme
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.labels import plain, row_label

ROW_PX = 26
_WIDTH_PX = 632
"""Width of the picture at the narrowest that it has in the app, less a margin for the text."""
_PAD_PX = 9
_MIN_CHARACTERS = 3
_NARROW, _WIDE = frozenset("ijlftr.,:;()[]|!' "), frozenset("mwMW@%_—…")


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
    figure.add_icicle(
        ids=[str(i) for i in range(len(boxes))],
        parents=["" if above == NONE_ID else str(above) for above in boxes.parent.tolist()],
        values=boxes.bytes.tolist(),
        labels=[plain(name, 60) for name in names],
        customdata=_keys(tree, boxes),
        text=[_box_text(name, int(n), share) for name, n, share in zip(names, boxes.bytes, shares, strict=True)],
        hovertext=_hover_texts(moment, tree, boxes, names),
        hovertemplate="%{hovertext}<extra></extra>",
        texttemplate="%{text}",
        textposition="middle left",
        textfont={"size": 12, "color": [_ink(i, kind, boxes, theme) for i, kind in enumerate(kinds)]},
        marker={
            "colors": [_color(i, kind, boxes, theme) for i, kind in enumerate(kinds)],
            "line": {
                "width": [2.5 if it else 1 for it in outlined],
                "color": [theme.ink if it else theme.surface for it in outlined],
            },
            "pattern": _merged_pattern(boxes, theme),
        },
        branchvalues="total",
        sort=False,
        tiling={"orientation": "v", "pad": 0},
        pathbar={"visible": False},
        leaf={"opacity": 1},
        root={"color": "rgba(0,0,0,0)"},
    )
    figure.update_layout(uniformtext={"minsize": 12, "mode": "hide"})
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


def _box_text(name: str, n_bytes: int, share: float) -> str:
    """As much of a name and its size as fits into its box."""
    room_px = share * _WIDTH_PX - _PAD_PX
    size = format_bytes(n_bytes)
    if not name.endswith(size) and _width_px(f"{name}  ") + 1.1 * _width_px(size) <= room_px:
        return f"{plain(name)}  <b>{size}</b>"
    if _width_px(name) <= room_px:
        return plain(name)
    n = len(name)
    while n >= _MIN_CHARACTERS and _width_px(f"{name[:n]}…") > room_px:
        n -= 1
    return f"{plain(name[:n])}…" if n >= _MIN_CHARACTERS else ""


def _width_px(text: str) -> float:
    """About how wide a text of 12 px is; rather too wide than too narrow."""
    return sum(4.4 if c in _NARROW else 10.6 if c in _WIDE else 8.4 if c.isupper() else 7.2 for c in text)


def _merged_pattern(boxes: FlameBoxes, theme: Theme) -> dict[str, Any]:
    """Merged boxes are striped, as in the address map."""
    shapes = ["|" if n else "" for n in boxes.n_merged.tolist()]
    return {"shape": shapes, "fillmode": "overlay", "fgcolor": theme.surface, "size": 3, "solidity": 0.3}


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
    return f"{frame.filename}:{frame.line}"
