"""What fits at once, from a manager's tables."""

from __future__ import annotations

import numpy as np

from memscope._kernels import kv_layout as at
from memscope.kv.managers import Memory
from memscope.kv.requests import RequestTable
from memscope.trace.tables import BoolArray, Int64Array


def never_fits(memory: Memory, requests: RequestTable, capacity: int) -> BoolArray:
    """Whether requests, each with all its samples, fit not even alone: bool (n,). Capacity is in units."""
    samples = requests.n_samples
    if memory.kind == at.KIND_CONTIGUOUS:
        granules = -(-memory.region // memory.granule)
        blocks = np.left_shift(np.int64(1), np.ceil(np.log2(np.maximum(granules, 1))).astype(np.int64))
        # Cut into powers of two, the largest first, memory holds as many blocks of one of them as divide it.
        return np.asarray(samples > capacity // memory.granule // blocks, np.bool_)
    longest = len(memory.alloc_of) - 1
    final, prompt = (np.minimum(n, longest) for n in (requests.cached_tokens, requests.prompt_tokens))
    most = _most_units(memory)
    if not memory.shares_samples:
        return np.asarray(samples * most[final] > capacity, np.bool_)
    needed = most[final]
    for i in np.flatnonzero(samples > 1):
        apart = _units_apart(memory, int(samples[i]), int(prompt[i]), int(final[i]))
        needed[i] = max(int(most[prompt[i]]), int(apart.max(initial=0)))
    return np.asarray(needed > capacity, np.bool_)


def _units_apart(memory: Memory, n_samples: int, prompt: int, final: int) -> Int64Array:
    """Units that the samples of a request take from the first token on that is not of the prompt to the last one."""
    tokens = np.arange(prompt + 1, final + 1, dtype=np.int64)
    step = memory.private_tokens
    units = n_samples * memory.alloc_of[prompt + 1 : final + 1]
    for window, size in memory.windows:
        first = np.maximum(tokens - window, 0) // step * step if window else 0
        units -= (n_samples - 1) * size * np.maximum(prompt // step * step - first, 0)
    return np.asarray(units, np.int64)


def n_regions(memory: Memory, capacity: int) -> int:
    """How many of the largest region fit at once (contiguous kinds)."""
    granules = -(-int(memory.region.max()) // memory.granule)
    return capacity // memory.granule // (1 << max(granules - 1, 0).bit_length())


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
