"""Adding up at indices, as torch 2.11 asks for memory on an emulated A100."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.capture.programs import on_device, requests_of

torch = pytest.importorskip("torch")

_SORTED = [40_000] * 5


@pytest.mark.parametrize(
    ("pick", "shape", "asked"),
    [
        (lambda x, i: x[i], (1000, 64), [1_280_000, 1_280_000, 256_000, *_SORTED, 87_039]),
        (lambda x, i: x[:, i], (300, 400, 16), [96_000_000, 96_000_000, 7_680_000, *_SORTED, 89_087]),
        (lambda x, i: x[i, i], (300, 400, 16), [320_000, 320_000, 7_680_000, *_SORTED, 40_000, 40_000, 89_087]),
    ],
    ids=["rows", "columns", "both"],
)
def test_the_gradient_of_what_was_picked_sorts_the_indices(
    pick: Callable[..., torch.Tensor], shape: tuple[int, ...], asked: list[int]
) -> None:
    def run(x: torch.Tensor, indices: torch.Tensor) -> None:
        picked = pick(x, indices)
        torch.autograd.grad(picked, x, torch.empty_like(picked))

    assert requests_of(run, on_device(*shape, grad=True), on_device(5000, dtype="int64")) == asked


def test_writing_at_indices_sorts_nothing() -> None:
    def run(x: torch.Tensor, indices: torch.Tensor) -> None:
        x.index_put_((indices,), x[:1])

    assert requests_of(run, on_device(1000, 64), on_device(5000, dtype="int64")) == []


def test_a_mean_of_what_is_scattered_counts_it() -> None:
    def asked(reduce: str) -> list[int]:
        given = on_device(2048, 2048), on_device(2048, 2048, dtype="int64"), on_device(2048, 2048)
        return requests_of(lambda x, places, src: x.scatter_reduce(1, places, src, reduce), *given)

    assert asked("sum") == [16_777_216]
    assert asked("mean") == [16_777_216, 16_777_216, 16_777_216, 4_194_304]
