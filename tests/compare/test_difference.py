"""What a row of a difference says became of it."""

from __future__ import annotations

import pytest

from memscope.compare.difference import Change, Row


@pytest.mark.parametrize(
    ("a_bytes", "b_bytes", "n_a", "n_b", "change"),
    [
        (0, 5, 0, 1, Change.NEW),
        (5, 0, 1, 0, Change.GONE),
        (5, 7, 1, 1, Change.GROWN),
        (7, 5, 2, 1, Change.SHRUNK),
        (5, 5, 1, 2, Change.SAME),
        (0, 0, 0, 1, Change.NEW),
    ],
)
def test_a_row_says_what_became_of_it(a_bytes: int, b_bytes: int, n_a: int, n_b: int, change: Change) -> None:
    row = Row("fc.weight", "weights", a_bytes, b_bytes, n_a, n_b, None)
    assert row.change is change
    assert row.delta_bytes == b_bytes - a_bytes
    assert not row.is_rounding
