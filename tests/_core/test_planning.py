"""Placing by known lifetimes, against slow twins that compare every pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope._core import planning as core
from tests.properties import examples


@st.composite
def lifetimes(draw, max_rows=12):
    """Start, end (positions below 24), and size, in order of start."""
    n = draw(st.integers(1, max_rows))
    start = sorted(draw(st.lists(st.integers(0, 15), min_size=n, max_size=n)))
    length = draw(st.lists(st.integers(1, 8), min_size=n, max_size=n))
    size = draw(st.lists(st.integers(1, 6), min_size=n, max_size=n))
    return np.array(start), np.array(start) + np.array(length), np.array(size)


def meets(start, end, i, j):
    return start[i] < end[j] and start[j] < end[i]


def test_runs_of_allocs_between_frees_are_one_epoch():
    # positions: alloc 0, alloc 1, free of 0 at 2, alloc at 3, free of 1 and alloc at 4.
    start, end, n_epochs = core.number_epochs(np.array([0, 1, 3, 4]), np.array([2, 4, 6, 6]), 7)
    assert (start.tolist(), end.tolist(), n_epochs) == ([0, 0, 1, 2], [1, 2, 3, 3], 3)


@examples(200)
@given(lifetimes())
def test_epochs_overlap_where_positions_do_and_reach_the_same_peak(case):
    start, end, size = case
    start_epoch, end_epoch, n_epochs = core.number_epochs(start, end, 24)
    for i in range(len(start)):
        for j in range(i):
            assert meets(start, end, i, j) == meets(start_epoch, end_epoch, i, j)
    load = core.load_of_epochs(start_epoch, end_epoch, size, n_epochs)
    at_positions = [int(size[(start <= p) & (end > p)].sum()) for p in range(24)]
    assert load.max() == max(at_positions)
    peak = core.peak_load_of_rows(load, start_epoch, end_epoch)
    assert peak.tolist() == [max(at_positions[s:e]) for s, e in zip(start, end, strict=True)]


def lowest_place(start, end, size, floor, offset, i):
    """Try every end of a placed row that meets row i, and the floor, lowest first."""
    met = [j for j in range(len(start)) if offset[j] >= 0 and j != i and meets(start, end, i, j)]
    for place in sorted({floor[i], *(offset[j] + size[j] for j in met)}):
        if place >= floor[i] and all(place + size[i] <= offset[j] or offset[j] + size[j] <= place for j in met):
            return place
    raise AssertionError("above all others there is always room")


@examples(200)
@given(lifetimes(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_each_row_gets_the_lowest_place_free_in_its_lifetime(case, stride, random):
    start, end, size = case
    n = len(start)
    floor = np.array([random.randrange(4) for _ in range(n)])
    order = np.array(random.sample(range(n), n))
    expected = np.full(n, -1)
    for i in order:
        expected[i] = lowest_place(start, end, size, floor, expected, i)
    placer = core.OrderedPlacer(start, end, size, floor, stride)
    offset, peak, n_placed, _ = placer.place(order, 1 << 30, 1 << 30)
    assert offset.tolist() == expected.tolist()
    assert (peak, n_placed) == ((expected + size).max(), n)


def test_placing_stops_when_the_work_or_the_room_is_spent():
    start, end, size = np.zeros(5, np.int64), np.ones(5, np.int64), np.full(5, 2)
    placer = core.OrderedPlacer(start, end, size, np.zeros(5, np.int64), 16)
    order = np.array([4, 3, 2, 1, 0])
    offset, peak, n_placed, _ = placer.place(order, 5, 1 << 30)
    assert (offset.tolist(), peak, n_placed) == ([-1, -1, 4, 2, 0], 6, 3)
    _, _, n_placed, work = placer.place(order, 1 << 30, 0)
    assert n_placed == 1
    assert work > 0


@pytest.mark.parametrize(("is_best_fit", "place"), [(False, 0), (True, 5)])
def test_free_ranges_are_taken_by_first_or_by_best_fit(is_best_fit, place):
    # Sizes 4 1 2 1 in a row; the 4 and the 2 end; a row of 2 fits both holes, the second exactly.
    start, end = np.array([0, 0, 0, 0, 1]), np.array([1, 2, 1, 2, 2])
    size, by_end = np.array([4, 1, 2, 1, 2]), np.argsort(end, kind="stable")
    offset, peak, _ = core.place_in_time(start, end, size, by_end, is_best_fit, 1 << 30)
    assert offset.tolist() == [0, 4, 5, 7, place]
    assert peak == 8


@examples(200)
@given(lifetimes())
def test_first_fit_in_time_takes_the_lowest_place_that_is_free_then(case):
    start, end, size = case
    expected = np.full(len(start), -1)
    for i in range(len(start)):
        expected[i] = lowest_place(start, end, size, np.zeros_like(start), expected, i)
    offset, peak, _ = core.place_in_time(start, end, size, np.argsort(end, kind="stable"), False, 1 << 30)
    assert offset.tolist() == expected.tolist()
    assert peak == (expected + size).max()


@examples(200)
@given(lifetimes())
def test_best_fit_in_time_never_overlaps_and_gives_up_when_the_work_is_spent(case):
    start, end, size = case
    by_end = np.argsort(end, kind="stable")
    offset, peak, _ = core.place_in_time(start, end, size, by_end, True, 1 << 30)
    for i in range(len(start)):
        for j in range(i):
            if meets(start, end, i, j):
                assert offset[i] + size[i] <= offset[j] or offset[j] + size[j] <= offset[i]
    assert peak == (offset + size).max()
    assert core.place_in_time(start, end, size, by_end, True, 0)[1] == -1


@examples(200)
@given(lifetimes(), st.integers(1, 3))
def test_slots_of_a_class_are_as_many_as_its_rows_alive_at_once(case, n_classes):
    start, end, size = case
    size_class = size % n_classes
    slot, n_slots = core.share_slots(start, end, np.argsort(end, kind="stable"), size_class, n_classes)
    for c in range(n_classes):
        mine = size_class == c
        alive = [int(np.count_nonzero(mine & (start <= p) & (end > p))) for p in range(24)]
        assert n_slots[c] == max(alive)
    for i in range(len(start)):
        for j in range(i):
            if meets(start, end, i, j) and size_class[i] == size_class[j]:
                assert slot[i] != slot[j]


def test_rows_out_of_order_and_rows_that_are_not_there_are_refused():
    start, end, size = np.array([1, 0]), np.array([2, 2]), np.array([1, 1])
    with pytest.raises(ValueError, match="in order of their start"):
        core.OrderedPlacer(start, end, size, size, 1)
    with pytest.raises(ValueError, match="stride of 0"):
        core.OrderedPlacer(end, end + 1, size, size, 0)
    with pytest.raises(IndexError, match="index 2 of an array of 2"):
        core.OrderedPlacer(end, end + 1, size, size, 1).place(np.array([2]), 1 << 30, 1 << 30)
    with pytest.raises(IndexError, match="index 5 of an array of 2"):
        core.place_in_time(end, end + 1, size, np.array([5, 0]), False, 1 << 30)
    with pytest.raises(IndexError):
        core.number_epochs(start, end, 2)
