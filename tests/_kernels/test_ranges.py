"""Sorted ranges against a set of unit cells."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memscope._kernels.ranges import find_range, insert_range, make_ranges, remove_range

operations = st.lists(
    st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
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
        n = int(ranges.n[0])
        starts, ends, held = ranges.start[:n], ranges.end[:n], ranges.key[:n]
        assert {c: int(k) for s, e, k in zip(starts, ends, held, strict=True) for c in range(s, e)} == cells
        touching = ends[:-1] == starts[1:]
        assert not np.any(touching & (held[:-1] == held[1:]))
        for cell in range(38):
            found = find_range(ranges, cell)
            assert (found >= 0) == (cell in cells)
