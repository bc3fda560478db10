"""The waterfall: its bars begin where the one before ended, and end at what the second moment holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.compare.diff import diff_moments
from memscope.compare.difference import By
from memscope.figures.compare import MAX_BARS, steps_figure, waterfall_figure, waterfall_steps
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


SHIPPED = Path(__file__).parents[2] / "traces"


@pytest.mark.parametrize("by", By)
@pytest.mark.parametrize("is_reserved", [False, True])
def test_the_steps_lead_from_one_sum_to_the_other_to_the_byte(by: By, is_reserved: bool) -> None:
    a, b = (load(SHIPPED / f"{name}.memscope").peak() for name in ("tiny-llama-train", "tiny-out-of-memory"))
    difference = diff_moments(a, b, by)
    steps = waterfall_steps(difference, difference.rows, is_reserved=is_reserved)
    ends = (a.reserved_bytes, b.reserved_bytes) if is_reserved else (a.allocated_bytes, b.allocated_bytes)
    assert sum(step.delta_bytes for step in steps) == ends[1] - ends[0]
    assert len(steps) <= MAX_BARS + 2
    n_changed = sum(row.delta_bytes != 0 for row in difference.rows)
    assert sum(step.n_rows for step in steps) == n_changed + is_reserved
    figure = steps_figure(ends, steps, DARK)
    bars = [(bar.base[0], bar.base[0] + bar.x[0]) for bar in figure.data]
    assert bars[0][1] == ends[0]
    assert bars[-1][1] == ends[1]
    assert [start for start, _ in bars[1:-1]] == [end for _, end in bars[:-2]]


def test_steps_say_what_they_are_and_names_are_no_markup() -> None:
    a = run([Take(20 * MiB, Category.WEIGHTS, "<b>w</b>", line(1))])
    b = run([Take(24 * MiB, Category.WEIGHTS, "<b>w</b>", line(1)), Take(2 * MiB, calls=line(7))])
    difference = diff_moments(a.peak(), b.peak())
    steps = waterfall_steps(difference, difference.rows)
    assert [(step.label, step.delta_bytes) for step in steps] == [
        ("<b>w</b>", 4 * MiB),
        ("forward · project/train.py:7", 2 * MiB),
    ]
    figure = steps_figure((20 * MiB, 26 * MiB), steps, LIGHT)
    assert "&lt;b&gt;w&lt;/b&gt;" in figure.layout.yaxis.ticktext
    assert "+4,194,304 bytes" in figure.data[1].hovertemplate
    assert "20.0 MiB → 24.0 MiB" in figure.data[1].hovertemplate
    assert figure.data[1].marker.color == LIGHT.color("weights")


def test_what_is_reserved_and_not_allocated_is_a_step_only_where_it_was_measured() -> None:
    a, b = run([Take(2 * MiB, extra=MiB)]), run([Take(2 * MiB)])
    difference = diff_moments(a.end(), b.end())
    assert difference.unallocated is not None
    assert difference.unallocated.delta_bytes == difference.b.reserved_bytes - difference.a.reserved_bytes + MiB
    rows = waterfall_steps(difference, difference.rows, is_reserved=True)
    assert sum(step.delta_bytes for step in rows) == difference.b.reserved_bytes - difference.a.reserved_bytes


def test_steps_of_the_same_name_say_their_category() -> None:
    a = run([Take(2 * MiB, Category.WEIGHTS), Take(2 * MiB, Category.INPUTS)])
    b = run([Take(4 * MiB, Category.WEIGHTS), Take(8 * MiB, Category.INPUTS)])
    difference = diff_moments(a.end(), b.end(), By.MODULE)
    labels = {step.label for step in waterfall_steps(difference, difference.rows)}
    assert labels == {"not recorded, weights", "not recorded, inputs"}
