"""Operations that reduce, as torch 2.11's CUDA kernels ask for memory on an emulated A100."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memscope.capture.dry_run.kernels.scratch import Call, scratch_of
from tests.capture.programs import on_device, requests_of

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("reduce", "dtype", "asked"),
    [
        (lambda x: x.sum(0), "float32", [12_288, 99_090_432, 96]),
        (lambda x: x.sum(0), "bfloat16", [6_144, 99_090_432, 96]),
        (lambda x: x.mean(0), "float16", [6_144, 99_090_432, 96]),
        (lambda x: x.amax(0), "bfloat16", [6_144, 49_545_216, 96]),
        (lambda x: x.t().sum(1), "float32", [12_288, 99_090_432, 96]),
        (lambda x: x.sum(0, dtype=torch.float32), "bfloat16", [12_288, 99_090_432, 96]),
        (lambda x: torch.var_mean(x, 0), "float32", [12_288, 12_288, 396_361_728, 96]),
        (lambda x: torch.linalg.vector_norm(x), "bfloat16", [2, 1_728, 4]),
        (lambda x: torch.aminmax(x), "float32", [4, 4, 3_456, 4]),
        (lambda x: (x > 0).sum(), "float32", [12_288_000, 8, 98_304_000, 3_456, 4]),
        (lambda x: (x > 0).any(), "float32", [12_288_000, 1, 432, 4]),
    ],
    ids=["sum", "bf16", "mean", "amax", "transposed", "to-float", "var", "norm", "aminmax", "counted", "any"],
)
def test_a_reduction_takes_partial_results_and_copies_of_whole_numbers(
    reduce: Callable[[torch.Tensor], object], dtype: str, asked: list[int]
) -> None:
    assert requests_of(reduce, on_device(4000, 3072, dtype=dtype)) == asked


def test_rows_with_the_places_of_their_extremes_take_both() -> None:
    assert requests_of(lambda x: x.max(0), on_device(4096, 1024)) == [4_096, 8_192, 134_217_728, 32]
    assert requests_of(lambda x: x.argmax(0), on_device(4096, 1024)) == [8_192, 134_217_728, 32]


def test_zeros_are_counted_by_a_comparison_and_a_sum() -> None:
    asked = requests_of(lambda x: torch.count_nonzero(x, 0), on_device(4096, 1024))
    assert asked == [4_194_304, 8_192, 33_554_432, 67_108_864, 32]


def test_the_logarithm_of_summed_exponentials_makes_them() -> None:
    x, made = torch.empty(4, 1 << 20, device="meta"), torch.empty(4, device="meta")
    taken = scratch_of("logsumexp", Call(torch.ops.aten.logsumexp.default, (x, [1]), result=made))
    assert taken is not None
    assert (taken.before, taken.after) == ([16], [[1_728, 16], [16, 4], [16_777_216, 16, [1_728, 16]]])


def test_the_gradient_of_a_bias_is_a_reduction() -> None:
    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
        out = torch.nn.functional.linear(x, weight, bias)
        out.backward(torch.empty_like(out))

    assert 100_663_296 in requests_of(run, on_device(4096, 768), on_device(3072, 768), on_device(3072, grad=True))
