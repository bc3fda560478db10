"""Parameters of the modelled block allocators, with their defaults: what a replay may change of each."""

from __future__ import annotations

import numpy as np

from memscope._kernels.address_sets import PATH_ROWS
from memscope._kernels.policy_arena import Arena
from memscope._kernels.policy_async_pool import AsyncPool
from memscope._kernels.policy_bfc import Bfc
from memscope._kernels.policy_binning import MAX_BINS, Binning
from memscope._kernels.policy_buddy import Buddy
from memscope._kernels.policy_pool import Pool
from memscope.errors import UsageError
from memscope.units import MiB

NO_LIMIT = -1


def _check_sizes(**sizes_bytes: int) -> None:
    """Sizes must be positive."""
    for name, n_bytes in sizes_bytes.items():
        if n_bytes <= 0:
            raise UsageError(f"{name} is {n_bytes}: it must be positive")


def _check_powers(**sizes_bytes: int) -> None:
    """Sizes must be powers of two."""
    for name, n_bytes in sizes_bytes.items():
        if n_bytes <= 0 or n_bytes & (n_bytes - 1):
            raise UsageError(f"{name} is {n_bytes}: it must be a power of two")


def _check_switches(**switches: int) -> None:
    for name, value in switches.items():
        if value not in (0, 1):
            raise UsageError(f"{name} is {value}: it must be 0 or 1")


def new_bfc(
    *,
    alignment_bytes: int = 256,
    first_region_bytes: int = 2 * MiB,
    max_internal_fragmentation_bytes: int = 128 * MiB,
    collects_regions: int = 1,
) -> Bfc:
    """TensorFlow's defaults with ``allow_growth``.

    Parameters
    ----------
    alignment_bytes
        What sizes are rounded up to.
    first_region_bytes
        What is first asked of the driver; every further region is twice as large, or as large as a request needs.
    max_internal_fragmentation_bytes
        A block is given whole where less than this, and less than half of it, would be left.
    collects_regions
        1 if unused regions go back to the driver before a request fails.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    _check_powers(alignment_bytes=alignment_bytes)
    _check_sizes(
        first_region_bytes=first_region_bytes, max_internal_fragmentation_bytes=max_internal_fragmentation_bytes
    )
    _check_switches(collects_regions=collects_regions)
    next_region_bytes = np.array([first_region_bytes], np.int64)
    return Bfc(
        alignment_bytes, first_region_bytes, max_internal_fragmentation_bytes, collects_regions, next_region_bytes
    )


def new_buddy(*, min_block_bytes: int = 512, chunk_bytes: int = 32 * MiB) -> Buddy:
    """Binary buddies.

    Parameters
    ----------
    min_block_bytes
        The smallest block; 512 is what PyTorch rounds requests to.
    chunk_bytes
        What is asked of the driver at once, unless a request needs more.

    Raises
    ------
    UsageError
        If one of them is no power of two, or the chunk is smaller than a block.
    """
    _check_powers(min_block_bytes=min_block_bytes, chunk_bytes=chunk_bytes)
    if chunk_bytes < min_block_bytes:
        raise UsageError(f"chunk_bytes is {chunk_bytes}, less than min_block_bytes, which is {min_block_bytes}")
    return Buddy(min_block_bytes, chunk_bytes)


def _check_pool(alignment_bytes: int, initial_pool_bytes: int, maximum_pool_bytes: int, returns_memory: int) -> None:
    _check_powers(alignment_bytes=alignment_bytes)
    _check_switches(returns_memory=returns_memory)
    if initial_pool_bytes < 0 or initial_pool_bytes % alignment_bytes:
        raise UsageError(f"initial_pool_bytes is {initial_pool_bytes}: it must be a multiple of {alignment_bytes}")
    if maximum_pool_bytes != NO_LIMIT and maximum_pool_bytes < max(initial_pool_bytes, 1):
        raise UsageError(f"maximum_pool_bytes is {maximum_pool_bytes}, less than the pool starts with")


def new_pool(
    *,
    alignment_bytes: int = 256,
    initial_pool_bytes: int = 0,
    maximum_pool_bytes: int = NO_LIMIT,
    returns_memory: int = 1,
) -> Pool:
    """RMM's pool, without the half of the device that its Python interface takes at the start.

    Parameters
    ----------
    alignment_bytes
        What sizes are rounded up to.
    initial_pool_bytes
        What is taken from the driver before the first request.
    maximum_pool_bytes
        What the pool may grow to: it then grows by half of what remains. −1 for no limit: it then doubles.
    returns_memory
        1 if unused memory goes back when the cache is emptied, and before a request fails; 0 for RMM's own behaviour,
        which keeps everything until the pool is destroyed.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    _check_pool(alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory)
    return Pool(alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory)


def new_arena(*, alignment_bytes: int = 256, superblock_bytes: int = 1 * MiB, initial_arena_bytes: int = 0) -> Arena:
    """RMM's arenas, whose extent grows as it is touched.

    Parameters
    ----------
    alignment_bytes
        What sizes are rounded up to.
    superblock_bytes
        The smallest superblock; larger requests are served by the global arena itself.
    initial_arena_bytes
        What the global arena takes at its first request; RMM takes half of the device unless it is told a size.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    _check_powers(alignment_bytes=alignment_bytes)
    _check_sizes(superblock_bytes=superblock_bytes)
    if superblock_bytes % alignment_bytes:
        raise UsageError(f"superblock_bytes is {superblock_bytes}: it must be a multiple of {alignment_bytes}")
    if initial_arena_bytes < 0 or initial_arena_bytes % alignment_bytes:
        raise UsageError(f"initial_arena_bytes is {initial_arena_bytes}: it must be a multiple of {alignment_bytes}")
    path = np.zeros(PATH_ROWS, np.int64)
    return Arena(alignment_bytes, superblock_bytes, initial_arena_bytes, path)


def new_binning(
    *,
    min_bin_exponent: int = 18,
    max_bin_exponent: int = 22,
    blocks_per_chunk: int = 128,
    alignment_bytes: int = 256,
    initial_pool_bytes: int = 0,
    maximum_pool_bytes: int = NO_LIMIT,
    returns_memory: int = 1,
) -> Binning:
    """RMM's bins of 256 KiB to 4 MiB, as in its replay benchmark, over its pool.

    Parameters
    ----------
    min_bin_exponent, max_bin_exponent
        There is a bin for each power of two between these, both included.
    blocks_per_chunk
        Blocks that a bin takes from the pool at once.
    alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory
        Of the pool: see :func:`new_pool`.

    Raises
    ------
    UsageError
        If one of them makes no sense, or the bins are too many.
    """
    _check_pool(alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory)
    _check_sizes(blocks_per_chunk=blocks_per_chunk)
    n_bins = max_bin_exponent - min_bin_exponent + 1
    if not 1 <= n_bins <= MAX_BINS or 1 << max(min_bin_exponent, 0) < alignment_bytes:
        raise UsageError(
            f"bins of 2**{min_bin_exponent} to 2**{max_bin_exponent} bytes: 1 to {MAX_BINS} bins are possible, "
            f"none smaller than {alignment_bytes} bytes"
        )
    return Binning(
        min_bin_exponent,
        max_bin_exponent,
        blocks_per_chunk,
        alignment_bytes,
        initial_pool_bytes,
        maximum_pool_bytes,
        returns_memory,
    )


def new_async_pool(
    *,
    alignment_bytes: int = 512,
    page_bytes: int = 2 * MiB,
    growth_chunk_bytes: int = 32 * MiB,
    release_threshold_bytes: int = NO_LIMIT,
    reuse_allow_opportunistic: int = 1,
    reuse_allow_internal_dependencies: int = 1,
    remaps_unused: int = 1,
) -> AsyncPool:
    """The pool of ``cudaMallocAsync``, with the attributes that PyTorch sets.

    Parameters
    ----------
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
    _check_powers(alignment_bytes=alignment_bytes)
    _check_sizes(page_bytes=page_bytes, growth_chunk_bytes=growth_chunk_bytes)
    _check_switches(
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
    return AsyncPool(
        alignment_bytes,
        page_bytes,
        growth_chunk_bytes,
        release_threshold_bytes,
        reuse_allow_opportunistic,
        reuse_allow_internal_dependencies,
        remaps_unused,
    )
