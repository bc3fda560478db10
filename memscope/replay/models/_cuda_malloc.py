"""No caching: a ``cudaMalloc`` for every request."""

from __future__ import annotations

from memscope._core import models
from memscope.replay.models.model import NO_LIMIT, Model, check_powers, mallocs_and_frees
from memscope.units import MiB


def new_cuda_malloc(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    alignment_bytes: int = 256,
    page_bytes: int = 2 * MiB,
) -> models.CudaMalloc:
    """The driver by itself.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    alignment_bytes, page_bytes
        What sizes are rounded up to; the page that small requests share and that large ones take whole.

    Raises
    ------
    UsageError
        If one of them is no power of two.
    """
    check_powers(alignment_bytes=alignment_bytes, page_bytes=page_bytes)
    return models.CudaMalloc(capacity_bytes, is_logged, alignment_bytes=alignment_bytes, page_bytes=page_bytes)


CUDA_MALLOC = Model(
    name="cuda-malloc",
    summary="no caching: a cudaMalloc for every request",
    source="CUDA runtime API",
    notes=("cuda-malloc: requests of 1 MiB or more take whole pages of 2 MiB, smaller ones share pages",),
    new_allocator=new_cuda_malloc,
    calls=mallocs_and_frees,
)
