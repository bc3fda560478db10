"""Products whose gradients PyTorch computes in another way for tensors of a class of their own, as a dry run's are.

Of those it cannot ask whether an element is zero, and so takes formulas that are right for zeros, too, with several
times the memory. Here they have the gradients of tensors in which nothing is zero, as seldom anything is.

Source: ``torch/csrc/autograd/FunctionsManual.cpp`` (``prod_backward``, ``cumprod_backward``), read at 2.11.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

_Answer = Callable[..., Any]


def _prod(tensor: Any, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    if options or not _is_differentiated(tensor) or not (dim is None or isinstance(dim, int)):
        return None
    return _functions()[0].apply(tensor, dim, keepdim)


def _cumprod(tensor: Any, dim: Any = None, **options: Any) -> Any:
    if options or not _is_differentiated(tensor) or not isinstance(dim, int):
        return None
    return _functions()[1].apply(tensor, dim)


def _is_differentiated(tensor: Any) -> bool:
    import torch

    return bool(tensor.requires_grad and tensor.is_floating_point() and tensor.dim() and torch.is_grad_enabled())


@lru_cache(maxsize=1)
def _functions() -> tuple[Any, Any]:
    import torch

    class Prod(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: Any, dim: int | None, keepdim: bool) -> Any:
            ops = torch.ops.aten.prod
            result = ops.default(tensor) if dim is None else ops.dim_int(tensor, dim, keepdim)
            ctx.save_for_backward(tensor, result)
            ctx.dim, ctx.is_squeezed = dim, dim is not None and not keepdim
            return result

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            (tensor, result), (grad,) = ctx.saved_tensors, grads
            zeros = tensor == 0
            counts = None if ctx.dim is None else zeros.sum(ctx.dim, keepdim=True)
            if counts is not None:
                counts.sum()
            if ctx.is_squeezed:
                grad, result = grad.unsqueeze(ctx.dim), result.unsqueeze(ctx.dim)
            return grad * (result / tensor), None, None

    class Cumprod(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: Any, dim: int) -> Any:
            result = torch.ops.aten.cumprod.default(tensor, dim)
            ctx.save_for_backward(tensor, result)
            ctx.dim = dim
            return result

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            (tensor, result), (grad,) = ctx.saved_tensors, grads
            if tensor.size(ctx.dim) == 1:
                return grad, None
            weighted = result * grad
            zeros = tensor == 0
            zeros.any()
            return _from_the_end(weighted, ctx.dim).div(tensor), None

    return Prod, Cumprod


def _from_the_end(tensor: Any, dim: int) -> Any:
    """Sums of an element and all after it; what is on the way is held to the end, as in C++."""
    flipped = tensor.flip(dim)
    summed = flipped.cumsum(dim)
    return summed.flip(dim)


PRODUCTS: dict[str, _Answer] = {"prod": _prod, "cumprod": _cumprod}
"""What stands in for the functions and methods of these names, where it has an answer."""
