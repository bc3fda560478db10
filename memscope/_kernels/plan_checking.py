"""Whether any two of many placed lifetimes meet in both time and address; compiled. Shares nothing with the planner."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _mark(tree, leaf):
    """Mark a leaf and all above it that are not marked yet."""
    node = leaf + len(tree) // 2
    while node > 0 and tree[node] == 0:
        tree[node] = 1
        node >>= 1


@njit(cache=True)
def _unmark(tree, leaf):
    node = leaf + len(tree) // 2
    tree[node] = 0
    node >>= 1
    while node > 0 and tree[2 * node] == 0 and tree[2 * node + 1] == 0:
        tree[node] = 0
        node >>= 1


@njit(cache=True)
def _nearest(tree, leaf, side):
    """The nearest marked leaf below (side 0) or above (side 1) a leaf, −1 if there is none."""
    node = leaf + len(tree) // 2
    while node > 1:
        if (node & 1) != side and tree[node ^ 1]:
            node ^= 1
            while node < len(tree) // 2:
                far = 2 * node + 1 - side
                node = far if tree[far] else far ^ 1
            return node - len(tree) // 2
        node >>= 1
    return -1


@njit(cache=True)
def find_overlap(start, end, low, high, by_start, by_end, by_low):
    """Find two rows that are alive together, in ``[start, end)``, with addresses ``[low, high)`` in common.

    Rows alive are marked in a tree over the rows by address. As long as no two of them overlap, a new one can overlap
    only with its nearest neighbours: O(log rows) each.

    Parameters
    ----------
    by_start, by_end, by_low
        int64 (rows,): the rows in order of each.

    Returns
    -------
    row, other
        The later of the two and the earlier, −1 twice if there are none.
    """
    n = len(start)
    n_leaves = 1
    while n_leaves < n:
        n_leaves *= 2
    tree = np.zeros(2 * n_leaves, np.uint8)
    leaf_of = np.empty(n, np.int64)
    for leaf in range(n):
        leaf_of[by_low[leaf]] = leaf
    n_ended = 0
    for i in by_start:
        while end[by_end[n_ended]] <= start[i]:
            _unmark(tree, leaf_of[by_end[n_ended]])
            n_ended += 1
        below = _nearest(tree, leaf_of[i], 0)
        if below >= 0 and high[by_low[below]] > low[i]:
            return i, by_low[below]
        above = _nearest(tree, leaf_of[i], 1)
        if above >= 0 and low[by_low[above]] < high[i]:
            return i, by_low[above]
        _mark(tree, leaf_of[i])
    return -1, -1
