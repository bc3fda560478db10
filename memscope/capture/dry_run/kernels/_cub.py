"""Temporary storage of CUB's sorts and scans, which PyTorch's kernels ask the allocator for.

Source: CUB's ``DeviceRadixSort`` and ``DeviceScan`` (dispatch and tuning for compute capabilities from 8.0 on), as
they come with CUDA 13.0 and are called from ``aten/src/ATen/cuda/cub.cuh``, which counts in 64 bits; the constants were
checked against the requests of torch 2.11's kernels.
"""

from __future__ import annotations

import math

_DIGITS = 256
_ALIGNMENT = 256
_OF_ONE_TILE = 256
_THREADS = 384
_NARROW_SPINE = (8 * 5 * 128, 5632)
"""Of the passes over keys of at most two bytes: digits by blocks of a multiprocessor, and what a scan reads beyond."""


def radix_bytes(n: int, key_bytes: int, value_bytes: int, n_multiprocessors: int, n_bits: int | None = None) -> int:
    """What sorting n pairs (or keys alone, where values have no bytes) takes.

    Parameters
    ----------
    n
        How many.
    key_bytes, value_bytes
        Bytes of each.
    n_multiprocessors
        Of the device.
    n_bits
        How many bits of the keys are compared; all by default.
    """
    widest = max(4, key_bytes, value_bytes)
    if n <= _OF_ONE_TILE * (19 * 4 // widest):
        return 1
    n_passes = -(-(n_bits or 8 * key_bytes) // 8)
    if key_bytes < 4:
        per_multiprocessor, beyond = _NARROW_SPINE
        parts = [8 * (n_multiprocessors * per_multiprocessor + beyond)]
        n_passes = 2
    else:
        items = 17 if key_bytes == 4 and value_bytes else 21
        tile = _THREADS * (items * 4 // widest)
        parts = [n_passes * _DIGITS * 8, -(-n // tile) * _DIGITS * 4, n_passes * 4]
    if n_passes > 1:
        parts += [n * key_bytes, n * value_bytes]
    return sum(-(-part // _ALIGNMENT) * _ALIGNMENT for part in parts) + _ALIGNMENT - 1


def scan_bytes(n: int, itemsize: int) -> int:
    """What a scan over n numbers takes: the state of each tile."""
    tile, state = {8: (896, 16), 4: (1792, 8)}.get(itemsize, (3584, 8))
    parts = [(-(-n // tile) + 32) * state, _ALIGNMENT if itemsize == 8 else 0]
    return sum(-(-part // _ALIGNMENT) * _ALIGNMENT for part in parts) + _ALIGNMENT - 1


def select_bytes(n: int) -> int:
    """What picking the first of each run of n equal keys takes."""
    return _ALIGNMENT * -(-(-(-n // 1792) + 32) * 16 // _ALIGNMENT) + 2 * _ALIGNMENT - 1


def bits_of(largest: int) -> int:
    """How many bits a key up to a number has."""
    return max(largest.bit_length(), 1)


def permutation_bits(n: int) -> int:
    """How many bits random keys need, so that a permutation of n is fair: ``randperm``'s choice."""
    threshold = math.log(0.9) * 12
    return min(64, math.ceil(math.log2(n - (6 * n * n + 1) / threshold)))
