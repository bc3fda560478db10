"""Colours: every row has one, and text reads well on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.attribution.ledger import ROW_MEANINGS
from memscope.errors import UsageError
from memscope.figures.theme import DARK, LIGHT, THEMES, byte_axis, extreme_indices, theme_named
from memscope.trace.categories import Category
from memscope.units import GiB, MiB
from tests.properties import examples


def luminance(color: str) -> float:
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_every_ledger_row_has_a_colour_and_readable_ink(theme: object) -> None:
    assert theme in (LIGHT, DARK)
    for name in [*(category.label for category in Category), *ROW_MEANINGS]:
        color = theme.color(name)  # type: ignore[attr-defined]
        assert contrast(theme.ink_on(name), color) >= 4.5, name  # type: ignore[attr-defined]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_reads_well_on_the_surface(theme: object) -> None:
    for ink in (theme.ink, theme.muted, theme.red, theme.amber):  # type: ignore[attr-defined]
        assert contrast(ink, theme.surface) >= 4.5  # type: ignore[attr-defined]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="'pink'"):
        theme_named("pink")


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
