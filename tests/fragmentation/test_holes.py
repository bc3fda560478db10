"""Holes: every free block once, with the requests that may use it."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.fragmentation.holes import Holes, half_size_bytes, holes_of
from memscope.trace.schema import BlockState
from tests.naive_layout import random_layout
from tests.training_trace import training_trace

KiB, MiB = 1 << 10, 1 << 20


def group(*sizes: int) -> Holes:
    return Holes((0, 0), 0, "large", np.array(sorted(sizes, reverse=True), np.int64))


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_the_free_blocks_of_the_state(seed: int) -> None:
    analysis = Analysis(random_layout(seed, 60).trace())
    for event in (-1, 20, 40, analysis.end().event):
        moment = analysis.at(event, 0)
        holes = holes_of(analysis.trace, moment.state)
        blocks = moment.state.blocks
        expected = sorted(blocks.size_bytes[blocks.state == BlockState.INACTIVE].tolist())
        assert sorted(size for one in holes for size in one.size_bytes.tolist()) == expected
        totals = [one.total_bytes for one in holes]
        assert totals == sorted(totals, reverse=True)
        for one in holes:
            assert (np.diff(one.size_bytes) <= 0).all()


def test_each_group_is_that_of_the_metrics() -> None:
    moment = Analysis(training_trace()).at(40, 0)
    found = {(g.pool, g.stream, g.size_class): g.total_bytes for g in holes_of(moment.device.trace, moment.state)}
    groups = moment.fragmentation.groups
    assert found == {(g.pool, g.stream, g.size_class): g.free_bytes for g in groups if g.free_bytes}


@pytest.mark.parametrize(
    ("holes", "half"),
    [
        ((), None),
        ((group(4),), 4),
        ((group(4, 4),), 4),
        ((group(10, 3), group(4, 2, 1)), 10),
        ((group(3, 3, 2, 2),), 3),
    ],
)
def test_half_of_the_bytes_lie_in_holes_of_at_least_that_size(holes: tuple[Holes, ...], half: int | None) -> None:
    assert half_size_bytes(holes) == half
