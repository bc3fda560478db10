"""Convolutions without cuDNN, as torch 2.11 asks for memory on an emulated A100."""

from __future__ import annotations

from typing import Any

import pytest

from tests.capture.programs import requests_of

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("layer", "shape", "columns"),
    [
        (lambda: torch.nn.Conv2d(32, 64, 3, padding=1), (16, 32, 96, 96), 10_616_832),
        (lambda: torch.nn.Conv1d(64, 128, 5, padding=2), (16, 64, 4000), 5_120_000),
        (lambda: torch.nn.Conv3d(8, 16, 3, padding=1), (2, 8, 24, 48, 48), 47_775_744),
        (lambda: torch.nn.ConvTranspose2d(64, 32, 4, 2, 1), (8, 64, 48, 48), 4_718_592),
        (lambda: torch.nn.Conv2d(16, 16, 3, padding=2, dilation=2), (8, 16, 96, 96), 5_308_416),
        (lambda: torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False), (8, 3, 224, 224), 7_375_872),
    ],
    ids=["2d", "1d", "3d", "transposed", "dilated", "strided"],
)
def test_one_image_at_a_time_is_laid_out_in_columns(layer: Any, shape: tuple[int, ...], columns: int) -> None:
    forward = _forward(layer, shape)
    both = _forward(layer, shape, is_trained=True)
    assert columns in forward
    assert both.count(columns) > forward.count(columns)


def test_kernels_of_one_element_and_by_depth_need_no_columns() -> None:
    assert _forward(lambda: torch.nn.Conv2d(64, 64, 1), (8, 64, 56, 56)) == [6_422_528]
    assert _forward(lambda: torch.nn.Conv2d(64, 64, 3, padding=1, groups=64), (16, 64, 96, 96)) == [37_748_736]


def test_groups_are_convolved_one_after_the_other() -> None:
    asked = _forward(lambda: torch.nn.Conv2d(64, 64, 3, padding=1, groups=4), (16, 64, 96, 96))
    assert asked.count(9_437_184) == 8  # the groups' inputs and outputs
    assert asked.count(5_308_416) == 4
    assert asked[-1] == 37_748_736


def _forward(layer: Any, shape: tuple[int, ...], *, is_trained: bool = False) -> list[int]:
    def run(network: Any, x: Any) -> None:
        out = network(x)
        if is_trained:
            out.sum().backward()

    made = lambda: torch.empty(shape, device="cuda", requires_grad=is_trained)  # noqa: E731
    with torch.set_grad_enabled(is_trained):
        return requests_of(run, lambda: layer().cuda(), made)
