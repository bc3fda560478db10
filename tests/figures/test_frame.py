"""Level of detail keeps what matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.figures.frame import byte_axis, extreme_indices
from memscope.units import GiB, MiB
from tests.properties import examples

values = st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=400)


@examples(80)
@given(values=values, n_buckets=st.integers(1, 30), data=st.data())
def test_no_extreme_of_any_bucket_is_lost(values: list[int], n_buckets: int, data: st.DataObject) -> None:
    series = np.array(values, np.int64)
    begin = data.draw(st.integers(0, len(values) - 1))
    end = data.draw(st.integers(begin + 1, len(values)))
    chosen = extreme_indices([series], begin, end, n_buckets)
    assert np.all(np.diff(chosen) > 0)
    assert chosen[0] == begin
    assert chosen[-1] == end - 1
    assert len(chosen) <= 3 * n_buckets + 1
    width = -(-(end - begin) // n_buckets)
    for start in range(begin, end, width):
        bucket = series[start : min(start + width, end)]
        inside = series[chosen[(chosen >= start) & (chosen < start + width)]]
        assert inside.max() == bucket.max()
        assert inside.min() == bucket.min()


def test_a_short_range_is_returned_whole() -> None:
    assert extreme_indices([np.arange(100)], 10, 20, 5).tolist() == list(range(10, 20))


def test_indices_to_keep_are_kept_and_those_outside_left_out() -> None:
    chosen = extreme_indices([np.zeros(1000, np.int64)], 100, 900, 4, keep=[333, 5])
    assert 333 in chosen
    assert 5 not in chosen


@pytest.mark.parametrize(("size", "unit"), [(5, "B"), (3 * MiB, "MiB"), (81 * GiB, "GiB"), (0, "B")])
def test_byte_axis_has_few_round_ticks(size: int, unit: str) -> None:
    axis = byte_axis(size)
    assert axis.unit_name == unit
    assert 1 <= len(axis.tick_values) <= 7
    assert axis.tick_values[-1] * axis.unit_bytes <= max(size, 1)
