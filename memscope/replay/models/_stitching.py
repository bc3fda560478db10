"""Free blocks stitched together behind one range by remapping, as GMLake does."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models.model import NO_LIMIT, Model, mapping_calls
from memscope.replay.result import DriverCalls
from memscope.units import MiB


def new_stitching(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    chunk_bytes: int = 2 * MiB,
    fragment_limit_bytes: int = 2 * MiB,
    n_idle_most: int = 1024,
    alignment_bytes: int = 512,
) -> models.Stitching:
    """Blocks and ranges as GMLake has them.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    chunk_bytes
        Size of a physical chunk; smaller requests are small ones.
    fragment_limit_bytes
        Only free blocks of at least that size are stitched; a chunk means all. Blocks are never merged: with a higher
        limit, what splits leave below it serves only requests that fit into it, which can waste much.
    n_idle_most
        Idle stitched ranges kept; beyond them the one used longest ago is unmapped.
    alignment_bytes
        What small requests are rounded to, as PyTorch does.

    Raises
    ------
    UsageError
        If a chunk is not a multiple of 2 MiB and of the alignment, or a limit is negative.
    """
    is_chunk = chunk_bytes > 0 and chunk_bytes % (2 * MiB) == 0
    if not is_chunk or alignment_bytes <= 0 or chunk_bytes % alignment_bytes:
        raise UsageError(
            f"stitching: chunks of {chunk_bytes} bytes in steps of {alignment_bytes}: "
            "a chunk must be a multiple of 2 MiB and of the alignment"
        )
    if fragment_limit_bytes < 0 or n_idle_most < 0:
        raise UsageError("stitching: the fragment limit and the number of idle ranges must not be negative")
    return models.Stitching(
        capacity_bytes,
        is_logged,
        chunk_bytes=chunk_bytes,
        fragment_limit_bytes=fragment_limit_bytes,
        n_idle_most=n_idle_most,
        alignment_bytes=alignment_bytes,
    )


def _stitching_calls(allocator: models.Stitching) -> DriverCalls:
    """Small segments are ``cudaMalloc``; every other take and give is a chunk."""
    stats, n_small_allocs, n_small_frees = allocator.stats, allocator.n_small_allocs, allocator.n_small_frees
    n_creates, n_releases = stats.n_device_allocs - n_small_allocs, stats.n_device_frees - n_small_frees
    calls = mapping_calls(stats, n_creates, n_releases)
    return DriverCalls({**calls, "cudaMalloc": n_small_allocs, "cudaFree": n_small_frees})


STITCHING = Model(
    name="stitching",
    summary="free blocks stitched together behind one range by remapping",
    source="GMLake (arXiv 2401.08156): primitive and stitched blocks, best fit",
    notes=(
        "stitching: requests of 2 MiB or more take whole chunks of 2 MiB, smaller ones share segments of one chunk",
        "stitching: free memory serves its own stream, and blocks of every size are stitched unless a limit is set",
        "stitching: up to 1024 stitched ranges are kept for reuse unless set otherwise",
    ),
    new_allocator=new_stitching,
    calls=_stitching_calls,
)
