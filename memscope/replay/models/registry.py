"""The modelled allocators that there are, in the order in which they are listed."""

from __future__ import annotations

from memscope.replay.models.arena import ARENA
from memscope.replay.models.async_pool import ASYNC_POOL
from memscope.replay.models.bfc import BFC
from memscope.replay.models.binning import BINNING
from memscope.replay.models.buddy import BUDDY
from memscope.replay.models.cuda_malloc import CUDA_MALLOC
from memscope.replay.models.model import Model
from memscope.replay.models.paged import PAGED
from memscope.replay.models.pool_coalescing import POOL_COALESCING
from memscope.replay.models.stitching import STITCHING

MODELS: tuple[Model, ...] = (CUDA_MALLOC, BFC, BUDDY, POOL_COALESCING, ARENA, BINNING, ASYNC_POOL, PAGED, STITCHING)
"""A new allocator is a file beside these, and a name here."""
