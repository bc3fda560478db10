"""Convolutions without cuDNN, as torch 2.11 asks for memory on an emulated A100."""

from __future__ import annotations

from typing import Any

import pytest

from tests.capture.programs import on_device, requests_of

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


def test_gradients_of_groups_are_kept_until_they_are_joined() -> None:
    layers = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3, padding=1, groups=4) for _ in "ab"))
    asked = _forward(lambda: layers, (16, 64, 96, 96), is_trained=True)
    of_a_group = [9_437_184, 9_437_184, 9_437_184, 5_308_416, 8_519_680, 64, 1152, 64, 9216, 9_437_184]
    first = next(i for i in range(len(asked)) if asked[i : i + len(of_a_group)] == of_a_group)
    assert asked[first:].count(9216) == 8
    # The last layer's input has a gradient; the first layer's has none, and its columns are for the weights alone.
    joined = [37_748_736, 36_864, 256]
    assert any(asked[i : i + 3] == joined for i in range(first, len(asked)))
    assert asked[-2:] == joined[1:]


_F = torch.nn.functional
_IMAGES = (8, 32, 128, 128)


@pytest.mark.parametrize(
    ("work", "asked"),
    [
        (lambda x: _F.max_pool2d(x, 2), [16_777_216, 4_194_304]),
        (lambda x: _F.avg_pool2d(x, 2), [16_777_216, 4_194_304]),
        (lambda x: _F.interpolate(x, scale_factor=2.0, mode="nearest"), [16_777_216, 67_108_864]),
        (lambda x: _F.interpolate(x, scale_factor=2.0, mode="bilinear"), [16_777_216, 67_108_864]),
        (lambda x: _F.interpolate(x, scale_factor=2.0, mode="bicubic"), [16_777_216, 67_108_864]),
        (lambda x: _F.pad(x, (1, 1, 1, 1), "reflect"), [16_777_216, 17_305_600]),
        (lambda x: _F.pad(x, (1, 1, 1, 1), "replicate"), [16_777_216]),
        (lambda x: _F.unfold(x, 3), [146_313_216, 146_313_216]),
    ],
    ids=["max", "average", "nearest", "bilinear", "bicubic", "reflected", "replicated", "columns"],
)
def test_the_gradient_of_a_sum_is_made_dense_for_images(work: Any, asked: list[int]) -> None:
    def of_sum(x: torch.Tensor) -> None:
        made = work(x)
        torch.autograd.grad(made, x, torch.ones((), device="cuda").expand(made.shape))

    forward = requests_of(work, on_device(*_IMAGES, grad=True))
    one = [4]
    assert requests_of(of_sum, on_device(*_IMAGES, grad=True)) == [*forward, *one, *asked]


def test_columns_begin_with_memory_like_what_they_are_made_of() -> None:
    assert requests_of(lambda x: _F.unfold(x, 3), on_device(*_IMAGES)) == [16_777_216, 146_313_216]

    def fold(columns: torch.Tensor) -> None:
        before = torch.cuda.memory_allocated()
        image = _F.fold(columns, (128, 128), 3)
        assert image.shape == _IMAGES
        assert torch.cuda.memory_allocated() - before == 146_800_640  # the columns' size, in whole segments' blocks

    assert requests_of(fold, on_device(8, 288, 15_876)) == [146_313_216]


def _forward(layer: Any, shape: tuple[int, ...], *, is_trained: bool = False) -> list[int]:
    def run(network: Any, x: Any) -> None:
        out = network(x)
        if is_trained:
            out.sum().backward()

    made = lambda: torch.empty(shape, device="cuda", requires_grad=is_trained)  # noqa: E731
    with torch.set_grad_enabled(is_trained):
        return requests_of(run, lambda: layer().cuda(), made)
