"""What a modelled allocator is, and what its parameters and its driver calls have in common with others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from memscope._core import caching
from memscope.errors import UsageError
from memscope.replay.result import DriverCalls
from memscope.trace.tables import Int8Array, Int32Array, Int64Array

NO_LIMIT = -1
"""The parameter of a limit that is not set."""


class Allocator(Protocol):
    """What every allocator of :mod:`memscope._core.models` does for a replay; all are block allocators of the core."""

    @property
    def n_pairs(self) -> int:
        """Pairs of pools so far; of a new one: its own."""

    def add_pair(self, pool_id: int, stream: int) -> None:
        """Add the pools of a stream."""

    @property
    def stats(self) -> caching.DeviceStats:
        """Counters now."""

    @property
    def capacity_bytes(self) -> int:
        """What the driver can give out, −1 for no limit."""

    @property
    def device_used_bytes(self) -> int:
        """What it has given out."""

    def blocks(self) -> caching.BlockTable:
        """All blocks now."""

    def segments(self) -> caching.SegmentTable:
        """All segments now."""

    def serve(
        self,
        op: Int8Array,
        row: Int32Array,
        dropped_pool: Int32Array,
        requested_bytes: Int64Array,
        pair: Int64Array,
        keeps_peak_only: bool = ...,
    ) -> tuple[Int64Array, int, int, int, int | None]:
        """Serve a program's calls up to the first request that fails."""


@dataclass(frozen=True, slots=True)
class Model:
    """A modelled allocator.

    Attributes
    ----------
    name, summary, source
        Its name in the registry; one line for lists; what it is modelled after.
    notes
        What is assumed, a sentence each.
    new_allocator
        One that holds nothing, of ``capacity_bytes`` and ``is_logged``, with its default parameters; keyword arguments
        replace them.
    calls
        Driver calls by kind, of such an allocator.
    merges_neighbours
        Whether adjacent free blocks of a segment and the same pool are always merged.
    mixes_pools
        Whether blocks of one segment may be in several pools: free memory changes its stream.
    sorts_by_address
        Whether its sets of free blocks are in the order of addresses, not of sizes.
    """

    name: str
    summary: str
    source: str
    notes: tuple[str, ...]
    new_allocator: Callable[..., Allocator]
    calls: Callable[[Any], DriverCalls]
    merges_neighbours: bool = True
    mixes_pools: bool = False
    sorts_by_address: bool = False


def check_sizes(**sizes_bytes: int) -> None:
    """Sizes must be positive."""
    for name, n_bytes in sizes_bytes.items():
        if n_bytes <= 0:
            raise UsageError(f"{name} is {n_bytes}: it must be positive")


def check_powers(**sizes_bytes: int) -> None:
    """Sizes must be powers of two."""
    for name, n_bytes in sizes_bytes.items():
        if n_bytes <= 0 or n_bytes & (n_bytes - 1):
            raise UsageError(f"{name} is {n_bytes}: it must be a power of two")


def check_switches(**switches: int) -> None:
    """Switches must be 0 or 1."""
    for name, value in switches.items():
        if value not in (0, 1):
            raise UsageError(f"{name} is {value}: it must be 0 or 1")


def mallocs_and_frees(allocator: Allocator) -> DriverCalls:
    """Every take and give is one ``cudaMalloc`` or ``cudaFree``; a reclaim waits for the device."""
    stats = allocator.stats
    return DriverCalls(
        {
            "cudaMalloc": stats.n_device_allocs,
            "cudaFree": stats.n_device_frees,
            "cudaDeviceSynchronize": stats.n_syncs,
        }
    )


def mapping_calls(stats: caching.DeviceStats, n_creates: int, n_releases: int) -> dict[str, int]:
    """Calls of an allocator that maps handles which it creates and releases itself."""
    return {
        "cuMemAddressReserve": stats.n_reservations,
        "cuMemAddressFree": stats.n_reservations_dropped,
        "cuMemCreate": n_creates,
        "cuMemMap": stats.n_mapped_handles,
        "cuMemSetAccess": stats.n_map_calls,
        "cuMemUnmap": stats.n_unmapped_handles,
        "cuMemRelease": n_releases,
        "cudaDeviceSynchronize": stats.n_syncs,
    }
