"""What fits at once, from a manager's tables."""

from __future__ import annotations

import numpy as np

from memscope._kernels import kv_layout as at
from memscope.kv.managers import Memory
from memscope.trace.tables import BoolArray, Int64Array


def never_fits(memory: Memory, final_tokens: Int64Array, capacity: int) -> BoolArray:
    """Whether requests of so many tokens in the end fit not even alone: bool (n,). Capacity is in units."""
    if memory.kind == at.KIND_CONTIGUOUS:
        return -(-memory.region // memory.granule) > _largest_block(memory, capacity)
    return _most_units(memory)[final_tokens] > capacity


def longest_context(memory: Memory, capacity: int, reserves: bool) -> int:
    """The longest sequence, in tokens, that fits alone, up to the longest that is accepted.

    ``reserves`` says whether every request takes the memory of the longest one.
    """
    if memory.kind == at.KIND_CONTIGUOUS:
        needed, most = -(-memory.tokens_of // memory.granule), _largest_block(memory, capacity)
        if reserves:
            return len(needed) - 1 if needed[-1] <= most else 0
    else:
        needed, most = _most_units(memory), capacity
    return int(np.searchsorted(needed, most, side="right")) - 1


def largest_batch(memory: Memory, capacity: int, final_tokens: int) -> int:
    """How many requests of so many tokens in the end, or of the mean region, fit together."""
    if memory.kind != at.KIND_CONTIGUOUS:
        return int(capacity // _most_units(memory)[final_tokens])
    mean_granules = int(np.ceil(memory.region.mean() / memory.granule))
    block = 1 << max(mean_granules - 1, 0).bit_length()
    return capacity // memory.granule // block


def _largest_block(memory: Memory, capacity: int) -> int:
    granules = capacity // memory.granule
    return 1 << (granules.bit_length() - 1) if granules else 0


def _most_units(memory: Memory) -> Int64Array:
    """The most units on the way to so many tokens: a window gives blocks back, so that may lie before the end."""
    return np.asarray(np.maximum.accumulate(memory.alloc_of), np.int64)
