"""Free blocks stitched together behind one range by remapping, as GMLake does."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels import stitched_ranges as sr
from memscope._kernels.policy_stitching import Stitching, new_table
from memscope.errors import UsageError
from memscope.replay.models.model import Model, Policy, mapping_calls
from memscope.replay.result import DriverCalls
from memscope.trace.tables import Int64Array
from memscope.units import MiB


def new_stitching(
    *,
    chunk_bytes: int = 2 * MiB,
    fragment_limit_bytes: int = 2 * MiB,
    n_idle_most: int = 1024,
    alignment_bytes: int = 512,
) -> Stitching:
    """Parameters of :class:`~memscope._kernels.policy_stitching.Stitching`, checked.

    Raises
    ------
    UsageError
        If a chunk is not a multiple of 2 MiB and of the alignment, or a limit is negative.
    """
    is_chunk = chunk_bytes > 0 and chunk_bytes % at.DRIVER_GRANULE_BYTES == 0
    if not is_chunk or alignment_bytes <= 0 or chunk_bytes % alignment_bytes:
        raise UsageError(
            f"stitching: chunks of {chunk_bytes} bytes in steps of {alignment_bytes}: "
            "a chunk must be a multiple of 2 MiB and of the alignment"
        )
    if fragment_limit_bytes < 0 or n_idle_most < 0:
        raise UsageError("stitching: the fragment limit and the number of idle ranges must not be negative")
    return Stitching(chunk_bytes, fragment_limit_bytes, n_idle_most, alignment_bytes, new_table())


def _grow_stitching(policy: Policy) -> Policy:
    old = policy.table
    rows = new_table(2 * len(old.rows)).rows
    rows[: len(old.rows)] = old.rows
    return policy._replace(table=old._replace(rows=rows))


def _stitching_calls(policy: Policy, counters: Int64Array) -> DriverCalls:
    """Small segments are ``cudaMalloc``; every other take and give is a chunk."""
    counts = policy.table.counts
    n_small_allocs, n_small_frees = int(counts[sr.N_SMALL_ALLOCS]), int(counts[sr.N_SMALL_FREES])
    n_creates = int(counters[at.C_N_DEVICE_ALLOCS]) - n_small_allocs
    n_releases = int(counters[at.C_N_DEVICE_FREES]) - n_small_frees
    calls = mapping_calls(counters, n_creates, n_releases)
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
    new_policy=new_stitching,
    calls=_stitching_calls,
    grow_policy=_grow_stitching,
)
