"""What a loop joins piece by piece: each tensor is the one before with a piece more, which is dropped once it is made.

``preds = torch.cat((preds, logits))`` leaves such a series at one line. Batches that get longer grow, too; but what an
accumulator has more was there as a piece by itself, or the series began with hardly more than one piece.
"""

from __future__ import annotations

import numpy as np

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.tables import BoolArray, Int64Array

LEAST_PIECE_BYTES = 64 << 10
"""What is joined at a time, at least: the tokens that a loop adds to its input are fewer bytes."""
_N_LEAST_LINKS = 3
_N_MOST_TOGETHER = 8
"""Tensors that one line joins in turn, as for a tuple of outputs."""


def joined_rows(lifetimes: DeviceLifetimes, rows: Int64Array) -> BoolArray:
    """Which of some allocations, all with a stack, are of such a series: bool (allocations,).

    Of a line that joins several tensors in turn, each follows the one so many back. O(n log n) in the allocations.
    """
    table = lifetimes.allocations
    joined = np.zeros(len(table), np.bool_)
    order = rows[np.argsort(table.stack_id[rows], kind="stable")]
    by_size = np.argsort(table.requested_bytes, kind="stable")
    for of_stack in np.split(order, np.flatnonzero(np.diff(table.stack_id[order])) + 1):
        for n in range(1, min(_N_MOST_TOGETHER, len(of_stack) // _N_LEAST_LINKS) + 1):
            old, new = _links(lifetimes, of_stack, n)
            if 2 * len(old) >= len(of_stack) - n and _takes_in_pieces(lifetimes, old, new, by_size):
                joined[old] = joined[new] = True
                break
    return joined


def _links(lifetimes: DeviceLifetimes, rows: Int64Array, n: int) -> tuple[Int64Array, Int64Array]:
    """Of one stack's allocations, in their order: those that the n-th after each replaces, and what replaces each."""
    table = lifetimes.allocations
    size, made, died = table.requested_bytes[rows], table.alloc_event[rows], lifetimes.died_event[rows]
    n_old = max(len(rows) - n, 0)
    after = np.append(made[2 * n :], np.full(n, NEVER, np.int64))[:n_old]
    is_link = size[n:] - size[:n_old] >= LEAST_PIECE_BYTES
    is_link &= (died[:n_old] > made[n:]) & (died[:n_old] < after)
    return rows[:n_old][is_link], rows[n:][is_link]


def _takes_in_pieces(lifetimes: DeviceLifetimes, old: Int64Array, new: Int64Array, by_size: Int64Array) -> bool:
    """Whether what each has more was made as a piece of its own, or the series began with no more than two."""
    if len(old) < _N_LEAST_LINKS:
        return False
    table, died = lifetimes.allocations, lifetimes.died_event
    size, made = table.requested_bytes, table.alloc_event
    grown = size[new] - size[old]
    is_first = ~np.isin(old, new)
    if (size[old[is_first]] <= 2 * grown[is_first]).all():
        return True
    n_pieces = 0
    for piece_bytes, since, event in zip(grown.tolist(), made[old].tolist(), made[new].tolist(), strict=True):
        begin, end = (int(np.searchsorted(size, piece_bytes, side, sorter=by_size)) for side in ("left", "right"))
        like = by_size[begin:end]
        n_pieces += bool(((made[like] > since) & (made[like] < event) & (died[like] > event)).any())
    return 2 * n_pieces > len(old)
