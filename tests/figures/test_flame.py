"""The picture of a flame graph: what its boxes say."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from memscope.analysis import Analysis
from memscope.figures.flame import flame_figure
from memscope.figures.flame_data import (
    FlameKind,
    flame_boxes,
    flame_tree,
)
from memscope.figures.theme import DARK, LIGHT
from memscope.units import format_bytes
from tests.figures.wide_trace import wide
from tests.training_trace import training_trace

KINDS = [(FlameKind.CALLS, True), (FlameKind.CALLS, False), (FlameKind.MODULES, False)]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_names_from_the_trace_stay_text(theme: object) -> None:
    moment = Analysis(training_trace()).peak(0)
    for kind, own_only in KINDS:
        tree = flame_tree(moment, kind, own_only=own_only)
        figure = flame_figure(moment, tree, flame_boxes(tree), theme)  # type: ignore[arg-type]
        assert isinstance(figure, go.Figure)
        icicle = figure.data[0]
        assert icicle.branchvalues == "total"
        assert icicle.values[0] == moment.allocated_bytes
        for text in [*icicle.labels, *icicle.text, *icicle.hovertext]:
            assert "<script" not in text


def test_merged_boxes_say_how_many_they_stand_for_and_lead_nowhere() -> None:
    moment = wide(9)
    tree = flame_tree(moment, FlameKind.CALLS)
    icicle = flame_figure(moment, tree, flame_boxes(tree), LIGHT).data[0]
    assert icicle.labels[-1] == f"9 smaller, {format_bytes(9 * 512)}"
    assert icicle.customdata[-1] is None
