"""Convolutions without cuDNN: the columns that an image is laid out in, one image at a time; and other work on images.

Source: ``aten/src/ATen/native/cuda/ConvolutionMM2d.cu``, ``NaiveConvolutionTranspose2d.cu``, ``DepthwiseConv2d.cu``,
``Im2Col.cu``, ``Col2Im.cu``, ``DilatedMaxPool2d.cu``, ``AveragePool2d.cu``, ``UpSample*.cu``, ``ReflectionPad.cu``,
``NaiveDilatedConvolution.cu`` and ``native/Convolution.cpp`` (``select_conv_backend``), read at 2.11. What plans of
cuDNN would take is not known before a GPU has been asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from memscope.capture.dry_run.kernels._call import PRODUCT, Call, Kernel, Scratch, Sizes, nbytes
from memscope.capture.dry_run.kernels._reducing import accumulating
from memscope.capture.dry_run.kernels._reductions import reduction_bytes

_N_BEFORE = {"convolution": 0, "convolution_backward": 1}
"""Arguments that come before the inputs."""
_TRANSPOSED, _GROUPS = 6, 8
"""Positions among the arguments of a convolution; a backward pass has one more before them."""


def is_by_products(kind: str, args: Sequence[Any]) -> bool:
    """Whether an operation is a convolution that cuBLAS multiplies the columns of."""
    n_before = _N_BEFORE.get(kind)
    if n_before is None or len(args) <= n_before + _GROUPS:
        return False
    inputs, weight = args[n_before], args[n_before + 1]
    is_transposed, groups = args[n_before + _TRANSPOSED], args[n_before + _GROUPS]
    return bool(inputs.numel()) and not _is_by_depth(inputs, weight, groups, is_transposed)


def _is_by_depth(inputs: Any, weight: Any, groups: int, is_transposed: bool) -> bool:
    """Whether every channel is a group of its own, which has kernels without columns."""
    return not is_transposed and groups > 1 and groups == inputs.size(1) and weight.dim() > 3


class _Sizes(NamedTuple):
    """What a convolution lays out: bytes of columns and of ones of one image, and whether it goes by depth."""

    columns: int
    ones: int
    n_groups: int
    is_depthwise: bool
    is_transposed: bool


def _sizes(call: Call, output: Any) -> _Sizes:
    inputs, weight = call.get("input"), call.get("weight")
    groups, is_transposed = call.get("groups"), bool(call.get("transposed"))
    kernel, itemsize = weight.shape[2:], inputs.element_size()
    spread = weight.size(1) if is_transposed else inputs.size(1) // groups
    laid_out = inputs.shape[2:] if is_transposed else output[2:]
    columns = spread * math.prod(kernel) * math.prod(laid_out) * itemsize
    is_depthwise = _is_by_depth(inputs, weight, groups, is_transposed)
    return _Sizes(
        columns, math.prod(output[2:]) * itemsize if is_transposed else 0, groups, is_depthwise, is_transposed
    )


def _is_plain(call: Call) -> bool:
    """Whether a column is the image itself: kernels of one element, at every place."""
    ones, zeros = (
        all(n == wanted for name in names for n in call.get(name))
        for names, wanted in ((("stride",), 1), (("padding",), 0))
    )
    return math.prod(call.get("weight").shape[2:]) == 1 and ones and zeros


def _forward(call: Call) -> Scratch:
    made = call.results[0]
    sizes = _sizes(call, made.shape)
    if sizes.is_depthwise or not made.numel():
        return Scratch([])
    columns: Sizes = [] if _is_plain(call) and not sizes.is_transposed else [sizes.columns]
    if sizes.n_groups == 1:
        return Scratch([*columns, sizes.ones])
    part, out = (nbytes(tensor) // sizes.n_groups for tensor in (call.get("input"), made))
    return Scratch([], before=[out, [part, [*columns, PRODUCT]]] * sizes.n_groups)


def _backward(call: Call) -> Scratch:
    grad = call.get("grad_output")
    sizes = _sizes(call, grad.shape)
    if not grad.numel():
        return Scratch([])
    if sizes.n_groups > 1 and not sizes.is_depthwise:
        return Scratch([], before=[_backward_of_a_group(call, sizes)] * sizes.n_groups)
    has_bias = len(call.results) > 2 and call.get("output_mask")[2]
    bias = _bias_scratch(call, grad.shape, grad.stride()) if has_bias else []
    return Scratch(bias if sizes.is_depthwise else [sizes.columns, bias])


def _backward_of_a_group(call: Call, sizes: _Sizes) -> Sizes:
    """Copies of what the group is given; its gradients are kept until those of all groups are joined."""
    grad, inputs, weight = (call.get(name) for name in ("grad_output", "input", "weight"))
    of_input, of_weight, of_bias = call.get("output_mask")
    columns: Sizes = [sizes.columns, PRODUCT]
    taken: Sizes = [nbytes(tensor) // sizes.n_groups for tensor in (grad, inputs)]
    if of_input:
        taken += [(nbytes(inputs) // sizes.n_groups,), *columns]
    if of_bias:
        from torch._prims_common import make_contiguous_strides_for

        shape = (grad.size(0), grad.size(1) // sizes.n_groups, *grad.shape[2:])
        bias = _bias_scratch(call, shape, make_contiguous_strides_for(shape))
        taken += [(shape[1] * grad.element_size(),), bias]
    if of_weight:
        taken += [(nbytes(weight) // sizes.n_groups,), *([] if of_input else columns)]
    return taken


def _bias_scratch(call: Call, shape: Sequence[int], strides: Sequence[int]) -> Sizes:
    """The sum of a gradient over all but the channels."""
    dims = [dim for dim in range(len(shape)) if dim != 1]
    return _reduced(shape, strides, dims, call.get("grad_output").element_size(), call.n_multiprocessors)


def _reduced(shape: Sequence[int], strides: Sequence[int], dims: Sequence[int], itemsize: int, n: int) -> Sizes:
    return reduction_bytes(accumulating(itemsize), shape, strides, dims, n)


def _laid_out(call: Call) -> Scratch:
    """Columns of all images: the result is made as large as what is given, and resized, which keeps what is more."""
    given, made = call.args[0], call.results[0]
    n_given, n_made = nbytes(given), nbytes(made)
    copied: Sizes = [] if given.is_contiguous() else [n_given]
    if n_made > n_given:
        return Scratch(copied, before=[n_given])
    return Scratch(copied, result_bytes=n_given)


def _of_dense_gradient(call: Call) -> Scratch:
    """A gradient that does not lie one number after the other, such as that of a sum, is copied."""
    grad = call.args[0]
    return Scratch([] if grad.is_contiguous() else [nbytes(grad)])


_OF_DENSE_GRADIENT = (
    *("max_pool2d_with_indices_backward", "avg_pool2d_backward", "_adaptive_avg_pool2d_backward"),
    *("adaptive_max_pool2d_backward", "reflection_pad2d_backward", "upsample_nearest2d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward"),
)
KERNELS: dict[str, Kernel] = {
    **dict.fromkeys(_OF_DENSE_GRADIENT, _of_dense_gradient),
    **dict.fromkeys(("im2col", "col2im"), _laid_out),
    "convolution": _forward,
    "convolution_backward": _backward,
}
