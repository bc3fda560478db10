"""The allocator's arithmetic, on numbers that real PyTorch gave."""

from __future__ import annotations

import numpy as np
import pytest

from memscope._kernels.caching_rules import LARGE_SEGMENT_BYTES, UNLIMITED, round_size, segment_size, should_split

MiB = 1 << 20


def divisions(n: int) -> np.ndarray:
    return np.full(16, n, np.int64)


@pytest.mark.parametrize(
    ("requested", "plain", "segment", "by_4", "by_8"),
    [
        (1, 512, 2, 512, 512),
        (511, 512, 2, 512, 512),
        (513, 1024, 2, 1024, 1024),
        (1025, 1536, 2, 1536, 1536),
        (4097, 4608, 2, 5120, 4608),
        (65_537, 66_048, 2, 81_920, 73_728),
        (1_048_576, 1_048_576, 2, 1_048_576, 1_048_576),
        (1_048_577, 1_049_088, 20, 1_310_720, 1_179_648),
        (10_485_248, 10_485_248, 20, 10_485_760, 10_485_760),
        (10_485_249, 10_485_760, 10, 10_485_760, 10_485_760),
        (12_000_000, 12_000_256, 12, 12_582_912, 12_582_912),
        (20_971_521, 20_972_032, 22, 25_165_824, 23_068_672),
        (1_073_741_825, 1_073_742_336, 1026, 1_342_177_280, 1_207_959_552),
    ],
)
def test_rounding_and_segment_sizes(requested: int, plain: int, segment: int, by_4: int, by_8: int) -> None:
    assert round_size(requested, divisions(0)) == plain
    assert segment_size(plain, LARGE_SEGMENT_BYTES) == segment * MiB
    assert round_size(requested, divisions(4)) == by_4
    assert round_size(requested, divisions(8)) == by_8


@pytest.mark.parametrize(
    ("block", "rounded", "max_split", "expandable", "splits"),
    [
        (20 * MiB, 19 * MiB, UNLIMITED, False, False),  # the rest is exactly 1 MiB
        (20 * MiB, 19 * MiB - 512, UNLIMITED, False, True),
        (2 * MiB, 2 * MiB - 512, UNLIMITED, False, False),  # a large request: the rest is only 512
        (2 * MiB, MiB, UNLIMITED, False, True),
        (1024, 512, UNLIMITED, False, True),
        (512, 512, UNLIMITED, False, False),
        (20 * MiB, 20 * MiB - 512, UNLIMITED, True, True),
        (200 * MiB, 128 * MiB, 128 * MiB, False, False),
    ],
)
def test_the_split_rule(block: int, rounded: int, max_split: int, expandable: bool, splits: bool) -> None:
    assert should_split(block, rounded, max_split, expandable) == splits
