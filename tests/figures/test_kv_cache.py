"""A recorded key/value cache as pictures: what is drawn is the lens's, and sums to its blocks."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.figures.kv_cache import (
    MAX_LAYERS_DRAWN,
    ROWS,
    cache_figure,
    layers_figure,
)
from memscope.figures.theme import DARK, LIGHT, THEMES
from memscope.kv_cache.series import SPLITS
from memscope.words.kv_cache import LABELS
from tests.kv_cache.serving_program import Program, generate
from tests.training_trace import training_trace

KiB = 1 << 10


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    program = Program()
    program.drop(generate(program, prompt=40, n_new=30))
    generate(program, prompt=20, n_new=10, capacity=200)
    return program.analysis()


def test_every_part_has_a_colour() -> None:
    assert set(ROWS) == set(SPLITS)
    for theme in THEMES.values():
        assert all(theme.color(row) for row in ROWS.values())


@pytest.mark.parametrize("axis", ["event", "time"])
def test_the_layers_drawn_sum_to_the_caches_blocks(analysis: Analysis, axis: str) -> None:
    figure = cache_figure(analysis.opinions(0).kv_lens, LIGHT, axis=axis)
    lens = analysis.opinions(0).kv_lens
    stacked = [trace for trace in figure.data if trace.stackgroup == "cache"]
    assert [trace.name for trace in stacked] == ["tokens", "unused", "stale", "rounding"]
    total = np.sum([np.asarray(trace.y) for trace in stacked], axis=0)
    unit = float(lens.series.block_bytes.max()) / total.max()
    assert unit in (1 << 10, 1 << 20, 1 << 30)
    (tokens,) = (trace for trace in figure.data if trace.name == "tokens held")
    assert np.nanmax(tokens.y) == lens.held_tokens.max() == 2 * 70
    assert figure.layout.shapes[0].type == "line"


def test_a_window_draws_only_what_is_in_sight(analysis: Analysis) -> None:
    n = analysis.device(0).n_events
    figure = cache_figure(analysis.opinions(0).kv_lens, DARK, window=(0.0, n / 10), moment=3)
    assert len(figure.data[0].x) <= n / 10 + 3
    assert figure.layout.shapes[0].visible


def test_tokens_that_are_not_told_are_not_drawn() -> None:
    program = Program()
    program.malloc(1 << 20, "layer 0 keys")
    figure = cache_figure(program.analysis().opinions(0).kv_lens, LIGHT)
    assert [trace.name for trace in figure.data] == ["not told"]


def test_without_a_cache_the_picture_says_so() -> None:
    figure = cache_figure(Analysis(training_trace()).opinions(0).kv_lens, LIGHT)
    assert not figure.data
    assert "no key/value cache" in figure.layout.annotations[0].text


def test_bars_are_the_layers(analysis: Analysis) -> None:
    lens = analysis.opinions(0).kv_lens
    rows = lens.by_layer(lens.peak_event)
    figure = layers_figure(rows, LIGHT)
    assert list(figure.layout.yaxis.ticktext) == ["layer 0", "layer 1", "layer 2"]
    for bar in figure.data:
        name = next(split for split, label in LABELS.items() if label == bar.name)
        assert list(bar.customdata) == [f"{getattr(row, name):,} B" for row in rows]
    assert len(layers_figure(rows * MAX_LAYERS_DRAWN, LIGHT).layout.yaxis.ticktext) == MAX_LAYERS_DRAWN
    assert not layers_figure((), LIGHT).data
