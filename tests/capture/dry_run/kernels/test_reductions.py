"""What reductions take: the requests of torch 2.11's kernels on an emulated A100 of 108 multiprocessors."""

from __future__ import annotations

import math

import pytest

from memscope.capture.dry_run.kernels._reductions import Reduction, reduction_bytes

_SUM_FLOAT, _SUM_HALF, _MAX_HALF = (
    Reduction(4, 4, 4),
    Reduction(2, 4, 2, 8, accumulates_apart=True),
    Reduction(2, 2, 2),
)
_VARIANCE = Reduction(4, 16, 4, 2)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))


@pytest.mark.parametrize(
    ("kernel", "shape", "dims", "asked"),
    [
        (_SUM_FLOAT, (4000, 3072), (0,), [99_090_432, 96]),
        (_SUM_HALF, (4000, 3072), (0,), [99_090_432, 96]),
        (_MAX_HALF, (4000, 3072), (0,), [49_545_216, 96]),
        (_SUM_FLOAT, (4000, 3072), (1,), []),
        (_SUM_FLOAT, (64, 4096), (0,), []),
        (_SUM_FLOAT, (100_000, 8), (0,), [25_088, 4]),
        (_SUM_HALF, (8, 1 << 20), (1,), [1728, 32]),
        (_SUM_FLOAT, (16, 512, 768), (0, 1), [50_331_648, 24]),
        (_SUM_FLOAT, (1_000_003,), (0,), [492, 4]),
        (_MAX_HALF, (1_000_003,), (0,), [246, 4]),
        (_SUM_FLOAT, (4096, 4096), (0, 1), [1728, 4]),
        (_VARIANCE, (4096, 1024), (0,), [134_217_728, 32]),
        (_VARIANCE, (4, 1 << 20), (1,), [6912, 16]),
    ],
)
def test_blocks_that_share_an_output_have_partial_results(
    kernel: Reduction, shape: tuple[int, ...], dims: tuple[int, ...], asked: list[int]
) -> None:
    assert reduction_bytes(kernel, shape, _strides(shape), dims, 108) == asked


def test_strides_decide_what_is_reduced_along() -> None:
    assert reduction_bytes(_SUM_FLOAT, (3072, 4000), (1, 3072), (1,), 108) == [99_090_432, 96]  # a transposed tensor
    assert reduction_bytes(_SUM_FLOAT, (4000, 1536), (3072, 2), (0,), 108) == []  # every second column


def test_a_device_of_more_multiprocessors_shares_more() -> None:
    few, many = (reduction_bytes(_SUM_FLOAT, (1 << 24,), (1,), (0,), n)[0] for n in (108, 132))
    assert few < many


def test_a_tensor_beyond_32_bits_is_reduced_in_parts_one_after_the_other() -> None:
    assert reduction_bytes(_SUM_FLOAT, (1 << 30,), (1,), (0,), 108) == [[16_384, 4], [16_384, 4]]
    apart = reduction_bytes(_SUM_HALF, (1 << 32,), (1,), (0,), 108)
    assert apart[0] == 4  # half precision is added up apart between the parts


def test_nothing_is_taken_to_reduce_nothing() -> None:
    assert reduction_bytes(_SUM_FLOAT, (0, 5), (5, 1), (0,), 108) == []
