"""A comparison of ranks in words."""

from __future__ import annotations

import pytest

from memscope.words.ranks import numbers_words, rank_words, ranks_finding, setting_words, spread_words
from tests.rank_traces import DIED, compare_acts, compare_traces, rank_trace, training


@pytest.mark.parametrize(
    ("numbers", "words"), [([3], "3"), ([0, 1, 2], "0–2"), ([7, 0, 2, 1], "0–2, 7"), ([4, 5, 9, 11], "4–5, 9, 11")]
)
def test_runs_of_ranks_are_short(numbers: list[int], words: str) -> None:
    assert numbers_words(numbers) == words


def test_the_finding_names_who_peaks_where_and_by_how_much() -> None:
    assert ranks_finding(compare_acts(training(10, 12, 14), DIED)) == (
        "rank 1 peaks highest: 70.0 MiB allocated (step 1, unfinished); rank 0 lowest, 36.0 MiB (51.4 %) less"
    )
    assert ranks_finding(compare_acts(training(10), training(10))) == "all 2 ranks peak at 30.0 MiB allocated"


def test_the_spread_is_said_with_its_share_and_the_median_of_three() -> None:
    allocated, _ = spread_words(compare_acts(training(10), training(30), training(20)))
    assert allocated == (
        "peak allocated: 30.0 MiB (rank 0) to 50.0 MiB (rank 1), median 40.0 MiB; "
        "spread 20.0 MiB, 40.0 % of the highest"
    )


def test_who_is_meant_is_said_as_short_as_it_goes() -> None:
    comparison = compare_acts(*[training(10)] * 4)
    rows = comparison.rows
    assert rank_words(comparison, rows) == "all ranks"
    assert rank_words(comparison, [rows[0], rows[1], rows[3]]) == "ranks 0–1, 3"
    assert rank_words(comparison, rows[2:3]) == "rank 2"
    two_devices = compare_traces([rank_trace(training(10), training(10)), rank_trace(training(10))])
    assert rank_words(two_devices, two_devices.rows[1:2]) == "rank 0, device 1"


def test_values_of_a_setting_name_their_ranks_and_what_is_missing() -> None:
    comparison = compare_traces([rank_trace(training(10), alloc_conf=conf) for conf in ("", "", None)])
    (setting,) = comparison.settings_that_differ
    assert setting_words(comparison, setting) == {"default": "ranks 0–1", "not recorded": "rank 2"}
