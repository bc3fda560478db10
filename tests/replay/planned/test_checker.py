"""The proof of a plan: it finds every overlap in time and address, and nothing else."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import InvariantError
from memscope.replay.planned._checker import check_plan
from tests.properties import examples

UNIT = 512


def columns(*rows):
    """Start, end, size and offset of rows given as (start, end, size, offset), the last two in units."""
    start, end, size, offset = np.array(rows, np.int64).reshape(-1, 4).T
    return start, end, size * UNIT, offset * UNIT


def test_plan_of_nothing_is_sound():
    check_plan(*columns(), 0)


def test_places_may_touch_in_address_and_in_time():
    # 0 and 1 are neighbours all along; 2 starts at the event at which 0 ends, in its place.
    check_plan(*columns((-1, 5, 2, 0), (0, 9, 1, 2), (5, 9, 2, 0)), 3 * UNIT)


def test_overlap_names_both_allocations_and_the_event():
    with pytest.raises(InvariantError, match=r"0 in \[0, 1,024\) and 2 in \[512, 1,536\) overlap .* at event 4"):
        check_plan(*columns((-1, 5, 2, 0), (0, 9, 1, 3), (4, 9, 2, 1)), 4 * UNIT)


@pytest.mark.parametrize("inner", [(2, 3, 1, 4), (2, 3, 9, 0), (1, 9, 9, 0)])
def test_place_inside_another_or_around_it_is_an_overlap(inner):
    with pytest.raises(InvariantError, match="overlap"):
        check_plan(*columns((1, 9, 9, 0), inner), 9 * UNIT)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((0, 2, 2, 3), "is not inside a plan of 2,048 bytes"),
        ((0, 2, 2, -1), "is not inside"),
        ((0, 2, 1 << 53, 1), "is not inside"),
        ((0, 2, 0, 0), "has no size"),
        ((2, 2, 1, 0), "ends no later than it starts"),
    ],
)
def test_allocation_that_cannot_be_is_named(row, reason):
    with pytest.raises(InvariantError, match=f"allocation 1 .*{reason}"):
        check_plan(*columns((0, 1, 1, 0), row), 4 * UNIT)


def test_offset_between_alignments_is_refused():
    start, end, size_bytes, offset = columns((0, 2, 1, 0))
    with pytest.raises(InvariantError, match="not aligned to 512"):
        check_plan(start, end, size_bytes, offset + 256, 4 * UNIT)
    with pytest.raises(InvariantError, match="not aligned to 2,048"):
        check_plan(start, end, size_bytes, offset + UNIT, 4 * UNIT, alignment_bytes=2048)


def test_columns_of_different_lengths_are_refused():
    start, end, size_bytes, offset = columns((0, 2, 1, 0))
    with pytest.raises(InvariantError, match="differ in length"):
        check_plan(start, end, size_bytes, offset[:0], UNIT)


def overlaps(a, b):
    return a[0] < b[1] and b[0] < a[1] and a[3] < b[3] + b[2] and b[3] < a[3] + a[2]


@st.composite
def placed_rows(draw):
    n = draw(st.integers(1, 9))
    rows = []
    for _ in range(n):
        start = draw(st.integers(-1, 12))
        end = start + draw(st.integers(1, 6))
        rows.append((start, end, draw(st.integers(1, 4)), draw(st.integers(0, 16))))
    return rows


@examples(300)
@given(placed_rows())
def test_verdict_is_that_of_comparing_every_pair(rows):
    is_sound = not any(overlaps(a, b) for i, a in enumerate(rows) for b in rows[:i])
    if is_sound:
        check_plan(*columns(*rows), 20 * UNIT)
    else:
        with pytest.raises(InvariantError, match="overlap"):
            check_plan(*columns(*rows), 20 * UNIT)


def test_many_allocations_alive_at_once_are_checked_quickly():
    # Half of them never end, each below the one before: the order that is worst for a sorted list.
    n = 200_000
    start = np.arange(n)
    end = np.where(start % 2, start + 1, 2 * n)
    offset = (n - start) * UNIT
    size_bytes = np.full(n, UNIT)
    check_plan(start[:9], end[:9], size_bytes[:9], offset[:9], (n + 1) * UNIT)
    began = time.perf_counter()
    check_plan(start, end, size_bytes, offset, (n + 1) * UNIT)
    assert time.perf_counter() - began < 5
