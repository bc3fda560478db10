"""What steps with inputs of a size need is read off those with as large ones, or off the line between two."""

from __future__ import annotations

import pytest

from memscope.compare.for_inputs import Expected, SizePeak, expected, size_peaks, step_peaks
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run

SIZES = (SizePeak(10, 100, 4, 2), SizePeak(20, 145, 0, 1), SizePeak(30, 200, 0, 2))
"""The one in the middle is 5 below the line of the others."""


@pytest.mark.parametrize(
    ("inputs_bytes", "found"),
    [
        (10, Expected(100, 4)),
        (20, Expected(145, 4)),
        (30, Expected(200, 0)),
        (25, Expected(173, 5)),
        (5, Expected(100, 5)),
        (31, None),
        (0, None),
    ],
)
def test_a_size_that_was_seen_one_in_between_one_below_and_one_beyond(
    inputs_bytes: int, found: Expected | None
) -> None:
    assert expected(SIZES, inputs_bytes) == found


@pytest.mark.parametrize("sizes", [(), SIZES[:1]])
def test_nothing_is_expected_where_there_is_one_size_alone(sizes: tuple[SizePeak, ...]) -> None:
    assert expected(sizes, 10) is None


def test_peaks_that_grow_faster_than_the_inputs_are_never_above_what_is_expected() -> None:
    sizes = [SizePeak(n, n * n, 0, 2) for n in (3, 5, 11)]
    for n in range(1, 12):
        found = expected(sizes, n)
        assert found is not None
        assert n * n <= found.highest_bytes


def test_several_runs_have_the_highest_of_each_size_and_how_far_they_lie_apart() -> None:
    assert size_peaks([{10: 100, 20: 145}, {10: 96}, {}]) == (SizePeak(10, 100, 4, 2), SizePeak(20, 145, 0, 1))
    assert size_peaks([]) == size_peaks([{}]) == ()


def test_of_many_sizes_neighbours_go_by_the_largest_of_them() -> None:
    found = size_peaks([{n: 10 * n for n in range(1, 1001)}])
    assert len(found) == 64
    assert all(one.highest_bytes == 10 * one.inputs_bytes for one in found)
    assert found[-1].inputs_bytes == 1000


def step(inputs: int, others: int, name: str) -> list[Take | str]:
    return [
        Take(inputs * MiB, Category.INPUTS, "x", line(3), free_at_step=True),
        Take(others * MiB, calls=line(5), free_at_step=True),
        name,
    ]


def test_a_step_is_a_sample_but_for_the_first() -> None:
    found = step_peaks(run(step(8, 2, "0") + step(8, 100, "1") + step(8, 104, "2") + step(2, 40, "3")).device())
    assert found == {8 * MiB: 112 * MiB, 2 * MiB: 42 * MiB}


def test_a_run_of_one_step_or_of_none_is_one_sample() -> None:
    assert step_peaks(run(step(8, 100, "0")).device()) == {8 * MiB: 108 * MiB}
    assert step_peaks(run(step(8, 100, "0")[:2]).device()) == {8 * MiB: 108 * MiB}


def test_steps_whose_inputs_were_not_told_are_none() -> None:
    assert step_peaks(run([Take(8 * MiB, calls=line(5)), "0"]).device()) == {}
