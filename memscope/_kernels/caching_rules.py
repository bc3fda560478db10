"""The caching allocator's arithmetic: rounding, segment sizes and the split rule, compiled.

Source: ``c10/cuda/CUDACachingAllocator.cpp`` (``round_size``, ``get_allocation_size``, ``should_split``) and
``c10/core/AllocatorConfig.cpp``, behaviour as tested on 2.6 to 2.15.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

MIN_BLOCK_BYTES = 512
SMALL_BYTES = 1 << 20
"""Requests whose rounded size is at most this are served by the small pool."""
SMALL_SEGMENT_BYTES = 2 << 20
LARGE_SEGMENT_BYTES = 20 << 20
MIN_LARGE_ALLOC_BYTES = 10 << 20
ROUND_LARGE_BYTES = 2 << 20
UNLIMITED = np.iinfo(np.int64).max
N_ROUNDUP_INTERVALS = 16


class CachingRules(NamedTuple):
    """The options that decide sizes.

    Attributes
    ----------
    roundup_divisions
        int64 (16,): power-of-two divisions by interval, 0 for none.
    max_split_bytes
        Blocks of this size and more are never split; ``UNLIMITED`` for no limit.
    large_segment_bytes
        Segment size for rounded requests between 1 and 10 MiB.
    is_expandable
        Whether expandable segments are in force.
    """

    roundup_divisions: npt.NDArray[np.int64]
    max_split_bytes: int
    large_segment_bytes: int
    is_expandable: bool


@njit(cache=True)
def _floor_log2(n):
    exponent = 0
    while n > 1:
        n >>= 1
        exponent += 1
    return exponent


@njit(cache=True)
def round_size(requested_bytes, roundup_divisions):
    """Rounded size of a request in bytes, int64."""
    if requested_bytes < MIN_BLOCK_BYTES:
        return np.int64(MIN_BLOCK_BYTES)
    exponent = _floor_log2(requested_bytes)
    interval = min(max(exponent - 20, 0), N_ROUNDUP_INTERVALS - 1)
    divisions = roundup_divisions[interval]
    if divisions > 1 and requested_bytes > MIN_BLOCK_BYTES * divisions:
        power = np.int64(1) << exponent
        if requested_bytes == power:
            return np.int64(requested_bytes)
        step = power >> _floor_log2(divisions)
        if step == 0:
            return np.int64(power << 1)
        return np.int64((requested_bytes + step - 1) // step * step)
    return np.int64((requested_bytes + MIN_BLOCK_BYTES - 1) // MIN_BLOCK_BYTES * MIN_BLOCK_BYTES)


@njit(cache=True)
def segment_size(rounded_bytes, large_segment_bytes):
    """Bytes of the ``cudaMalloc`` that a rounded request leads to."""
    if rounded_bytes <= SMALL_BYTES:
        return np.int64(SMALL_SEGMENT_BYTES)
    if rounded_bytes < MIN_LARGE_ALLOC_BYTES:
        return np.int64(large_segment_bytes)
    return np.int64((rounded_bytes + ROUND_LARGE_BYTES - 1) // ROUND_LARGE_BYTES * ROUND_LARGE_BYTES)


@njit(cache=True)
def should_split(block_bytes, rounded_bytes, max_split_bytes, is_expandable):
    """Whether a free block is split for a rounded request, or handed out whole."""
    remaining = block_bytes - rounded_bytes
    if rounded_bytes <= SMALL_BYTES or is_expandable:
        return remaining >= MIN_BLOCK_BYTES
    return rounded_bytes < max_split_bytes and remaining > SMALL_BYTES


@njit(cache=True)
def round_sizes(requested_bytes, roundup_divisions):
    """Rounded sizes of an array of requests: int64 (n,) to int64 (n,)."""
    rounded = np.empty(len(requested_bytes), np.int64)
    for i in range(len(requested_bytes)):
        rounded[i] = round_size(requested_bytes[i], roundup_divisions)
    return rounded
