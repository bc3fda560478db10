"""Fixed pages mapped on demand behind contiguous ranges, as vAttention does."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.policy_paged import N_EXTRA_PAIRS, Paged
from memscope.errors import UsageError
from memscope.replay.models.model import Model, Policy, mapping_calls
from memscope.replay.result import DriverCalls
from memscope.trace.tables import Int64Array
from memscope.units import MiB


def new_paged(
    *,
    page_bytes: int = 2 * MiB,
    large_from_bytes: int = 2 * MiB,
    alignment_bytes: int = 512,
    keeps_ranges: int = 0,
) -> Paged:
    """Parameters of :class:`~memscope._kernels.policy_paged.Paged`, checked.

    Raises
    ------
    UsageError
        If a size is not positive, or a page is not a multiple of the alignment.
    """
    if min(page_bytes, large_from_bytes, alignment_bytes) <= 0 or page_bytes % alignment_bytes:
        raise UsageError(
            f"paged: pages of {page_bytes} bytes do not hold requests in steps of {alignment_bytes}: "
            "sizes must be positive, and a page a multiple of the alignment"
        )
    return Paged(page_bytes, large_from_bytes, alignment_bytes, int(bool(keeps_ranges)))


def _paged_calls(policy: Policy, counters: Int64Array) -> DriverCalls:
    n_creates, n_releases = int(counters[at.C_N_DEVICE_ALLOCS]), int(counters[at.C_N_DEVICE_FREES])
    return DriverCalls(mapping_calls(counters, n_creates, n_releases))


PAGED = Model(
    name="paged",
    summary="fixed pages mapped on demand behind contiguous ranges",
    source="vAttention (arXiv 2405.04437): physical pages mapped on demand, here for every request",
    notes=(
        "paged: requests of a page or more are mapped on their own and unmapped when freed, smaller ones share pages",
        "paged: free pages serve every stream, and waits of the unmapping for running kernels are not modelled",
    ),
    new_policy=new_paged,
    calls=_paged_calls,
    n_extra_pairs=N_EXTRA_PAIRS,
)
