"""Physical memory in handles of one size and virtual ranges over them: what both virtual-memory models count.

The counters are those of the calls of the CUDA driver: ``cuMemCreate`` and ``cuMemRelease`` for each handle;
``cuMemAddressReserve`` and ``cuMemAddressFree`` for each range; ``cuMemMap`` and ``cuMemUnmap`` for each handle in a
range, since a call maps one handle; ``cuMemSetAccess`` once for each range.
"""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.compiled import borrowing


@borrowing
def driver_can_create(arrays, n_bytes):
    """Whether the driver still has that much physical memory."""
    capacity = arrays.config[at.CFG_CAPACITY]
    return capacity < 0 or arrays.counters[at.C_DEVICE_USED] + n_bytes <= capacity


@borrowing
def create_handles(arrays, n_bytes, handle_bytes):
    """Count physical memory that came from the driver, one call for each handle."""
    counters = arrays.counters
    counters[at.C_DEVICE_USED] += n_bytes
    counters[at.C_N_DEVICE_ALLOCS] += n_bytes // handle_bytes
    at.grow_counter(counters, at.C_RESERVED, at.C_PEAK_RESERVED, n_bytes)


@borrowing
def release_handles(arrays, n_bytes, handle_bytes):
    """Count physical memory that went back to the driver, one call for each handle."""
    counters = arrays.counters
    counters[at.C_DEVICE_USED] -= n_bytes
    counters[at.C_N_DEVICE_FREES] += n_bytes // handle_bytes
    counters[at.C_RESERVED] -= n_bytes


@borrowing
def count_mapped_range(arrays, n_handles):
    """Count a virtual range that was reserved, mapped handle by handle and made accessible."""
    counters = arrays.counters
    counters[at.C_N_RESERVATIONS] += 1
    counters[at.C_N_MAPPED_HANDLES] += n_handles
    counters[at.C_N_MAP_CALLS] += 1


@borrowing
def count_unmapped_range(arrays, n_handles):
    """Count a virtual range that was unmapped handle by handle and given up."""
    counters = arrays.counters
    counters[at.C_N_UNMAPPED_HANDLES] += n_handles
    counters[at.C_N_UNMAP_CALLS] += 1
    counters[at.C_N_RESERVATIONS_DROPPED] += 1
