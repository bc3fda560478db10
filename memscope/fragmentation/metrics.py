"""Fragmentation of one state, for each (pool, stream, small or large) and in all.

Free memory serves only requests of its own pool, stream and size class, so ratios are given for each group; over all
groups only sums are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope.lifetimes.rules import large_segment_bytes
from memscope.lifetimes.state import AllocatorState, releasable_bytes
from memscope.trace.schema import BlockState
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
    """Measure one state. Linear in its blocks and groups, but for sorting the segments into groups."""
    segments = state.segments
    keys = np.stack([segments.pool_id, segments.stream_id, segments.is_large], axis=1)
    distinct, group = np.unique(keys, axis=0, return_inverse=True)
    released = releasable_bytes(state, large_segment_bytes(trace.metadata.alloc_conf))
    names: list[_GroupName] = []
    for pool_id, stream_id, is_large in distinct.tolist():
        pool = None if pool_id < 0 else (int(trace.pools[pool_id, 0]), int(trace.pools[pool_id, 1]))
        stream = None if stream_id < 0 else int(trace.stream_handles[stream_id])
        names.append((pool, stream, "large" if is_large else "small"))
    metrics = _measure(state, released, group.reshape(-1), names)
    (overall,) = _measure(state, released, np.zeros(len(segments), np.int64), [(None, None, None)])
    metrics.sort(key=lambda m: -m.free_bytes)
    return Fragmentation(state.event, state.device, overall, tuple(metrics))


_GroupName = tuple[tuple[int, int] | None, int | None, str | None]
"""Pool, stream, size class."""


def _measure(
    state: AllocatorState, released: np.ndarray, group: np.ndarray, names: Sequence[_GroupName]
) -> list[FragmentationMetrics]:
    """The metrics of each group of segments; every block is added to its group's once."""
    blocks = state.blocks
    of_block = group[blocks.segment_id]
    free, active = blocks.state == BlockState.INACTIVE, blocks.state != BlockState.INACTIVE

    def sums(values: np.ndarray, of: np.ndarray) -> list[int]:
        found = np.zeros(len(names), np.int64)
        np.add.at(found, of, values)
        return [int(n) for n in found]

    largest = np.zeros(len(names), np.int64)
    np.maximum.at(largest, of_block[free], blocks.size_bytes[free])
    columns = {
        "reserved_bytes": sums(state.segments.size_bytes, group),
        "active_bytes": sums(blocks.size_bytes[active], of_block[active]),
        "requested_bytes": sums(blocks.requested_bytes[active], of_block[active]),
        "releasable_bytes": sums(released, of_block),
        "largest_free_block_bytes": largest.tolist(),
        "n_segments": np.bincount(group, minlength=len(names)).tolist(),
        "n_active_blocks": np.bincount(of_block[active], minlength=len(names)).tolist(),
        "n_free_blocks": np.bincount(of_block[free], minlength=len(names)).tolist(),
    }
    return [
        FragmentationMetrics(
            pool=pool, stream=stream, size_class=size_class, **{name: column[i] for name, column in columns.items()}
        )
        for i, (pool, stream, size_class) in enumerate(names)
    ]
