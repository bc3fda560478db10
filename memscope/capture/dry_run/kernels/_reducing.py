"""Operations that reduce: which kernel each is, and the copies that are made of its input first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, Sizes, nbytes
from memscope.capture.dry_run.kernels._reductions import Reduction, reduction_bytes

_VECTOR_OF_HALVES = 8


def dims_of(call: Call) -> tuple[int, ...]:
    """The dimensions that a call reduces: all where it names none."""
    n = call.args[0].dim()
    dim = call.get("dim")
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(n))
    given = (dim,) if isinstance(dim, int) else tuple(dim)
    return tuple(d % n for d in given) if n else ()


def reduced(tensor: Any, dims: Sequence[int], kernel: Reduction, n_multiprocessors: int) -> Sizes:
    """What a kernel takes to reduce a tensor."""
    return reduction_bytes(
        kernel, tensor.shape, tensor.stride(), dims, n_multiprocessors, offset=int(tensor.storage_offset())
    )


def accumulating(itemsize: int, out_itemsize: int | None = None, *, vector: int | None = None) -> Reduction:
    """Numbers added up in float32 at least."""
    out = itemsize if out_itemsize is None else out_itemsize
    loaded = vector or (_VECTOR_OF_HALVES if itemsize == 2 else 4)
    return Reduction(itemsize, max(itemsize, 4), out, loaded, accumulates_apart=out < 4)


def sums(call: Call) -> Scratch:
    """Sums, means, products: half precision is added up in float32, whole numbers are copied to int64 first."""
    tensor, made = call.args[0], call.results[0]
    is_read_as_it_is = tensor.dtype == made.dtype or (tensor.element_size() == 2 and str(made.dtype) == "torch.float32")
    if is_read_as_it_is or not tensor.numel():
        return Scratch(
            reduced(
                tensor,
                dims_of(call),
                accumulating(tensor.element_size(), made.element_size()),
                call.n_multiprocessors,
            )
        )
    copied = tensor.numel() * made.element_size()
    kernel = accumulating(made.element_size())
    like = dense_like(tensor)
    found = reduction_bytes(kernel, tensor.shape, like, dims_of(call), call.n_multiprocessors)
    return Scratch([copied, *found])


def dense_like(tensor: Any) -> tuple[int, ...]:
    """Strides of a copy: the tensor's own where it is dense, else those of its shape."""
    import torch

    return tuple(torch.empty_like(tensor, device="meta").stride())


def _partial(n_bytes: int, vector: int = 4) -> Kernel:
    """A kernel whose threads keep so many bytes, where an element of the input is at most 4 bytes."""

    def kernel(call: Call) -> Scratch:
        tensor = call.args[0]
        itemsize = tensor.element_size()
        partial = n_bytes * (2 if itemsize == 8 and n_bytes == 16 and vector == 2 else 1)
        made = Reduction(itemsize, partial, call.results[0].element_size(), vector)
        return Scratch(reduced(tensor, dims_of(call), made, call.n_multiprocessors))

    return kernel


def _of_elements(n: int = 1) -> Kernel:
    """A kernel whose threads keep elements of the input's type."""

    def kernel(call: Call) -> Scratch:
        tensor = call.args[0]
        itemsize = tensor.element_size()
        made = Reduction(itemsize, n * itemsize, call.results[0].element_size())
        return Scratch(reduced(tensor, dims_of(call), made, call.n_multiprocessors))

    return kernel


def _extremes(call: Call) -> Scratch:
    """The largest of all, or the largest of each row and where it is."""
    return _with_places(call) if call.get("dim") is not None else _of_one(call)


def _count_nonzero(call: Call) -> Scratch:
    """A comparison with zero, and the sum of what it says."""
    tensor = call.args[0]
    kernel = accumulating(8)
    found = reduction_bytes(kernel, tensor.shape, dense_like(tensor), dims_of(call), call.n_multiprocessors)
    return Scratch([8 * tensor.numel(), *found], before=[tensor.numel()])


def _norm(call: Call) -> Scratch:
    tensor = call.args[0]
    kernel = accumulating(tensor.element_size(), call.results[0].element_size(), vector=4)
    return Scratch(reduced(tensor, dims_of(call), kernel, call.n_multiprocessors))


def _logsumexp(call: Call) -> Scratch:
    """The largest of each, the exponentials of the differences, and their sum."""
    tensor, dims = call.args[0], dims_of(call)
    itemsize, made = tensor.element_size(), call.results[0].numel()
    largest = reduced(tensor, dims, Reduction(itemsize, itemsize, itemsize), call.n_multiprocessors)
    summed = reduction_bytes(accumulating(itemsize), tensor.shape, dense_like(tensor), dims, call.n_multiprocessors)
    kept = made * itemsize
    return Scratch([largest, [kept, made], [nbytes(tensor), kept, summed]], before=[kept])


_with_places = _partial(16)
_of_one = _of_elements()

KERNELS: dict[str, Kernel] = {
    **dict.fromkeys(("sum", "mean", "nansum", "prod"), sums),
    **dict.fromkeys(("amax", "amin", "any", "all"), _of_one),
    **dict.fromkeys(("argmax", "argmin"), _with_places),
    **dict.fromkeys(("max", "min"), _extremes),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _partial(16, vector=2)),
    **dict.fromkeys(("norm", "linalg_vector_norm"), _norm),
    "logsumexp": _logsumexp,
    "aminmax": _of_elements(2),
    "count_nonzero": _count_nonzero,
}
