"""Text in a box: as much as fits, and never markup."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from memscope.figures.flames._icicle import add_icicle, box_text
from memscope.figures.theme import LIGHT


def test_a_name_is_cut_where_its_box_ends() -> None:
    name = "forward (model.py:12)"
    assert box_text(name, "1.0 GiB", 1.0) == f"{name}  <b>1.0 GiB</b>"
    assert box_text(name, "1.0 GiB", 0.28) == name
    cut = box_text(name, "1.0 GiB", 0.12)
    assert cut.endswith("…")
    assert name.startswith(cut[:-1])
    assert box_text(name, "1.0 GiB", 0.03) == ""


def test_a_name_is_no_markup() -> None:
    assert box_text("<b>x</b>", "1 B", 1.0).startswith("&lt;b&gt;x&lt;/b&gt;")


def test_boxes_keep_their_parents_and_what_a_click_tells() -> None:
    figure = go.Figure()
    add_icicle(
        figure,
        parents=np.array([-1, 0, 0]),
        values=np.array([9, 5, 4]),
        names=["all", "a<", "b"],
        keys=[None, 1, 2],
        texts=["all", "a", "b"],
        hover_texts=["", "", ""],
        inks=["#000", "#000", "#000"],
        colors=["#fff", "#eee", "#ddd"],
        outlined=[False, True, False],
        patterns=["", "/", "|"],
        theme=LIGHT,
    )
    (icicle,) = figure.data
    assert list(icicle.parents) == ["", "0", "0"]
    assert list(icicle.customdata) == [None, 1, 2]
    assert icicle.labels[1] == "a&lt;"
    assert icicle.marker.line.width[1] > icicle.marker.line.width[0]
