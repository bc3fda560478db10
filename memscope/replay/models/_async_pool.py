"""The driver's stream-ordered pool: ``cudaMallocAsync``."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models.model import NO_LIMIT, Model, check_powers, check_sizes, check_switches
from memscope.replay.result import DriverCalls
from memscope.units import MiB


def new_async_pool(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    alignment_bytes: int = 512,
    page_bytes: int = 2 * MiB,
    growth_chunk_bytes: int = 32 * MiB,
    release_threshold_bytes: int = NO_LIMIT,
    reuse_allow_opportunistic: int = 1,
    reuse_allow_internal_dependencies: int = 1,
    remaps_unused: int = 1,
) -> models.AsyncPool:
    """The pool of ``cudaMallocAsync``, with the attributes that PyTorch sets.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    alignment_bytes
        What sizes are rounded up to. Not published.
    page_bytes
        What growth is rounded up to where the driver lacks a whole chunk: a multiple of 2 MiB, the physical page.
    growth_chunk_bytes
        What growth is rounded up to. Not published; small pools are seen to hold 32 MiB.
    release_threshold_bytes
        ``cudaMemPoolAttrReleaseThreshold``: above it, unused memory goes back at the next synchronisation. A
        recording shows none, so that every completed free is taken for one. −1 for no threshold, as PyTorch sets it.
    reuse_allow_opportunistic, reuse_allow_internal_dependencies
        The pool attributes of these names: 1 to allow. With neither, memory stays with its stream until the device
        was waited for.
    remaps_unused
        1 if unused memory is mapped into a larger range before the driver is asked for more.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    check_powers(alignment_bytes=alignment_bytes)
    check_sizes(page_bytes=page_bytes, growth_chunk_bytes=growth_chunk_bytes)
    check_switches(
        reuse_allow_opportunistic=reuse_allow_opportunistic,
        reuse_allow_internal_dependencies=reuse_allow_internal_dependencies,
        remaps_unused=remaps_unused,
    )
    for name, n_bytes, unit in (
        ("page_bytes", page_bytes, max(2 * MiB, alignment_bytes)),
        ("growth_chunk_bytes", growth_chunk_bytes, page_bytes),
    ):
        if n_bytes % unit:
            raise UsageError(f"{name} is {n_bytes}: it must be a multiple of {unit}")
    if release_threshold_bytes < NO_LIMIT:
        raise UsageError(f"release_threshold_bytes is {release_threshold_bytes}: it must be {NO_LIMIT}, 0 or more")
    return models.AsyncPool(
        capacity_bytes,
        is_logged,
        alignment_bytes=alignment_bytes,
        page_bytes=page_bytes,
        growth_chunk_bytes=growth_chunk_bytes,
        release_threshold_bytes=release_threshold_bytes,
        reuse_allow_opportunistic=bool(reuse_allow_opportunistic),
        reuse_allow_internal_dependencies=bool(reuse_allow_internal_dependencies),
        remaps_unused=bool(remaps_unused),
    )


def _pool_calls(allocator: models.AsyncPool) -> DriverCalls:
    """Every request and free is a call, and what the pool does below is counted too."""
    stats = allocator.stats
    return DriverCalls(
        {
            "cudaMallocAsync": stats.n_async_allocs,
            "cudaFreeAsync": stats.n_async_frees,
            "cudaDeviceSynchronize": stats.n_syncs,
            "cuMemAddressReserve": stats.n_reservations,
            "cuMemAddressFree": stats.n_reservations_dropped,
            "cuMemCreate": stats.n_device_allocs,
            "cuMemMap": stats.n_mapped_handles,
            "cuMemSetAccess": stats.n_map_calls,
            "cuMemUnmap": stats.n_unmapped_handles,
            "cuMemRelease": stats.n_device_frees,
        }
    )


ASYNC_POOL = Model(
    name="async-pool",
    summary="the driver's stream-ordered pool: cudaMallocAsync for every request",
    source="CUDA stream-ordered memory allocator, as PyTorch's backend cudaMallocAsync sets it up",
    notes=(
        "async-pool: how the driver places and grows is not published: best fit, and growth by 32 MiB, are assumed",
        "async-pool: every stream reuses completed frees at once, as PyTorch allows the pool to",
        "async-pool: unused memory is mapped again, or given back, only by what was grown at once",
    ),
    new_allocator=new_async_pool,
    calls=_pool_calls,
    mixes_pools=True,
)
