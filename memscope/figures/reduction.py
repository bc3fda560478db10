"""Level of detail: which of many events a picture draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.trace.tables import Int64Array


def extreme_indices(
    series: Sequence[Int64Array], begin: int, end: int, n_buckets: int, keep: Sequence[int] = ()
) -> Int64Array:
    """Indices in ``begin … end − 1`` at which to draw several series together, ascending and distinct.

    The range is cut into buckets, and of each the first index and every guiding series' lowest and highest are taken,
    so that no peak or trough of a guiding series is lost; a short range is returned whole. All series are to be drawn
    at the same indices: then a stack of them still sums to its total.

    Parameters
    ----------
    series
        int64 (n,) each: the guiding series.
    keep
        Indices to take in any case; those outside the range are left out.

    Notes
    -----
    O(series · (end − begin)); at most ``n_buckets · (2 · len(series) + 1) + len(keep) + 1`` indices.
    """
    n = end - begin
    if n <= n_buckets * (2 * len(series) + 1):
        return np.arange(begin, end, dtype=np.int64)
    width = -(-n // n_buckets)
    n_filled = -(-n // width)
    starts = np.arange(n_filled, dtype=np.int64) * width
    chosen = [starts, np.array([n - 1], np.int64)]
    for values in series:
        padded = np.empty(n_filled * width, np.int64)
        padded[:n] = values[begin:end]
        padded[n:] = values[end - 1]
        buckets = padded.reshape(n_filled, width)
        chosen += [starts + buckets.argmax(axis=1), starts + buckets.argmin(axis=1)]
    kept = np.array([index - begin for index in keep if begin <= index < end], np.int64)
    indices = np.unique(np.concatenate([*chosen, kept]))
    return indices[indices < n] + begin
