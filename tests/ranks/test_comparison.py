"""What follows from a comparison's own numbers."""

from __future__ import annotations

import dataclasses

import pytest

from memscope.ranks.comparison import Difference, PeakUse, Spread, step_words
from tests.rank_traces import Alloc, MiB, Step, compare_acts, compare_traces, rank_trace, training


def test_the_spread_is_a_share_of_the_highest_and_none_of_nothing() -> None:
    spread = Spread(1, 0, 0, 80 * MiB, 60 * MiB, 60 * MiB, n_rows=2)
    assert (spread.spread_bytes, spread.spread_frac) == (20 * MiB, 0.25)
    assert Spread(0, 0, 0, 0, 0, 0, n_rows=1).spread_frac is None
    assert Difference("weights", "category", 10, 30).difference_bytes == -20


def test_free_bytes_and_headroom_are_none_where_reserved_was_not_recorded() -> None:
    use = PeakUse(3, "0", "step 0", 30 * MiB, 40 * MiB, reserved_bytes=50 * MiB)
    assert use.free_bytes == 10 * MiB
    assert dataclasses.replace(use, reserved_bytes=None).free_bytes is None
    # Each allocation is a segment of its own: 20 of weights and 10 of activations are reserved.
    (row,) = compare_traces([rank_trace(training(10), device_total_bytes={0: 64 * MiB})]).rows
    assert (row.headroom_bytes, row.free_at_peak_reserved_bytes) == (34 * MiB, 10 * MiB)
    assert dataclasses.replace(row, peak_reserved=None).headroom_bytes is None


@pytest.mark.parametrize(("label", "words"), [("3", "step 3"), ("Step 3", "Step 3"), ("epoch", "step epoch")])
def test_a_steps_name_says_that_it_is_one(label: str, words: str) -> None:
    assert step_words(label) == words


def test_titles_tell_steps_of_one_name_apart_and_name_the_rest() -> None:
    comparison = compare_acts([*training(10), Step("0"), Alloc("kept", 12)])
    assert [step.title for step in comparison.steps] == ["step 0", "step 0 (2)", "after the last step"]
    assert (comparison.n_ranks, comparison.device_of(0).index) == (1, 0)
