"""Gradients of embeddings: rows are sorted by index, and what several places give one row is added up in parts.

Source: ``aten/src/ATen/native/cuda/Embedding.cu`` (``embedding_dense_backward_cuda``), ``EmbeddingBag.cu`` and
``EmbeddingBackwardKernel.cu`` (``embedding_backward_cuda_kernel``), read at 2.11.
"""

from __future__ import annotations

from memscope.capture.dry_run.kernels._call import Call, Kernel, Scratch, Sizes
from memscope.capture.dry_run.kernels._cub import radix_bytes, scan_bytes, select_bytes

_INDEX = 8
_MODE_MAX = 2
_DIRECT = 3072
"""Up to so many places, each is added to its row directly."""
_PLACES_OF_A_PART = 10


def _sorted_first(n: int, itemsize: int, call: Call) -> Sizes:
    """Sorted indices and where each was."""
    sort = radix_bytes(n, itemsize, itemsize, call.n_multiprocessors)
    held: Sizes = [n * itemsize, n * itemsize, [n * itemsize, [sort]]]
    if call.get("scale_grad_by_freq", False):
        held += [n * itemsize, [select_bytes(n)], [select_bytes(n)]]
    return held


def _parts(n: int, n_rows: int, width: int, element_bytes: int, itemsize: int) -> Sizes:
    """Where segments of equal indices begin, and the sums of their parts."""
    n_segments = min(n, n_rows)
    n_parts = n // _PLACES_OF_A_PART + n_segments
    return [
        *(n * itemsize, itemsize, [n * itemsize, [select_bytes(n)]]),
        *(n_segments * itemsize, n_segments * itemsize, [scan_bytes(n_segments, _INDEX)], itemsize),
        *(n_parts * itemsize, n_parts * width * max(element_bytes, 4)),
    ]


def _dense_backward(call: Call) -> Scratch:
    grad, indices = call.get("grad_output"), call.get("indices")
    n, itemsize = indices.numel(), indices.element_size()
    if not n or (n <= _DIRECT and not call.get("scale_grad_by_freq", False)):
        return Scratch([])
    made = call.results[0]
    return Scratch(
        _parts(n, made.size(0), grad.size(-1), grad.element_size(), itemsize), before=_sorted_first(n, itemsize, call)
    )


def _bag_backward(call: Call) -> Scratch:
    """Sums and means as plain embeddings, however few; the largest write where they were."""
    indices, mode = call.get("indices"), call.get("mode")
    n, itemsize, made = indices.numel(), indices.element_size(), call.results[0]
    if not n or mode == _MODE_MAX or call.get("sparse", False):
        return Scratch([])
    parts = _parts(n, made.size(0), made.size(-1), made.element_size(), itemsize)
    return Scratch(parts, before=_sorted_first(n, itemsize, call))


KERNELS: dict[str, Kernel] = {
    "embedding_dense_backward": _dense_backward,
    **dict.fromkeys(("_embedding_bag_dense_backward", "_embedding_bag_backward"), _bag_backward),
}
