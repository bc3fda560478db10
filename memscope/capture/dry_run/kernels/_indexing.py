"""Adding up at indices: they are sorted first, so that what falls on one place is added in order.

Source: ``aten/src/ATen/native/cuda/Indexing.cu``, ``index_put_with_sort_kernel``, and ``scatter_reduce_two`` in
``native/TensorAdvancedIndexing.cpp``, read at 2.11.
"""

from __future__ import annotations

import math

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, Sizes, nbytes
from memscope.capture.dry_run.kernels._cub import bits_of, radix_bytes

_INDEX = 8


def _accumulating(call: Call) -> Scratch:
    """Indices of several dimensions become one, and are sorted with where they were."""
    tensor, indices = call.args[0], [index for index in call.get("indices") if index is not None]
    if not call.get("accumulate", False) or not indices or not tensor.numel():
        return Scratch([])
    if any(not index.dtype.is_signed for index in indices):  # truth values: how many there are is not known
        return Scratch([])
    import torch

    n = math.prod(torch.broadcast_shapes(*(tuple(index.shape) for index in indices)))
    last = max(dim for dim, index in enumerate(call.get("indices")) if index is not None)
    n_places = tensor.numel() // math.prod(tensor.shape[last + 1 :])
    sort = radix_bytes(n, _INDEX, _INDEX, call.n_multiprocessors, bits_of(n_places))
    joined: Sizes = [[n * _INDEX] * 2 for _ in indices[1:]]
    return Scratch([n * _INDEX, [n * _INDEX], *joined, n * _INDEX, n * _INDEX, [n * _INDEX, [sort]]])


def _scatter_reduce(call: Call) -> Scratch:
    """A mean counts what falls on each place: counts, ones for what is added, and where the counts are 0."""
    if call.get("reduce") != "mean":
        return Scratch([])
    return Scratch([nbytes(call.args[0]), nbytes(call.get("src")), call.args[0].numel()])


KERNELS: dict[str, Kernel] = {
    **dict.fromkeys(("index_put", "index_put_", "_unsafe_index_put", "_index_put_impl_"), _accumulating),
    **dict.fromkeys(("scatter_reduce", "scatter_reduce_"), _scatter_reduce),
}
