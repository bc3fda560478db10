"""No caching: a ``cudaMalloc`` for every request."""

from __future__ import annotations

from memscope._kernels.policy_cuda_malloc import CudaMalloc
from memscope.replay.models.model import Model, mallocs_and_frees

CUDA_MALLOC = Model(
    name="cuda-malloc",
    summary="no caching: a cudaMalloc for every request",
    source="CUDA runtime API",
    notes=("cuda-malloc: requests of 1 MiB or more take whole pages of 2 MiB, smaller ones share pages",),
    new_policy=CudaMalloc,
    calls=mallocs_and_frees,
)
