"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UsageError
from memscope.units import format_alike, format_bytes, format_fraction, format_items, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24_000_000_000),
        ("80GiB", 85_899_345_920),
        ("512 MiB", 536_870_912),
        ("1048576", 1_048_576),
        ("1.5 KiB", 1536),
        ("2g", 2 << 30),
    ],
)
def test_sizes_are_read_in_every_accepted_form(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e9", "12 parsecs", "1.2.3", "99999999999999999999"])
def test_what_is_not_a_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"size|larger"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (80 << 30, "80.0 GiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (-(3 << 20), "-3.0 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes_are_printed_with_one_decimal(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(0, 1 << 50))
def test_printing_then_reading_loses_at_most_the_rounding(size: int) -> None:
    text = format_bytes(size)
    unit = parse_bytes("1 " + text.split()[1])
    assert abs(parse_bytes(text) - size) <= unit / 20 + 1


def test_fractions_are_printed_as_percent() -> None:
    assert format_fraction(0.3817) == "38.2 %"


def test_one_thing_is_no_plural() -> None:
    assert [format_items(n, "request") for n in (0, 1, 1234)] == ["0 requests", "1 request", "1,234 requests"]


@pytest.mark.parametrize(
    ("sizes", "texts"),
    [
        (((11 << 30) // 10, 1020 << 20), ("1.10 GiB", "1.00 GiB")),
        ((3 << 30, 2 << 30), ("3.0 GiB", "2.0 GiB")),
        (((39 << 30) + (8 << 20), 39 << 30), ("39.01 GiB", "39.00 GiB")),
        ((80 << 30, 4 << 20), ("80.0 GiB", "4.0 MiB")),
        ((5 << 20, 5 << 20), ("5.0 MiB", "5.0 MiB")),
        ((2048, 0), ("2.0 KiB", "0 B")),
        ((700, 300), ("700 B", "300 B")),
    ],
)
def test_sizes_that_are_compared_have_one_unit_that_tells_them_apart(
    sizes: tuple[int, ...], texts: tuple[str, ...]
) -> None:
    assert format_alike(*sizes) == texts
