"""Losses that are made element by element and then reduced: into memory of all elements, which the result keeps.

Source: ``aten/src/ATen/native/BinaryOps.cpp`` (``mse_loss``, ``smooth_l1_loss``), ``Loss.cpp`` and
``native/cuda/Loss.cu``, read at 2.11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, Sizes, nbytes
from memscope.capture.dry_run.kernels._reducing import accumulating, dense_like
from memscope.capture.dry_run.kernels._reductions import reduction_bytes

_MEAN = 1


def _elements(call: Call) -> tuple[int, Sizes]:
    """Bytes of the elements' losses, and what reducing them takes."""
    tensor = call.args[0]
    itemsize = tensor.element_size()
    dims = range(tensor.dim())
    found = reduction_bytes(accumulating(itemsize), tensor.shape, dense_like(tensor), dims, call.n_multiprocessors)
    return tensor.numel() * itemsize, found


def _structured(call: Call) -> Scratch:
    """The result is allocated for all elements, and the elements' losses beside it."""
    if not call.get("reduction", _MEAN):
        return Scratch([])
    n_bytes, reduced = _elements(call)
    return Scratch([n_bytes, reduced], result_bytes=n_bytes)


def _resized(call: Call) -> Scratch:
    """The elements' losses, which are made the result by a copy of their mean."""
    if not call.get("reduction", _MEAN):
        return Scratch([])
    n_bytes, reduced = _elements(call)
    return Scratch([call.args[0].element_size(), reduced], result_bytes=n_bytes)


def _reduced(call: Call) -> Scratch:
    """The elements' losses, released when they are reduced."""
    if not call.get("reduction", _MEAN):
        return Scratch([])
    n_bytes, reduced = _elements(call)
    return Scratch(reduced, before=[n_bytes])


def _soft_margin_backward(call: Call) -> Scratch:
    """Powers of the products, made of two other tensors, and kept beside the gradient."""
    n_bytes = nbytes(call.args[1])
    return Scratch([], before=[[n_bytes] * 3, n_bytes])


def _like_input(args: tuple[Any, ...]) -> Any:
    return args[1].new_empty(tuple(args[1].shape))


SHAPES: dict[str, Callable[[tuple[Any, ...]], Any]] = dict.fromkeys(
    ("multi_margin_loss_backward", "multilabel_margin_loss_backward"), _like_input
)
"""The gradients that PyTorch has no rule of shapes for."""
KERNELS: dict[str, Kernel] = {
    **dict.fromkeys(("mse_loss", "smooth_l1_loss"), _structured),
    **dict.fromkeys(("binary_cross_entropy", "soft_margin_loss"), _resized),
    "soft_margin_loss_backward": _soft_margin_backward,
    "huber_loss": _reduced,
}
