"""The address map: every byte in its place, whatever is merged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis, load
from memscope.figures import address_map as map_layout
from memscope.figures.address_map import KINDS, MERGED, AddressMap, map_figure, map_of, map_scale, pinned_shapes
from memscope.figures.theme import LIGHT
from memscope.trace.schema import NONE_ID, BlockState
from tests.naive_layout import random_layout
from tests.oracles import REAL, needs_shared
from tests.properties import examples
from tests.training_trace import training_trace


def widths_bytes(layout: AddressMap, pieces: map_layout.Rectangles) -> np.ndarray:
    """Bytes that each piece stands for."""
    width = np.empty(layout.n_rows)
    for group in layout.groups:
        width[group.first_row : group.first_row + group.n_rows] = group.row_bytes
    return (pieces.end_frac - pieces.start_frac) * width[pieces.row]


@examples(20)
@given(seed=st.integers(0, 2**32 - 1), limit=st.sampled_from([5, 40, 2_500]))
def test_pieces_hold_exactly_the_bytes_of_segments_and_blocks(seed: int, limit: int) -> None:
    analysis = Analysis(random_layout(seed, 60).trace())
    scale = map_scale(analysis.device(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_layout, "MAX_RECTANGLES", limit)
        for event in (-1, 10, analysis.trace.n_events - 1):
            moment = analysis.at(event, 0)
            layout = map_of(moment, scale)
            state = moment.state
            assert widths_bytes(layout, layout.segments).sum() == pytest.approx(state.reserved_bytes)
            drawn = np.bincount(
                layout.blocks.source, widths_bytes(layout, layout.blocks), minlength=len(layout.size_bytes)
            )
            assert drawn == pytest.approx(layout.size_bytes)
            assert layout.size_bytes.sum() == state.reserved_bytes
            assert layout.active_bytes.sum() == state.active_bytes
            assert layout.n_merged.sum() == len(state.blocks)
            assert np.all((layout.allocation_id == NONE_ID) | (layout.n_merged == 1))


@examples(15)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_two_pieces_overlap(seed: int) -> None:
    analysis = Analysis(random_layout(seed, 60).trace())
    layout = map_of(analysis.end(0), map_scale(analysis.device(0)))
    for pieces in (layout.segments, layout.blocks):
        order = np.lexsort((pieces.start_frac, pieces.row))
        row, start, end = pieces.row[order], pieces.start_frac[order], pieces.end_frac[order]
        same = row[1:] == row[:-1]
        assert np.all(end[:-1][same] <= start[1:][same] + 1e-12)
        assert np.all((start >= 0) & (end <= 1 + 1e-12) & (end > start))


def test_row_widths_do_not_change_with_the_moment() -> None:
    analysis = Analysis(training_trace())
    scale = map_scale(analysis.device(0))
    for event in (5, 60, analysis.trace.n_events - 1):
        for group in map_of(analysis.at(event, 0), scale).groups:
            assert group.row_bytes == scale[group.key]


def test_blocks_have_the_kind_of_their_allocation() -> None:
    analysis = Analysis(training_trace())
    moment = analysis.peak(0)
    layout = map_of(moment, map_scale(analysis.device(0)))
    category = analysis.device(0).attribution.category
    alone = np.flatnonzero(layout.allocation_id != NONE_ID)
    assert len(alone)
    for i in alone.tolist():
        assert KINDS[layout.kind[i]] == KINDS[int(category[layout.allocation_id[i]])]


def test_small_neighbours_become_a_band_that_says_so() -> None:
    analysis = Analysis(training_trace())
    moment = analysis.peak(0)
    layout = map_of(moment, dict.fromkeys(map_scale(analysis.device(0)), 1 << 40))
    merged = layout.kind == KINDS.index(MERGED)
    assert merged.any()
    assert np.array_equal(merged, layout.n_merged > 1)
    figure = map_figure(moment, LIGHT, scale=dict.fromkeys(map_scale(analysis.device(0)), 1 << 40))
    (band,) = [trace for trace in figure.data if trace.name == MERGED]
    assert " smaller, " in band.hovertext[0]


def test_a_pinned_allocation_is_outlined() -> None:
    analysis = Analysis(training_trace())
    moment = analysis.peak(0)
    row = int(moment.rows[0])
    layout = map_of(moment, map_scale(analysis.device(0)))
    assert len(pinned_shapes(layout, row, LIGHT)) >= 1
    assert pinned_shapes(layout, None, LIGHT) == []
    assert len(map_figure(moment, LIGHT, pinned=row).layout.shapes) >= 1


def test_pending_blocks_are_marked() -> None:
    analysis = Analysis(random_layout(3, 80).trace())
    pending = next(
        event
        for event in range(analysis.trace.n_events)
        if np.any(analysis.at(event, 0).state.blocks.state == BlockState.ACTIVE_PENDING_FREE)
    )
    layout = map_of(analysis.at(pending, 0), map_scale(analysis.device(0)))
    assert KINDS.index("pending_frees") in layout.kind


def test_names_in_hover_labels_are_escaped() -> None:
    figure = map_figure(Analysis(training_trace()).peak(0), LIGHT)
    hover = [text for trace in figure.data if trace.hovertext is not None for text in trace.hovertext]
    assert any("&lt;script&gt;" in text for text in hover)
    assert not any("<script" in text for text in hover)


@needs_shared
@pytest.mark.parametrize("name", ["lm-train-torch2.6", "rlhf-three-pools-no-trace", "llama-kv-quant-blocks-only"])
def test_real_layouts_stay_small(name: str) -> None:
    figure = map_figure(load(REAL / f"{name}.pickle.gz").peak(0), LIGHT)
    assert len(figure.to_json()) < 900_000


def test_a_device_that_holds_nothing_has_a_picture_too() -> None:
    moment = Analysis(random_layout(3, 60).trace()).at(-1, 0)
    assert not len(moment.state.segments)
    assert map_figure(moment, LIGHT).layout.height > 0
