"""Holes: the free blocks of one state, by the pool, stream and size class that may use them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import BlockState
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Holes:
    """Free blocks that serve the same requests.

    Attributes
    ----------
    pool, stream, size_class
        Pool id pair and raw stream handle (None: not recorded), ``small`` or ``large``.
    size_bytes
        int64 (holes,): the size of each, largest first.
    """

    pool: tuple[int, int] | None
    stream: int | None
    size_class: str
    size_bytes: Int64Array

    @property
    def total_bytes(self) -> int:
        """Bytes of all of them."""
        return int(self.size_bytes.sum())


def holes_of(trace: Trace, state: AllocatorState) -> tuple[Holes, ...]:
    """The free blocks of a state by group, the group with most free bytes first; groups without any are left out."""
    free = np.flatnonzero(state.blocks.state == BlockState.INACTIVE)
    segments, segment = state.segments, state.blocks.segment_id[free]
    keys = np.stack([segments.pool_id[segment], segments.stream_id[segment], segments.is_large[segment]], axis=1)
    distinct, group = np.unique(keys, axis=0, return_inverse=True)
    found = []
    for position, (pool_id, stream_id, is_large) in enumerate(distinct.tolist()):
        size_bytes = np.sort(state.blocks.size_bytes[free[group.reshape(-1) == position]])[::-1]
        pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
        stream = None if stream_id < 0 else int(trace.stream_handles[stream_id])
        found.append(Holes(pool, stream, "large" if is_large else "small", size_bytes))
    return tuple(sorted(found, key=lambda holes: -holes.total_bytes))


def half_size_bytes(holes: tuple[Holes, ...]) -> int | None:
    """The largest size such that holes of at least that size hold half of the free bytes; None without holes."""
    if not holes:
        return None
    size_bytes = np.sort(np.concatenate([group.size_bytes for group in holes]))[::-1]
    total = np.cumsum(size_bytes)
    return int(size_bytes[np.searchsorted(2 * total, total[-1], side="left")])
