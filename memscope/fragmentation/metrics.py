"""Fragmentation of one state, for each (pool, stream, small or large) and in all.

Free memory serves only requests of its own pool, stream and size class, so ratios are given for each group; over all
groups only sums are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.rules import large_segment_bytes
from memscope.lifetimes.state import AllocatorState, releasable_bytes
from memscope.trace.schema import BlockState
from memscope.trace.tables import BoolArray
from memscope.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class FragmentationMetrics:
    """One group's numbers after one event.

    Attributes
    ----------
    pool, stream, size_class
        The group: pool id pair (None: not recorded), raw stream handle, ``small`` or ``large``; all None for "in all".
    reserved_bytes, active_bytes, requested_bytes
        Segments; blocks in use or pending; what their callers asked for.
    rounding_bytes
        ``active_bytes − requested_bytes``: internal fragmentation.
    free_bytes
        ``reserved_bytes − active_bytes``: external fragmentation and cache.
    releasable_bytes
        What ``empty_cache()`` would give back.
    free_in_split_segments_bytes
        ``free_bytes − releasable_bytes``: free, but its segment is kept by live blocks (or its pool is alive).
    largest_free_block_bytes
        The largest request that this group could serve without the driver; in all: of any group.
    n_segments, n_active_blocks, n_free_blocks
        Counts.
    """

    pool: tuple[int, int] | None
    stream: int | None
    size_class: str | None
    reserved_bytes: int
    active_bytes: int
    requested_bytes: int
    releasable_bytes: int
    largest_free_block_bytes: int
    n_segments: int
    n_active_blocks: int
    n_free_blocks: int

    @property
    def rounding_bytes(self) -> int:
        """Bytes given beyond what was requested."""
        return self.active_bytes - self.requested_bytes

    @property
    def free_bytes(self) -> int:
        """Reserved bytes not in use."""
        return self.reserved_bytes - self.active_bytes

    @property
    def free_in_split_segments_bytes(self) -> int:
        """Free bytes that cannot go back to the driver."""
        return self.free_bytes - self.releasable_bytes

    @property
    def utilisation_frac(self) -> float | None:
        """``active_bytes / reserved_bytes``; None where nothing is reserved."""
        return self.active_bytes / self.reserved_bytes if self.reserved_bytes else None

    @property
    def scatter_frac(self) -> float | None:
        """``1 − largest free block / free bytes``: 0 if free memory is one block; None where nothing is free.

        Meaningless over groups, and None there.
        """
        if self.size_class is None or not self.free_bytes:
            return None
        return 1 - self.largest_free_block_bytes / self.free_bytes


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """One state's fragmentation: in all, and by group with the most free bytes first."""

    event: int
    device: int
    overall: FragmentationMetrics
    groups: tuple[FragmentationMetrics, ...]


def measure_fragmentation(trace: Trace, state: AllocatorState) -> Fragmentation:
    """Measure one state. Linear in its blocks, times the number of groups."""
    segments = state.segments
    keys = np.stack([segments.pool_id, segments.stream_id, segments.is_large], axis=1)
    distinct, group = np.unique(keys, axis=0, return_inverse=True)
    released = releasable_bytes(state, large_segment_bytes(trace.metadata.alloc_conf))
    metrics = []
    for position, (pool_id, stream_id, is_large) in enumerate(distinct):
        pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
        stream = None if stream_id < 0 else int(trace.stream_handles[stream_id])
        size_class = "large" if is_large else "small"
        chosen = group.reshape(-1) == position
        metrics.append(_measure(state, released, chosen, (pool, stream, size_class)))
    overall = _measure(state, released, np.ones(len(segments), np.bool_), (None, None, None))
    metrics.sort(key=lambda m: -m.free_bytes)
    return Fragmentation(state.event, state.device, overall, tuple(metrics))


def _measure(
    state: AllocatorState,
    released: np.ndarray,
    chosen: BoolArray,
    group: tuple[tuple[int, int] | None, int | None, str | None],
) -> FragmentationMetrics:
    blocks = state.blocks
    inside = chosen[blocks.segment_id]
    free = inside & (blocks.state == BlockState.INACTIVE)
    active = inside & (blocks.state != BlockState.INACTIVE)
    pool, stream, size_class = group
    return FragmentationMetrics(
        pool=pool,
        stream=stream,
        size_class=size_class,
        reserved_bytes=int(state.segments.size_bytes[chosen].sum()),
        active_bytes=int(blocks.size_bytes[active].sum()),
        requested_bytes=int(blocks.requested_bytes[active].sum()),
        releasable_bytes=int(released[inside].sum()),
        largest_free_block_bytes=int(blocks.size_bytes[free].max(initial=0)),
        n_segments=int(np.count_nonzero(chosen)),
        n_active_blocks=int(np.count_nonzero(active)),
        n_free_blocks=int(np.count_nonzero(free)),
    )
