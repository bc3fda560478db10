"""Gradients of products, as torch 2.11 asks for their memory on an emulated A100."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.capture.programs import dry_run, requests_of

torch = pytest.importorskip("torch")
_ALL = 1 << 22  # bytes of the input


def _gradient_of(product: Callable[[Any], Any]) -> list[int]:
    def run() -> None:
        x = torch.empty(1024, 1024, device="cuda", requires_grad=True)
        made = product(x)
        torch.autograd.grad(made, x, torch.empty_like(made))

    return requests_of(run)


@pytest.mark.parametrize("product", [lambda x: x.prod(-1), lambda x: torch.prod(x, 1, keepdim=True)])
def test_the_product_along_a_dimension_is_divided_by_each_element(product: Callable[[Any], Any]) -> None:
    # The input; which elements are zero, and a number of eight bytes for each while they are counted; two results.
    asked = [n for n in _gradient_of(product) if n >= 1 << 20]
    assert asked == [_ALL, _ALL // 4, 2 * _ALL, _ALL, _ALL]


def test_the_product_of_all_is_divided_by_each_element() -> None:
    assert [n for n in _gradient_of(lambda x: x.prod()) if n >= 1 << 20] == [_ALL, _ALL // 4, _ALL, _ALL]


def test_a_running_product_is_summed_from_its_end() -> None:
    # The input, the result, what stands for its gradient, their product, which elements are zero, and three sums.
    asked = [n for n in _gradient_of(lambda x: x.cumprod(-1)) if n >= 1 << 20]
    assert asked == [_ALL, _ALL, _ALL, _ALL, _ALL // 4, _ALL, _ALL, _ALL, _ALL]


def test_products_are_what_they_are_elsewhere() -> None:
    with dry_run():
        x = torch.empty(4, 6, device="cuda", requires_grad=True)
        assert x.prod().shape == ()
        assert x.prod(1, dtype=torch.float64).dtype == torch.float64
        assert torch.cumprod(x.detach(), 0).grad_fn is None
        assert torch.func.grad(lambda given: given.prod())(x.detach()).shape == (4, 6)
        assert torch.arange(6, device="cuda").prod().dtype == torch.int64
    assert torch.tensor([2.0, 3.0]).prod().item() == 6.0
