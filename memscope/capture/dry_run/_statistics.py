"""The counters of ``torch.cuda.memory_stats``, kept as PyTorch's allocator keeps them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from memscope._core import caching
from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import Action, BlockState
from memscope.trace.tables import Int64Array

_POOLS = ("all", "large_pool", "small_pool")
_OF_CALLS = ("allocation", "active", "allocated_bytes", "active_bytes", "requested_bytes")
"""What an allocation and its free change."""
_OF_SEGMENTS = ("segment", "reserved_bytes")


@dataclass(slots=True)
class Stat:
    """One counter: what it is now and was at most, and all that was ever added and taken away."""

    current: int = 0
    peak: int = 0
    allocated: int = 0
    freed: int = 0

    def change(self, amount: int) -> None:
        """Add, or take away."""
        self.current += amount
        self.peak = max(self.peak, self.current)
        if amount > 0:
            self.allocated += amount
        else:
            self.freed -= amount

    def change_by(self, amounts: Int64Array) -> None:
        """Add or take away several amounts, one after the other: int64 (n,)."""
        if not len(amounts):
            return
        levels = self.current + np.cumsum(amounts)
        self.current, self.peak = int(levels[-1]), max(self.peak, int(levels.max()))
        self.allocated += int(amounts[amounts > 0].sum())
        self.freed -= int(amounts[amounts < 0].sum())

    def items(self) -> Iterator[tuple[str, int]]:
        """The names that PyTorch gives the numbers."""
        for name in ("current", "peak", "allocated", "freed"):
            yield name, getattr(self, name)


def _no_stats() -> dict[str, Stat]:
    return {pool: Stat() for pool in _POOLS}


@dataclass(slots=True)
class MemoryStatistics:
    """Counters of one device, by pool of large and of small blocks.

    ``inactive_split`` is what the layout says when it is asked for; its peak is the highest that was seen then.
    What is served and freed is noted, and counted when somebody asks.
    """

    _noted: list[tuple[int, int, bool]] = field(default_factory=list)
    """Block bytes and requested bytes of each, negative for a free, and whether it is large."""

    _stats: dict[str, dict[str, Stat]] = field(
        default_factory=lambda: {name: _no_stats() for name in (*_OF_CALLS, *_OF_SEGMENTS)}
    )
    _split: dict[str, dict[str, Stat]] = field(
        default_factory=lambda: {name: _no_stats() for name in ("inactive_split", "inactive_split_bytes")}
    )

    def of(self, name: str) -> Stat:
        """A counter over all pools."""
        self._count()
        return self._stats[name]["all"]

    def served(self, requested_bytes: int, block_bytes: int, *, is_large: bool, sign: int = 1) -> None:
        """An allocation was made, or with ``sign`` −1 freed."""
        self._noted.append((sign * block_bytes, sign * requested_bytes, is_large))

    def segment(self, action: Action, size_bytes: int) -> None:
        """Memory was taken from the driver, or given back; a part of a segment counts in bytes alone."""
        sign = 1 if action in (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP) else -1
        is_large = size_bytes > caching.SMALL_SEGMENT_BYTES
        if action in (Action.SEGMENT_ALLOC, Action.SEGMENT_FREE):
            self._change("segment", sign, is_large=is_large)
        self._change("reserved_bytes", sign * size_bytes, is_large=is_large)

    def reset_peaks(self) -> None:
        """``reset_peak_memory_stats``."""
        self._count()
        for stats in (*self._stats.values(), *self._split.values()):
            for stat in stats.values():
                stat.peak = stat.current

    def reset_accumulated(self) -> None:
        """``reset_accumulated_memory_stats``."""
        self._count()
        for stats in (*self._stats.values(), *self._split.values()):
            for stat in stats.values():
                stat.allocated = stat.freed = 0

    def as_torch_says(self, state: AllocatorState, counts: caching.DeviceStats) -> OrderedDict[str, int]:
        """Every key of ``memory_stats``, in order of their names."""
        self._count()
        self._look_at(state)
        found = {
            f"{name}.{pool}.{number}": value
            for name, stats in (*self._stats.items(), *self._split.items())
            for pool, stat in stats.items()
            for number, value in stat.items()
        }
        for name in ("oversize_allocations", "oversize_segments"):
            found |= {f"{name}.{number}": value for number, value in Stat().items()}
        found |= {
            "max_split_size": -1,
            "num_alloc_retries": counts.n_retries,
            "num_device_alloc": counts.n_device_allocs,
            "num_device_free": counts.n_device_frees,
            "num_ooms": counts.n_ooms,
            "num_sync_all_streams": counts.n_syncs,
        }
        return OrderedDict(sorted(found.items()))

    def _count(self) -> None:
        """Count what was noted."""
        if not self._noted:
            return
        block, requested, is_large = (np.array(column, np.int64) for column in zip(*self._noted, strict=True))
        self._noted.clear()
        changes = (np.sign(block), np.sign(block), block, block, requested)
        for name, change in zip(_OF_CALLS, changes, strict=True):
            stats = self._stats[name]
            stats["all"].change_by(change)
            stats["large_pool"].change_by(change[is_large != 0])
            stats["small_pool"].change_by(change[is_large == 0])

    def _change(self, name: str, amount: int, *, is_large: bool) -> None:
        self._stats[name]["all"].change(amount)
        self._stats[name]["large_pool" if is_large else "small_pool"].change(amount)

    def _look_at(self, state: AllocatorState) -> None:
        blocks, segments = state.blocks, state.segments
        whole = blocks.size_bytes == segments.size_bytes[blocks.segment_id]
        split = (blocks.state == BlockState.INACTIVE) & ~whole
        large = segments.is_large[blocks.segment_id]
        for pool, chosen in (("all", split), ("large_pool", split & large), ("small_pool", split & ~large)):
            now = (int(np.count_nonzero(chosen)), int(blocks.size_bytes[chosen].sum()))
            for stats, value in zip(self._split.values(), now, strict=True):
                stats[pool].change(value - stats[pool].current)
