"""The waterfall: its bars begin where the one before ended, and end at what the second moment holds."""

from __future__ import annotations

import pytest

from memscope.compare.diff import diff_moments
from memscope.figures.compare import waterfall_figure
from memscope.figures.theme import DARK, LIGHT, Theme
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_bars_lead_from_one_sum_to_the_other(theme: Theme) -> None:
    a = run([Take(20 * MiB, Category.WEIGHTS, "w", line(1)), Take(8 * MiB, Category.INPUTS, "x", line(2))])
    b = run(
        [
            Take(20 * MiB, Category.WEIGHTS, "w", line(1)),
            Take(2 * MiB, Category.INPUTS, "x", line(2)),
            Take(16 * MiB, Category.ACTIVATIONS, "y", line(3)),
        ]
    )
    bars = waterfall_figure(diff_moments(a.peak(), b.peak()), theme).data
    assert [bar.x[0] for bar in bars] == ["A", "activations", "inputs", "B"]
    ends = [bar.base[0] + bar.y[0] for bar in bars]
    assert [end // MiB for end in ends] == [28, 44, 38, 38]
    assert [bar.base[0] for bar in bars[1:3]] == ends[:2]
    assert bars[1].marker.color == theme.color("activations")
    assert waterfall_figure(diff_moments(a.peak(), b.peak()), theme).layout.yaxis.range[0] == 0


def test_small_changes_of_large_sums_can_be_seen() -> None:
    a = run([Take(2000 * MiB, Category.WEIGHTS, "w", line(1))])
    b = run([Take(2000 * MiB, Category.WEIGHTS, "w", line(1)), Take(2 * MiB, calls=line(2))])
    figure = waterfall_figure(diff_moments(a.peak(), b.peak()), LIGHT)
    low, high = figure.layout.yaxis.range
    assert any("the axis begins at" in (note.text or "") for note in figure.layout.annotations)
    assert not figure.layout.yaxis.tickvals
    assert 2 * MiB > 0.1 * (high - low)
