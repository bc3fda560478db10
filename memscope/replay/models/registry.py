"""The modelled allocators that there are, in the order in which they are listed."""

from __future__ import annotations

from memscope.replay.models._arena import ARENA
from memscope.replay.models._async_pool import ASYNC_POOL
from memscope.replay.models._bfc import BFC
from memscope.replay.models._binning import BINNING
from memscope.replay.models._buddy import BUDDY
from memscope.replay.models._cuda_malloc import CUDA_MALLOC
from memscope.replay.models._paged import PAGED
from memscope.replay.models._pool_coalescing import POOL_COALESCING
from memscope.replay.models._stitching import STITCHING
from memscope.replay.models.model import Model

MODELS: tuple[Model, ...] = (CUDA_MALLOC, BFC, BUDDY, POOL_COALESCING, ARENA, BINNING, ASYNC_POOL, PAGED, STITCHING)
"""A new allocator is a file beside these, and a name here."""
