"""Sorted ranges against a set of unit cells, and against a dictionary when there are many chunks of them."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memscope._kernels.ranges import CHUNK_ROWS, find_range, in_order, insert_range, make_ranges, remove_range
from tests.properties import examples

operations = st.lists(
    st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=40
)


@examples(60)
@given(operations=operations)
def test_ranges_hold_exactly_the_cells_put_in_and_merge_only_equal_keys(operations: list) -> None:
    ranges = make_ranges(64)
    cells: dict[int, int] = {}
    for inserts, start, length, key in operations:
        wanted = range(start, start + length)
        if inserts:
            fits = not any(cell in cells for cell in wanted)
            assert insert_range(ranges, start, start + length, key) == fits
            if fits:
                cells.update(dict.fromkeys(wanted, key))
        else:
            keys = {cells.get(cell) for cell in wanted}
            fits = len(keys) == 1 and None not in keys
            assert remove_range(ranges, start, start + length) == fits
            if fits:
                for cell in wanted:
                    del cells[cell]
        starts, ends, held = in_order(ranges)
        assert {c: int(k) for s, e, k in zip(starts, ends, held, strict=True) for c in range(s, e)} == cells
        touching = ends[:-1] == starts[1:]
        assert not np.any(touching & (held[:-1] == held[1:]))
        for cell in range(38):
            found = find_range(ranges, cell)
            assert (found >= 0) == (cell in cells)


def check_chunks(ranges) -> None:
    """The directory tells where each chunk begins, and no two neighbouring chunks should have been joined."""
    n_chunks = int(ranges.n[1])
    counts = ranges.n_rows[ranges.order[:n_chunks]]
    assert sorted(ranges.order.tolist()) == list(range(len(ranges.order)))
    assert int(counts.sum()) == int(ranges.n[0])
    assert np.all((counts >= 1) & (counts <= CHUNK_ROWS))
    assert np.all(counts[:-1] + counts[1:] > CHUNK_ROWS * 3 // 4)
    assert np.array_equal(ranges.first[:n_chunks], ranges.start[ranges.order[:n_chunks] * CHUNK_ROWS])


def test_many_chunks_of_ranges_come_and_go_as_in_a_dictionary() -> None:
    rng = random.Random(3)
    n = 4 * CHUNK_ROWS
    ranges = make_ranges(n)
    held: dict[int, int] = {}
    slots = list(range(n))
    rng.shuffle(slots)
    for start in [10 * slot for slot in slots]:
        assert insert_range(ranges, start, start + 5, start % 3)
        held[start] = start + 5
    check_chunks(ranges)
    assert int(ranges.n[1]) > 4
    rng.shuffle(slots)
    for step, start in enumerate(10 * slot for slot in slots):
        if step % 3 == 0:
            assert remove_range(ranges, start, start + 5)
            del held[start]
        elif step % 3 == 1:
            assert remove_range(ranges, start, start + 2)
            held[start + 2] = held.pop(start)
        if step % 64 == 0:
            check_chunks(ranges)
            starts, ends, _ = in_order(ranges)
            assert dict(zip(starts.tolist(), ends.tolist(), strict=True)) == held
            assert np.all(np.diff(starts) > 0)
    for start, end in list(held.items()):
        assert find_range(ranges, end - 1) >= 0
        assert find_range(ranges, end) == -1
        assert remove_range(ranges, start, end)
    assert ranges.n.tolist() == [0, 0]
    assert insert_range(ranges, 0, 1, 0)
    assert [column.tolist() for column in in_order(ranges)] == [[0], [1], [0]]
