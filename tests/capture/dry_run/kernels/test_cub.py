"""Temporary storage of CUB, as torch 2.11's kernels ask for it on an emulated A100 of 108 multiprocessors."""

from __future__ import annotations

import pytest

from memscope.capture.dry_run.kernels._cub import bits_of, permutation_bits, radix_bytes, scan_bytes, select_bytes


@pytest.mark.parametrize(
    ("n", "key", "value", "n_bits", "asked"),
    [
        (1 << 20, 4, 8, None, 12_941_823),
        (1 << 20, 8, 8, None, 17_074_687),
        (1 << 20, 2, 8, None, 14_954_751),
        (1 << 21, 2, 8, None, 25_440_511),
        (402_056, 4, 8, None, 4_967_935),
        (1 << 20, 8, 0, None, 8_686_079),
        (1 << 20, 8, 8, 5, 283_135),
        (4096, 8, 8, None, 84_479),
        (5000, 8, 8, 10, 87_039),
        (1 << 20, 8, 8, 43, 17_070_591),
        (1280, 8, 8, None, 1),
    ],
)
def test_sorting_by_digits_takes_a_second_copy_and_counts(
    n: int, key: int, value: int, n_bits: int | None, asked: int
) -> None:
    assert radix_bytes(n, key, value, 108, n_bits) == asked


def test_scans_take_the_state_of_each_tile() -> None:
    assert [scan_bytes(1 << 20, itemsize) for itemsize in (4, 8, 2)] == [5_375, 19_967, 3_071]
    assert [scan_bytes(n, 8) for n in (8_000, 32_000, 81_920)] == [1_279, 1_791, 2_559]
    assert [select_bytes(n) for n in (4_096, 32_768, 81_920)] == [1_279, 1_535, 1_791]


def test_keys_have_as_many_bits_as_the_largest_needs() -> None:
    assert [bits_of(n) for n in (0, 1, 16, 1000)] == [1, 1, 5, 10]
    assert [permutation_bits(n) for n in (1000, 1 << 20)] == [23, 43]
