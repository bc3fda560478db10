"""RMM's bins of fixed sizes, over its pool."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models._pool_coalescing import check_pool
from memscope.replay.models.model import NO_LIMIT, Model, check_sizes, mallocs_and_frees


def new_binning(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    min_bin_exponent: int = 18,
    max_bin_exponent: int = 22,
    blocks_per_chunk: int = 128,
    alignment_bytes: int = 256,
    initial_pool_bytes: int = 0,
    maximum_pool_bytes: int = NO_LIMIT,
    returns_memory: int = 1,
) -> models.Binning:
    """RMM's bins of 256 KiB to 4 MiB, as in its replay benchmark, over its pool.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    min_bin_exponent, max_bin_exponent
        There is a bin for each power of two between these, both included.
    blocks_per_chunk
        Blocks that a bin takes from the pool at once.
    alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory
        Of the pool: see :func:`~memscope.replay.models._pool_coalescing.new_pool`.

    Raises
    ------
    UsageError
        If one of them makes no sense, or the bins are too many.
    """
    check_pool(alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory)
    check_sizes(blocks_per_chunk=blocks_per_chunk)
    n_bins = max_bin_exponent - min_bin_exponent + 1
    if not 1 <= n_bins <= models.Binning.MAX_BINS or 1 << max(min_bin_exponent, 0) < alignment_bytes:
        raise UsageError(
            f"bins of 2**{min_bin_exponent} to 2**{max_bin_exponent} bytes: 1 to {models.Binning.MAX_BINS} bins are "
            f"possible, none smaller than {alignment_bytes} bytes"
        )
    return models.Binning(
        capacity_bytes,
        is_logged,
        min_bin_exponent=min_bin_exponent,
        max_bin_exponent=max_bin_exponent,
        blocks_per_chunk=blocks_per_chunk,
        alignment_bytes=alignment_bytes,
        initial_pool_bytes=initial_pool_bytes,
        maximum_pool_bytes=maximum_pool_bytes,
        returns_memory=bool(returns_memory),
    )


BINNING = Model(
    name="binning",
    summary="bins of 256 KiB to 4 MiB over a pool that doubles",
    source="RMM, binning_memory_resource over pool_memory_resource",
    notes=(
        "binning: requests below 256 KiB take a block of 256 KiB, as in RMM: it is meant for large tables",
        "binning: a bin takes its first chunk of 128 blocks when it is first used, where RMM takes all at the start",
        "binning: an emptied cache gives unused chunks and memory of the pool back, where RMM keeps them",
    ),
    new_allocator=new_binning,
    calls=mallocs_and_frees,
    merges_neighbours=False,
    mixes_pools=True,
)
