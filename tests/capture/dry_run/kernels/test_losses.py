"""Losses that keep memory for every element, as torch 2.11 asks for it on an emulated A100."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.capture.programs import on_device, requests_of

torch = pytest.importorskip("torch")
F = torch.nn.functional

_INPUTS = (on_device(1024, 2048), on_device(1024, 2048))


@pytest.mark.parametrize(
    ("loss", "asked"),
    [
        (F.mse_loss, [8_388_608, 8_388_608, 1_024, 4]),
        (F.smooth_l1_loss, [8_388_608, 8_388_608, 1_024, 4]),
        (F.huber_loss, [8_388_608, 4, 1_024, 4]),
        (F.soft_margin_loss, [8_388_608, 4, 1_024, 4]),
        (lambda x, y: F.mse_loss(x, y, reduction="none"), [8_388_608]),
    ],
    ids=["mse", "smooth_l1", "huber", "soft margin", "none"],
)
def test_a_reduced_loss_is_made_element_by_element(loss: Callable[..., object], asked: list[int]) -> None:
    assert requests_of(loss, *_INPUTS) == asked


def test_the_gradient_of_a_soft_margin_takes_powers_of_products() -> None:
    def run(x: torch.Tensor, y: torch.Tensor) -> None:
        loss = F.soft_margin_loss(x, y)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(loss, x)
        assert torch.cuda.max_memory_allocated() - before == 3 * 8_388_608 + 512

    requests_of(run, on_device(1024, 2048, grad=True), on_device(1024, 2048))


def test_the_loss_keeps_the_memory_of_its_elements() -> None:
    def run(x: torch.Tensor, y: torch.Tensor) -> None:
        before = torch.cuda.memory_allocated()
        loss = F.mse_loss(x, y)
        assert torch.cuda.memory_allocated() - before == 8_388_608
        assert loss.shape == ()
        del loss
        assert torch.cuda.memory_allocated() == before

    requests_of(run, *_INPUTS)


def test_the_binary_loss_is_copied_into_what_it_had() -> None:
    assert requests_of(F.binary_cross_entropy, *_INPUTS)[0] == 8_388_608
