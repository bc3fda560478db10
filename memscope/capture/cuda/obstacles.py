"""What keeps PyTorch's history from being recorded where a CUDA device is there."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

_NATIVE = "native"
_ADVICE = {
    "cudaMallocAsync": "leave backend:cudaMallocAsync out of PYTORCH_ALLOC_CONF and PYTORCH_CUDA_ALLOC_CONF",
    "pluggable": "record without torch.cuda.memory.change_current_allocator",
}


class Obstacle(NamedTuple):
    """Why there is no history, and what to do."""

    finding: str
    advice: str


def find_obstacle() -> Obstacle | None:
    """Ask PyTorch which allocator serves the program: only its native caching allocator keeps a history.

    None where nothing is in the way, and where PyTorch cannot tell.
    """
    import torch

    if os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"):
        return Obstacle("PYTORCH_NO_CUDA_MEMORY_CACHING switches the caching allocator off", "unset it")
    internals: Any = torch._C
    ask = getattr(internals, "_cuda_getAllocatorBackend", None)
    backend = _NATIVE if ask is None else str(ask())
    if backend == _NATIVE:
        return None
    advice = _ADVICE.get(backend, "record with PyTorch's native allocator")
    return Obstacle(f"the allocator is {backend}, which keeps no history", advice)
