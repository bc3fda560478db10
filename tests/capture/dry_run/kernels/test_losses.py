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
        (lambda x, y: F.mse_loss(x, y, reduction="none"), [8_388_608]),
    ],
    ids=["mse", "smooth_l1", "huber", "none"],
)
def test_a_reduced_loss_is_made_element_by_element(loss: Callable[..., object], asked: list[int]) -> None:
    assert requests_of(loss, *_INPUTS) == asked


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
