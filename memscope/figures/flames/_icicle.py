"""What flame graphs share: boxes from the top down, and as much text in each as fits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Any

import plotly.graph_objects as go

from memscope.figures.theme import Theme
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.words.labels import plain

ROW_PX = 26
_WIDTH_PX = 632
"""Width of the picture at the narrowest that it has in the app, less a margin for the text."""
_PAD_PX = 9
_MIN_CHARACTERS = 3
_NARROW, _WIDE = frozenset("ijlftr.,:;()[]|!' "), frozenset("mwMW@%_—…")


def add_icicle(
    figure: go.Figure,
    *,
    parents: Int64Array,
    values: Int64Array,
    names: Sequence[str],
    keys: Sequence[Any],
    texts: Sequence[str],
    hover_texts: Sequence[str],
    inks: Sequence[str],
    colors: Sequence[str],
    outlined: Sequence[bool],
    patterns: Sequence[str],
    theme: Theme,
) -> None:
    """Add boxes, one row for each level; a list has an entry for each box.

    Parameters
    ----------
    parents
        The box above each, −1 for the first.
    values
        Widths: the boxes below one are never wider together than it is.
    keys
        What a click on a box tells; None where it leads nowhere.
    patterns
        The hatch of each, empty for none.
    """
    figure.add_icicle(
        ids=[str(i) for i in range(len(parents))],
        parents=["" if above == NONE_ID else str(above) for above in parents.tolist()],
        values=values.tolist(),
        labels=[plain(name, 60) for name in names],
        customdata=list(keys),
        text=list(texts),
        hovertext=list(hover_texts),
        hovertemplate="%{hovertext}<extra></extra>",
        texttemplate="%{text}",
        textposition="middle left",
        textfont={"size": 12, "color": list(inks)},
        marker={
            "colors": list(colors),
            "line": {
                "width": [2.5 if it else 1 for it in outlined],
                "color": [theme.ink if it else theme.surface for it in outlined],
            },
            "pattern": {
                "shape": list(patterns),
                "fillmode": "overlay",
                "fgcolor": theme.surface,
                "size": [3 if shape == "|" else 7 for shape in patterns],
                "solidity": 0.3,
            },
        },
        branchvalues="total",
        sort=False,
        tiling={"orientation": "v", "pad": 0},
        pathbar={"visible": False},
        leaf={"opacity": 1},
        root={"color": "rgba(0,0,0,0)"},
    )
    figure.update_layout(uniformtext={"minsize": 12, "mode": "hide"})


def box_text(name: str, size: str, share: float) -> str:
    """As much of a name and its size as fits into a box of that share of the picture."""
    room_px = share * _WIDTH_PX - _PAD_PX
    if not name.endswith(size) and _width_px(f"{name}  ") + 1.1 * _width_px(size) <= room_px:
        return f"{plain(name)}  <b>{size}</b>"
    if _width_px(name) <= room_px:
        return plain(name)
    widths = accumulate(map(_width_px, name), initial=_width_px("…"))
    n = sum(1 for _ in takewhile(lambda width: width <= room_px, widths)) - 1
    return f"{plain(name[:n])}…" if n >= _MIN_CHARACTERS else ""


def _width_px(text: str) -> float:
    """About how wide a text of 12 px is; rather too wide than too narrow."""
    return sum(4.4 if c in _NARROW else 10.6 if c in _WIDE else 8.4 if c.isupper() else 7.2 for c in text)
