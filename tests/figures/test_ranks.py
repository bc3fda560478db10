"""Ranks side by side: bars of the peaks and the table of steps, with the comparison's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.figures.ranks import ranks_figure, step_table, steps_figure
from memscope.figures.theme import DARK, LIGHT
from memscope.ranks.compare import compare_ranks
from memscope.ranks.comparison import RankComparison
from tests.rank_traces import Act, Alloc, MiB, Oom, Step, rank_trace, training
from tests.training_trace import HOSTILE


def compared(*ranks: list[Act], totals: tuple[int | None, ...] = ()) -> RankComparison:
    traces = []
    for rank, acts in enumerate(ranks):
        total = totals[rank] if totals else None
        traces.append(rank_trace(acts, rank=rank, device_total_bytes={} if total is None else {0: total}))
    return compare_ranks([Analysis(trace) for trace in traces])


@pytest.fixture(scope="module")
def comparison() -> RankComparison:
    # Rank 0 peaks at 20 + 30 MiB, rank 1 at 20 + 60; each activation is a segment of its own and stays reserved.
    return compared(training(10, 30), training(60, 10, 10, extra=[Oom(99)]))


def named(figure: Any, name: str) -> Any:
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def texts(figure: Any) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def test_the_categories_of_a_bar_sum_to_the_rows_peak(comparison: RankComparison) -> None:
    figure = ranks_figure(comparison, LIGHT)
    bars = [trace for trace in figure.data if trace.type == "bar" and trace.name != "highest reserved"]
    heights = sum(np.asarray(bar.y, float) for bar in bars)
    assert heights.tolist() == [50.0, 80.0]
    tops = np.max([np.asarray(bar.base, float) + np.asarray(bar.y, float) for bar in bars], axis=0)
    assert tops.tolist() == [50.0, 80.0]


def test_the_outline_is_the_highest_reserved_and_out_of_memory_is_marked(comparison: RankComparison) -> None:
    figure = ranks_figure(comparison, DARK)
    assert list(named(figure, "highest reserved").y) == [60.0, 100.0]
    oom = named(figure, "out of memory")
    assert (list(oom.x), list(oom.customdata), oom.marker.color) == (["rank 1"], ["once"], DARK.red)
    assert "<b>80.0 MiB</b><br>100.0 MiB" in texts(figure)


def test_the_chosen_rank_stands_out(comparison: RankComparison) -> None:
    shape = ranks_figure(comparison, LIGHT, chosen=1).layout.shapes[0]
    assert (shape.x0, shape.x1, shape.visible) == (0.54, 1.46, True)
    assert ranks_figure(comparison, LIGHT).layout.shapes[0].visible is False


def test_many_ranks_are_named_by_their_numbers() -> None:
    axis = ranks_figure(compared(*[training(10)] * 26), LIGHT).layout.xaxis
    assert list(axis.tickvals[:3]) == ["rank 0", "rank 2", "rank 4"]
    assert list(axis.ticktext[:3]) == ["0", "2", "4"]


def test_one_capacity_is_drawn_and_different_ones_are_not() -> None:
    same = ranks_figure(compared(training(10), training(20), totals=(64 * MiB, 64 * MiB)), LIGHT)
    assert "capacity 64.0 MiB" in texts(same)
    differing = ranks_figure(compared(training(10), training(20), totals=(64 * MiB, 48 * MiB)), LIGHT)
    assert not any("capacity" in text for text in texts(differing))


def test_each_cell_has_the_highest_of_its_step_and_a_missing_step_none(comparison: RankComparison) -> None:
    table = step_table(comparison)
    assert table.titles == ("step 0", "step 1", "step 2")
    assert (table.highest_bytes // MiB).tolist() == [[30, 50, -1], [80, 30, 30]]
    assert table.step.tolist() == [[0, 1, -1], [0, 1, 2]]
    reserved = step_table(comparison, "reserved")
    assert (reserved.highest_bytes // MiB).tolist() == [[30, 60, -1], [80, 90, 100]]


def test_too_many_steps_share_columns_and_keep_their_highest(comparison: RankComparison) -> None:
    table = step_table(comparison, max_columns=2)
    assert table.columns == ((0, 2), (2, 3))
    assert table.titles == ("step 0 – step 1", "step 2")
    assert (table.highest_bytes // MiB).tolist() == [[50, -1], [80, 30]]
    assert table.step.tolist() == [[1, -1], [0, 2]]


def test_the_table_writes_its_sizes_and_leaves_what_was_not_recorded_blank(comparison: RankComparison) -> None:
    (heat,) = steps_figure(comparison, LIGHT).data
    assert [list(row) for row in heat.text] == [["30.0 MiB", "50.0 MiB", ""], ["80.0 MiB", "30.0 MiB", "30.0 MiB"]]
    assert np.isnan(np.asarray(heat.z)[0, 2])
    assert (heat.zmin, heat.zmax) == (30.0, 80.0)


def test_without_steps_the_table_says_what_to_do() -> None:
    figure = steps_figure(compared(training(), training()), LIGHT)
    assert figure.data == ()
    assert texts(figure) == ["no steps were recorded: mark them with rec.step()"]


def test_thousands_of_steps_of_many_ranks_stay_small() -> None:
    ranks = [training(*[10 + 2 * (i % 5) for i in range(600)]) for _ in range(4)]
    figure = steps_figure(compared(*ranks), LIGHT)
    assert len(figure.data[0].x) <= 240
    assert len(figure.to_json()) < 100_000


def test_names_of_steps_are_not_markup() -> None:
    acts: list[Act] = [Alloc("a", 10), Step(HOSTILE), Alloc("b", 10), Step(HOSTILE + "2")]
    figure = steps_figure(compared(acts, acts), LIGHT)
    assert len(set(figure.data[0].x)) == len(figure.data[0].x)
    assert "<script" not in figure.to_json()
