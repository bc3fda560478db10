"""The caching allocator behind caches that are tensors."""

from __future__ import annotations

import math

import numpy as np

from memscope._kernels import caching_layout
from memscope._kernels import kv_layout as at
from memscope._kernels.kv_tensors import Tensors
from memscope.kv.shapes import KvShape, vector_bytes
from memscope.replay.arrays import grow, new_arrays, with_lanes
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import TieRule

BLOCK_BYTES = 512
"""Blocks of the caching allocator are multiples of this."""


def tensor_token_bytes(shape: KvShape) -> list[tuple[int, int]]:
    """Bytes of a token in each tensor of one request, and its window (0: none): keys and values of each layer."""
    return [
        (layer.heads_per_gpu(shape.tensor_parallel) * vector_bytes(dim, shape.kv_dtype), layer.window or 0)
        for layer in shape.layers
        for dim in (layer.key_dim, layer.value_dim)
        if dim
    ]


def tensors_unit_bytes(shape: KvShape) -> int:
    """The largest unit that divides a block and every token."""
    return math.gcd(BLOCK_BYTES, *(size for size, _ in tensor_token_bytes(shape)))


def make_tensors(shape: KvShape, n_requests: int, max_running: int, capacity_bytes: int) -> Tensors:
    """An allocator that holds nothing, with room for the tensors of ``max_running`` requests at once."""
    sizes = tensor_token_bytes(shape)
    # Every live tensor and every gap between two of them is a block.
    n_blocks = 2 * len(sizes) * max_running + capacity_bytes // (1 << 20)
    arrays = new_arrays(
        CachingAllocatorConfig(), tie_rule=TieRule.SEGMENT_AGE, total_bytes=capacity_bytes, is_logged=False
    )
    arrays = grow(with_lanes(arrays, [(0, 0)], is_private_releasable=False), n_blocks)
    segments = np.zeros((n_blocks, arrays.segments.shape[1]), np.int64)
    segments[: len(arrays.segments)] = arrays.segments
    return Tensors(
        arrays=arrays._replace(segments=segments),
        token_bytes=np.array([size for size, _ in sizes], np.int64),
        window=np.array([window for _, window in sizes], np.int64),
        block=np.full((n_requests, len(sizes)), at.NONE, np.int32),
        n_grown=np.zeros(n_requests, np.int64),
        unit_bytes=tensors_unit_bytes(shape),
    )


def peak_reserved_bytes(store: Tensors) -> int:
    """The most that the allocator ever held of the device."""
    return int(store.arrays.counters[caching_layout.C_PEAK_RESERVED])


def n_retries(store: Tensors) -> int:
    """Requests that were served, or refused, only after all unused memory was given back."""
    return int(store.arrays.counters[caching_layout.C_N_RETRIES])
